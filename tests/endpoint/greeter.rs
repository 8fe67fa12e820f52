//! The part of a rendezvous server that answers over TCP: the greeting, and STUN Binding. It may be as slow as it
//! likes: each connection has a thread.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use holepunch::wire::stun::{AttributeType, Builder, Class, GREETING, Message, Method};

/// Answers every connection until the first that comes when it is told to stop.
pub(crate) fn serve(listener: TcpListener, stopped: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        while let Ok((stream, remote)) = listener.accept() {
            if stopped.load(Ordering::SeqCst) {
                return;
            }
            thread::spawn(move || {
                // A client that goes is none of ours.
                let _ = answer(stream, remote);
            });
        }
    })
}

fn answer(mut stream: TcpStream, remote: SocketAddr) -> std::io::Result<()> {
    let mut begun: Vec<u8> = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        while begun.starts_with(GREETING) {
            begun.drain(..GREETING.len());
            stream.write_all(GREETING)?;
        }
        if begun.first().is_some_and(|first| *first < 4) && begun.len() >= 20 {
            let length = 20 + usize::from(u16::from_be_bytes([begun[2], begun[3]]));
            if begun.len() >= length {
                let request: Vec<u8> = begun.drain(..length).collect();
                let request = Message::parse(&request).expect("a client sends STUN");
                assert_eq!((request.method(), request.class()), (Method::BINDING, Class::Request));
                let answer = Builder::new(Class::Success, Method::BINDING, request.transaction_id());
                let answer = answer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, remote).fingerprint();
                stream.write_all(&answer.finish())?;
                continue;
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => begun.extend_from_slice(&buffer[..length]),
        }
    }
}
