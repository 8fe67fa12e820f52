//! Introductions over UDP, the cookie included: a CONNECT, its challenge, the CONNECT with the cookie, its success, and the
//! INTRODUCE to the listener.

use std::{
    cell::Cell,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use holepunch::wire::stun::{
    AttributeType, Builder, CandidateKind, CandidateTransport, Class, Message, Method, Name, RegistrationId, SessionId,
    TransactionId, Transports, WireCandidate,
};

use crate::{Failure, compare, process::Process};

const NAME: &str = "bob";

pub(crate) fn measure(rounds: usize) -> Result<(), Failure> {
    let server = [Process::own()?];
    let listener = socket([127, 0, 0, 2].into(), server[0].port)?;
    register(&listener, RegistrationId([7; 16]), Some(NAME))?;
    let connector = socket([127, 0, 0, 3].into(), server[0].port)?;
    let next = Cell::new(0);
    for window in [1, 32] {
        let ask = |_: &Process, count: u64| {
            for _ in 0..count / window {
                introduce(&connector, &listener, next.get(), window)?;
                next.set(next.get() + window);
            }
            Ok(())
        };
        let title = match window {
            1 => "introduction over UDP, cookie included, one at a time".to_owned(),
            _ => format!("introduction over UDP, cookie included, {window} at a time"),
        };
        compare(&title, &server, &[], rounds, window, &ask)?;
    }
    println!();
    Ok(())
}

/// A socket at this address that talks to the server at that port.
pub(crate) fn socket(ip: std::net::IpAddr, port: u16) -> Result<UdpSocket, Failure> {
    let socket = UdpSocket::bind((ip, 0))?;
    socket.connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(socket)
}

/// What a host with both families has to offer.
fn candidates() -> [WireCandidate; 2] {
    ["192.168.1.20:40000", "[2001:db8::20]:40000"].map(|address| WireCandidate {
        kind: CandidateKind::Host,
        transport: CandidateTransport::Udp,
        priority: 0x7eff_feff,
        address: address.parse::<SocketAddr>().expect("an address"),
    })
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// Ids and transactions that are told apart by a number.
fn numbered<const N: usize>(number: u64, last: u8) -> [u8; N] {
    let mut bytes = [last; N];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Registers a listener, as the library does: asks, is challenged, and asks again.
pub(crate) fn register(socket: &UdpSocket, id: RegistrationId, wanted: Option<&str>) -> Result<(), Failure> {
    let mut buffer = [0; 2048];
    let mut cookie: Option<Vec<u8>> = None;
    for attempt in 0..2 {
        let mut builder = Builder::new(Class::Request, Method::REGISTER, TransactionId(numbered(attempt, 1)))
            .version()
            .registration_id(id)
            .registration_key(&[5; 32])
            .public_key(&[6; 32])
            .transports(Transports { udp: true, tcp: true });
        if let Some(cookie) = &cookie {
            builder = builder.attribute(AttributeType::NONCE, cookie);
        }
        if let Some(wanted) = wanted {
            builder = builder.name(&name(wanted));
        }
        socket.send(&builder.candidates(&candidates()).integrity_sha256(&[5; 32]).fingerprint().finish())?;
        let length = socket.recv(&mut buffer)?;
        let answer = Message::parse(&buffer[..length]).map_err(|error| format!("{error:?}"))?;
        if answer.class() == Class::Success {
            return Ok(());
        }
        cookie = answer.nonce().map(<[u8]>::to_vec);
    }
    Err("the server refuses to register a listener".into())
}

fn connect(number: u64, cookie: Option<&[u8]>) -> Vec<u8> {
    let id = TransactionId(numbered(number, u8::from(cookie.is_some())));
    let mut builder =
        Builder::new(Class::Request, Method::CONNECT, id).version().session_id(SessionId(numbered(number, 9)));
    if let Some(cookie) = cookie {
        builder = builder.attribute(AttributeType::NONCE, cookie);
    }
    builder
        .public_key(&[8; 32])
        .transports(Transports { udp: true, tcp: false })
        .name(&name(NAME))
        .candidates(&candidates())
        .fingerprint()
        .finish()
}

/// So many sessions at a time, from this number on.
fn introduce(connector: &UdpSocket, listener: &UdpSocket, first: u64, window: u64) -> Result<(), Failure> {
    let mut buffer = [0; 2048];
    for number in first..first + window {
        connector.send(&connect(number, None))?;
    }
    let mut full = Vec::new();
    for _ in 0..window {
        let length = connector.recv(&mut buffer)?;
        let challenge = Message::parse(&buffer[..length]).map_err(|error| format!("{error:?}"))?;
        let number = challenge.transaction_id().0.first_chunk().map_or(0, |number| u64::from_be_bytes(*number));
        full.push(connect(number, Some(challenge.nonce().ok_or("a CONNECT was not challenged")?)));
    }
    for request in full {
        connector.send(&request)?;
    }
    for (socket, class) in [(connector, Class::Success), (listener, Class::Indication)] {
        for _ in 0..window {
            let length = socket.recv(&mut buffer)?;
            let message = Message::parse(&buffer[..length]).map_err(|error| format!("{error:?}"))?;
            if message.class() != class {
                return Err(format!("{message:?} instead of a {class:?}").into());
            }
        }
    }
    Ok(())
}
