//! What the parsers of names and targets must stand: any text, and what they accept they must print and read again.

use holepunch::{
    ErrorKind,
    peer::{Target, parse_name},
    rendezvous::keys::Secret,
    wire::stun::{AttributeType, Builder, Class, Message, Method, Name, TransactionId},
};
use std::net::IpAddr;

/// Parses a text, as UTF-8 where it is none, and as the attribute of a message.
pub(crate) fn names_and_targets(bytes: &[u8]) {
    check_text(&String::from_utf8_lossy(bytes));
    check_attribute(bytes);
    assert_eq!(Secret::new(bytes).is_ok(), bytes.len() >= 16);
}

fn check_text(text: &str) {
    let name = Name::new(text);
    let parsed = parse_name(text);
    let target = text.parse::<Target>();
    if let Err(error) = &name {
        assert!(!format!("{error}").is_empty());
    }
    match &parsed {
        Ok(parsed) => {
            assert_eq!(Ok(parsed), name.as_ref());
            assert_eq!(parsed.as_str(), text);
            assert!((1..=Name::MAX_LENGTH).contains(&text.len()));
            assert_eq!(target.as_ref(), Ok(&Target::Name(parsed.clone())), "a listener's name can be connected to");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(!error.message().is_empty() && !error.hint().is_empty());
        }
    }
    match &target {
        Ok(Target::Name(name)) => assert_eq!(name.as_str(), text),
        Ok(Target::Address(ip)) => {
            let read: IpAddr = text.parse().expect("only an IP literal is an address");
            assert!(read == *ip || read.is_ipv6(), "{text:?} became {ip}");
            assert_eq!(format!("{ip}").parse::<Target>().as_ref(), Ok(&Target::Address(*ip)));
            assert!(parsed.is_err(), "{text:?} is both an address and a name");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidArgument),
    }
}

/// What is accepted as a text is accepted in a message, and nothing else is.
fn check_attribute(bytes: &[u8]) {
    let builder =
        Builder::new(Class::Request, Method::REGISTER, TransactionId([1; 12])).attribute(AttributeType::NAME, bytes);
    let complete = builder.is_complete();
    let message = builder.fingerprint().finish();
    let message = Message::parse(&message).expect("what is built can be parsed");
    let expected = std::str::from_utf8(bytes).ok().and_then(|text| Name::new(text).ok());
    assert_eq!(message.name(), expected.filter(|_| complete));
}
