//! Listening and connecting from an event loop: started, told of changes, polled.

use std::{
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use holepunch::{ConnectOptions, Endpoint, ErrorKind, Wait};

use crate::{
    once,
    rendezvous::{LONG, Rendezvous},
};

/// An endpoint, and what it says of changes.
fn told(server: &Rendezvous) -> (Endpoint, Receiver<()>) {
    let (sender, changes) = mpsc::channel();
    // Nobody hears what is told after the end of the test.
    let tell = move || {
        let _ = sender.send(());
    };
    let endpoint = server.endpoint().on_change(tell).build().unwrap();
    (endpoint, changes)
}

/// Polls whenever something has changed.
fn until<T>(changes: &Receiver<()>, mut poll: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(outcome) = poll() {
            return outcome;
        }
        changes.recv_timeout(LONG).expect("a change, since the outcome is not known");
    }
}

#[test]
fn what_was_started_is_polled() {
    let server = Rendezvous::start();
    let ((here, at_here), (there, at_there)) = (told(&server), told(&server));
    assert!(!here.looks_up_names());
    let listener = here.start_listen(Some("bob"), Wait::forever()).unwrap();
    until(&at_here, || listener.poll_listening()).unwrap();

    let mut streaming = there.start_connect("bob", &ConnectOptions::default()).unwrap();
    let stream = until(&at_there, || streaming.poll()).unwrap();
    let accepted = until(&at_here, || listener.accept(Duration::ZERO.into()).ok());
    assert_eq!(accepted.session(), stream.session());
    assert_eq!(streaming.poll().unwrap().unwrap_err().kind(), ErrorKind::Closed, "it is told once");
    drop(streaming);
    stream.send_all(b"it lives on", LONG.into()).unwrap();

    let mut connecting = there.start_connect_datagram("bob", &ConnectOptions::default()).unwrap();
    let connection = until(&at_there, || connecting.poll()).unwrap();
    let accepted = until(&at_here, || listener.accept_datagram(Duration::ZERO.into()).ok());
    assert_eq!(accepted.session(), connection.session());
}

#[test]
fn failures_are_polled_too() {
    let server = Rendezvous::start();
    let (endpoint, changes) = told(&server);
    let mut connecting = endpoint.start_connect("nobody", &once()).unwrap();
    assert_eq!(until(&changes, || connecting.poll()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        endpoint.start_connect("No Name", &once()).unwrap_err().kind(),
        ErrorKind::InvalidArgument,
        "what is wrong at once is said at once"
    );
    let (other, _) = told(&server);
    let _first = other.listen(Some("taken"), LONG.into()).unwrap();
    let second = endpoint.start_listen(Some("taken"), Wait::forever()).unwrap();
    assert_eq!(until(&changes, || second.poll_listening()).unwrap_err().kind(), ErrorKind::NameTaken);

    let mut waiting = endpoint.start_connect("nobody", &ConnectOptions::default()).unwrap();
    assert!(waiting.poll().is_none());
    endpoint.close();
    assert_eq!(until(&changes, || waiting.poll()).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_connect_that_is_dropped_is_given_up() {
    let server = Rendezvous::start();
    let (endpoint, _changes) = told(&server);
    drop(endpoint.start_connect("bob", &ConnectOptions::default().wait(LONG)).unwrap());
    let (other, _) = told(&server);
    let listener = other.listen(Some("bob"), LONG.into()).unwrap();
    // Whoever comes now is the first, though the other had asked before.
    let stream = endpoint.connect("bob", &ConnectOptions::default()).unwrap();
    assert_eq!(listener.accept(LONG.into()).unwrap().session(), stream.session());
    assert_eq!(listener.accept(Duration::ZERO.into()).unwrap_err().kind(), ErrorKind::Timeout);
}
