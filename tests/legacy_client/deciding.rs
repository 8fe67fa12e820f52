//! What an unknown server speaks, found out without a byte on TCP.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use holepunch::{
    Cancel, ErrorKind, Wait,
    legacy::{Verdict, decide},
    wire::stun::{Builder, Class, Message, Method, TransactionId},
};

use crate::old::{PATIENCE, both_on_one_port, free_port};

/// Answers the request number `which` as told, and no other.
fn answer(socket: UdpSocket, which: usize, with: fn(TransactionId) -> Vec<u8>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        for number in 0.. {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let request = Message::parse(&buffer[..length]).unwrap();
            assert_eq!((request.class(), request.method()), (Class::Request, Method::BINDING));
            if number == which {
                socket.send_to(&with(request.transaction_id()), from).unwrap();
                return;
            }
        }
    })
}

fn success(transaction: TransactionId) -> Vec<u8> {
    Builder::new(Class::Success, Method::BINDING, transaction).finish()
}

fn ask(server: SocketAddr) -> holepunch::Result<Verdict> {
    decide(server, None, &Wait::at_most(PATIENCE))
}

/// The text's connection, on which nothing was sent.
fn is_text(verdict: Verdict, listener: &TcpListener) {
    let Verdict::Text(stream) = verdict else { panic!("not {verdict:?}") };
    let (mut accepted, from) = listener.accept().unwrap();
    assert_eq!(stream.local_addr().unwrap(), from);
    drop(stream);
    assert_eq!(accepted.read(&mut [0; 10]).unwrap(), 0);
}

/// Every connection that was made was ended without a byte and without a reset.
fn is_unused(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    while let Ok((mut accepted, _)) = listener.accept() {
        accepted.set_nonblocking(false).unwrap();
        assert_eq!(accepted.read(&mut [0; 10]).unwrap(), 0);
    }
}

/// Whether a server that answers the request number `which` is found current. On loopback it has 20 ms, which a busy
/// machine may not give it: so one of ten servers has to be.
fn is_found_current(which: usize) -> bool {
    (0..10).any(|_| {
        let (listener, socket) = both_on_one_port();
        let server = listener.local_addr().unwrap();
        let answering = answer(socket.try_clone().unwrap(), which, success);
        let verdict = ask(server).unwrap();
        if matches!(verdict, Verdict::Text(_)) {
            // It may not have got all the requests that it waits for.
            let source = UdpSocket::bind("127.0.0.1:0").unwrap();
            let request = Builder::new(Class::Request, Method::BINDING, TransactionId([0; 12])).finish();
            (0..=which).for_each(|_| drop(source.send_to(&request, server)));
        }
        answering.join().unwrap();
        let is_current = matches!(verdict, Verdict::Current);
        drop(verdict);
        is_unused(&listener);
        is_current
    })
}

#[test]
fn who_answers_over_udp_is_current() {
    assert!(is_found_current(0));
}

#[test]
fn a_lost_request_is_repeated_in_time() {
    assert!(is_found_current(1));
}

#[test]
fn who_is_silent_over_udp_speaks_the_text_after_a_round_trip() {
    let (listener, _silent) = both_on_one_port();
    let start = Instant::now();
    let verdict = ask(listener.local_addr().unwrap()).unwrap();
    assert!((Duration::from_millis(20)..Duration::from_secs(2)).contains(&start.elapsed()), "{:?}", start.elapsed());
    is_text(verdict, &listener);
}

#[test]
fn who_refuses_udp_speaks_the_text() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    is_text(ask(listener.local_addr().unwrap()).unwrap(), &listener);
}

#[test]
fn what_is_no_answer_to_the_request_counts_for_nothing() {
    let others: [fn(TransactionId) -> Vec<u8>; 4] = [
        |_| b"garbage".to_vec(),
        |_| success(TransactionId([7; 12])),
        |transaction| Builder::new(Class::Error, Method::BINDING, transaction).error_code(400, "no").finish(),
        |transaction| Builder::new(Class::Request, Method::BINDING, transaction).finish(),
    ];
    for other in others {
        let (listener, socket) = both_on_one_port();
        let answering = answer(socket.try_clone().unwrap(), 0, other);
        let verdict = ask(listener.local_addr().unwrap()).unwrap();
        answering.join().unwrap();
        is_text(verdict, &listener);
    }
}

#[test]
fn tcp_that_fails_leaves_it_to_udp() {
    let (listener, socket) = both_on_one_port();
    let server = listener.local_addr().unwrap();
    drop(listener);
    let answering = answer(socket, 2, success);
    assert!(matches!(ask(server).unwrap(), Verdict::Current));
    answering.join().unwrap();
}

#[test]
fn where_nobody_is_the_system_says_why() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let error = ask(nobody).unwrap_err();
    assert_eq!((error.kind(), error.os_code()), (ErrorKind::ServerUnreachable, Some(libc::ECONNREFUSED)));
    assert!(error.message().contains(&nobody.to_string()), "{error}");
    let (listener, _silent) = both_on_one_port();
    let server = listener.local_addr().unwrap();
    drop(listener);
    let start = Instant::now();
    assert_eq!(ask(server).unwrap_err().os_code(), Some(libc::ECONNREFUSED));
    assert!(start.elapsed() >= Duration::from_secs(1), "a request may have been lost: {:?}", start.elapsed());
    let error = decide(server, Some("192.0.2.1".parse().unwrap()), &Wait::forever()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_server_that_is_not_reached_is_waited_for_until_told_otherwise() {
    // TCP accepts nobody more, and UDP is silent.
    let (listener, _silent) = both_on_one_port();
    let server = listener.local_addr().unwrap();
    socket2::SockRef::from(&listener).listen(0).unwrap();
    let fill = || std::net::TcpStream::connect_timeout(&server, Duration::from_millis(200));
    let _filling: Vec<_> = std::iter::from_fn(|| fill().ok()).take(10).collect();
    let error = decide(server, None, &Wait::at_most(Duration::from_millis(50))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let cancel = Cancel::new().unwrap();
    let wait = Wait::forever().or_cancelled(&cancel);
    let thread = std::thread::spawn(move || decide(server, None, &wait).map(drop));
    cancel.cancel();
    assert_eq!(thread.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
}
