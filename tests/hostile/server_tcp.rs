//! A hostile server over TCP, where UDP does not get through: what it does with the connections that are made to it.

use crate::{
    outside::{DoTcp, Outside, SERVER, addr, takes},
    server::fates,
    victim::Arrives,
};
use holepunch::{
    machine::{StreamId, TcpRequest},
    wire::stun::GREETING,
};

/// The server takes connections, and answers the greeting with this and every message with that.
fn says(request: &TcpRequest, to_greeting: &[&[u8]], to_message: &[&[u8]]) -> Vec<Arrives> {
    let each = |stream: &StreamId, all: &[&[u8]]| all.iter().map(|it| Arrives::Bytes(*stream, it.to_vec())).collect();
    match request {
        TcpRequest::Connect { stream, remote, .. } if *remote == addr(SERVER) => vec![Arrives::Connected(*stream)],
        TcpRequest::Send { stream, bytes } if bytes == GREETING => each(stream, to_greeting),
        TcpRequest::Send { stream, .. } => each(stream, to_message),
        _ => Vec::new(),
    }
}

/// The honest server's words in other pieces.
fn in_pieces(outside: &mut Outside, request: &TcpRequest, length: usize) -> Vec<Arrives> {
    let mut all = Vec::new();
    for arrives in takes(outside, request) {
        match arrives {
            Arrives::Bytes(stream, bytes) => {
                all.extend(bytes.chunks(length).map(|piece| Arrives::Bytes(stream, piece.to_vec())));
            }
            other => all.push(other),
        }
    }
    all
}

fn stream_of(request: &TcpRequest) -> Option<StreamId> {
    match request {
        TcpRequest::Connect { stream, .. } | TcpRequest::Send { stream, .. } => Some(*stream),
        _ => None,
    }
}

/// A header of a message of no attributes, and of one that is longer than any.
const EMPTY: &[u8] = &[3, 0xe1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
const GIANT: &[u8] = &[3, 0xe1, 0xff, 0xfc, 0x21, 0x12, 0xa4, 0x42, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];

const CONDUCTS: &[(&str, DoTcp, [&str; 3])] = &[
    ("takes connections and says nothing", |_, r| says(r, &[], &[]), ["ServerSilent", "goes on", "ServerSilent"]),
    (
        "ends each connection at once",
        |_, r| {
            let mut all = says(r, &[], &[]);
            all.extend(stream_of(r).map(Arrives::Failed));
            all
        },
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "is a web server",
        |_, r| says(r, &[b"HTTP/1.1 400 Bad Request\r\n\r\n"], &[]),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    ("is of 2015", |_, r| says(r, &[b"?"], &[]), ["ServerSilent", "goes on", "ServerSilent"]),
    (
        "greets for ever",
        |_, r| says(r, &[GREETING; 1000], &[GREETING; 1000]),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    ("greets by half", |_, r| says(r, &[b"HOLEP"], &[]), ["ServerSilent", "goes on", "ServerSilent"]),
    ("greets and says nothing", |_, r| says(r, &[GREETING], &[]), ["ServerSilent", "goes on", "ServerSilent"]),
    (
        "says messages of no length",
        |_, r| says(r, &[GREETING], &[EMPTY; 1000]),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "says messages that are too long",
        |_, r| says(r, &[GREETING], &[GIANT]),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "stops in the middle of a message",
        |_, r| says(r, &[GREETING], &[&EMPTY[..19]]),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "says what is no message",
        |_, r| says(r, &[GREETING], &[&[3; 65_507]]),
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    (
        "ends after the greeting",
        |_, r| {
            let mut all = says(r, &[GREETING], &[]);
            if let TcpRequest::Send { stream, bytes } = r
                && bytes != GREETING
            {
                all.push(Arrives::Failed(*stream));
            }
            all
        },
        ["ServerSilent", "goes on", "ServerSilent"],
    ),
    ("says everything byte by byte", |o, r| in_pieces(o, r, 1), ["registered", "goes on", "Timeout"]),
    ("says everything in threes", |o, r| in_pieces(o, r, 3), ["registered", "goes on", "Timeout"]),
];

#[test]
fn whatever_a_server_does_with_a_connection_ends_as_documented() {
    let mut wrong = Vec::new();
    for (name, conduct, expected) in CONDUCTS {
        let fates = fates(name, |outside| (outside.over_udp, outside.tcp) = (false, *conduct));
        if fates != *expected {
            wrong.push(format!("{name}: {fates:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
