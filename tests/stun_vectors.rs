//! The sample messages of RFC 5769 and of RFC 8489 appendix B.1 (with erratum 6268), read and, where their padding
//! is zeros, written again.
//!
//! The keys of long-term credentials are the RFCs' hashes of `マトリックス:example.org:TheMatrIX`, computed elsewhere:
//! MD5 for RFC 5769 section 2.4, SHA-256 for RFC 8489 appendix B.1.

use holepunch::wire::stun::{
    AttributeType, Builder, Class, ClassicRequest, Fingerprint, Integrity, Message, Method, ParseError, TransactionId,
};

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const ID: TransactionId = TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
const LONG_TERM_ID: TransactionId =
    TransactionId([0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72, 0xc0, 0x29, 0xda, 0x41, 0x2e]);
const LONG_TERM_USERNAME: &str = "マトリックス";

/// RFC 5769 section 2.1.
const REQUEST: &str = "
    00010058 2112a442 b7e7a701bc34d686fa87dfae
    80220010 5354554e207465737420636c69656e74
    00240004 6e0001ff
    80290008 932ff9b151263b36
    00060009 6576746a3a68367659202020
    00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
    80280004 e57a3bcf";

/// RFC 5769 section 2.2.
const IPV4_RESPONSE: &str = "
    0101003c 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f7220
    00200008 0001a147e112a643
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
    80280004 c07d4c96";

/// RFC 5769 section 2.3.
const IPV6_RESPONSE: &str = "
    01010048 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f7220
    00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
    00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
    80280004 c8fb0b4c";

/// RFC 5769 section 2.4.
const LONG_TERM_REQUEST: &str = "
    00010060 2112a442 78ad3433c6ad72c029da412e
    00060012 e3839ee38388e383aae38383e382afe382b90000
    0015001c 662f2f3439396b3935346436 4f4c33346f4c39465354767936347341
    0014000b 6578616d706c652e6f726700
    00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666";

/// RFC 8489 appendix B.1, corrected by erratum 6268.
const SHA256_REQUEST: &str = "
    00010090 2112a442 78ad3433c6ad72c029da412e
    001e0020 4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
    00150029 6f624d61744a6f733241414143662f2f3439396b3935346436 4f4c33346f4c39465354767936347341000000
    0014000b 6578616d706c652e6f726700
    001d0004 00020000
    001c0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

#[test]
fn rfc_5769_section_2_1_request() {
    let bytes = bytes(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class(), message.method(), message.transaction_id()), (Class::Request, Method::BINDING, ID));
    assert_eq!(message.software(), Some("STUN test client"));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!(message.ice_controlled(), Some(0x932f_f9b1_5126_3b36));
    assert_eq!(message.ice_controlling(), None);
    assert_eq!(message.username(), Some("evtj:h6vY"));
    assert!(!message.use_candidate());
    assert_eq!(message.verify_integrity(PASSWORD), Integrity::Valid);
    assert_eq!(message.verify_integrity(b"another password"), Integrity::Invalid);
    assert_eq!(message.verify_integrity_sha256(PASSWORD), Integrity::Absent);
    assert_eq!(message.verify_fingerprint(), Fingerprint::Valid);
    assert_eq!(message.attributes().count(), 6);
}

#[test]
fn rfc_5769_section_2_2_ipv4_response() {
    let bytes = bytes(IPV4_RESPONSE);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class(), message.method(), message.transaction_id()), (Class::Success, Method::BINDING, ID));
    assert_eq!(message.software(), Some("test vector"));
    assert_eq!(message.xor_mapped_address(), Some("192.0.2.1:32853".parse().unwrap()));
    assert_eq!(message.verify_integrity(PASSWORD), Integrity::Valid);
    assert_eq!(message.verify_fingerprint(), Fingerprint::Valid);
}

#[test]
fn rfc_5769_section_2_3_ipv6_response() {
    let bytes = bytes(IPV6_RESPONSE);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.xor_mapped_address(), Some("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap()));
    assert_eq!(message.verify_integrity(PASSWORD), Integrity::Valid);
    assert_eq!(message.verify_fingerprint(), Fingerprint::Valid);
}

#[test]
fn rfc_5769_section_2_4_long_term_request() {
    let key = bytes("e8ca7ad59d5eb0518e312911d2dab2a9");
    let bytes = bytes(LONG_TERM_REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.username(), Some(LONG_TERM_USERNAME));
    assert_eq!(message.nonce(), Some(&b"f//499k954d6OL34oL9FSTvy64sA"[..]));
    assert_eq!(message.realm(), Some("example.org"));
    assert_eq!(message.verify_integrity(&key), Integrity::Valid);
    assert_eq!(message.verify_fingerprint(), Fingerprint::Absent);

    let built = Builder::new(Class::Request, Method::BINDING, LONG_TERM_ID)
        .string(AttributeType::USERNAME, LONG_TERM_USERNAME)
        .string(AttributeType::NONCE, "f//499k954d6OL34oL9FSTvy64sA")
        .string(AttributeType::REALM, "example.org")
        .integrity(&key)
        .finish();
    assert_eq!(built, bytes);
}

#[test]
fn rfc_8489_appendix_b_1_sha256_request() {
    let key = bytes("dd295a613b9058c3c23d6dc7165bda072304d989c9d0af3a8c7e184b4f9bb4a1");
    let bytes = bytes(SHA256_REQUEST);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.nonce(), Some(&b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"[..]));
    assert_eq!(message.verify_integrity_sha256(&key), Integrity::Valid);
    assert_eq!(message.verify_integrity(&key), Integrity::Absent);

    let unknown = [AttributeType::new(0x001e), AttributeType::new(0x001d)];
    assert!(message.unknown_comprehension_required(&[AttributeType::NONCE, AttributeType::REALM]).eq(unknown));

    let built = message
        .attributes()
        .filter(|(attribute_type, _)| *attribute_type != AttributeType::MESSAGE_INTEGRITY_SHA256)
        .fold(Builder::new(Class::Request, Method::BINDING, LONG_TERM_ID), |builder, (attribute_type, value)| {
            builder.attribute(attribute_type, value)
        })
        .integrity_sha256(&key)
        .finish();
    assert_eq!(built, bytes);
}

#[test]
fn a_cookie_is_required_and_a_classic_request_has_none() {
    let mut bytes = bytes("00010008 000102030405060708090a0b0c0d0e0f 00030004 00000006");
    assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::NoMagicCookie);
    let request = ClassicRequest::parse(&bytes).unwrap();
    let change = request.change_request().unwrap();
    assert!(change.change_ip && change.change_port);
    assert_eq!(
        request.answer("192.0.2.1:32853".parse().unwrap()),
        self::bytes("0101000c 000102030405060708090a0b0c0d0e0f 00010008 00018055 c0000201")
    );
    assert_eq!(request.answer("[2001:db8::1]:1".parse().unwrap()).len(), 44);

    bytes[1] = 2; // a Shared Secret request
    assert_eq!(ClassicRequest::parse(&bytes).unwrap_err(), ParseError::NotClassicRequest);
    assert_eq!(ClassicRequest::parse(&self::bytes(REQUEST)).unwrap_err(), ParseError::NotClassicRequest);
}
