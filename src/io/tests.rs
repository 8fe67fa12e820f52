//! A connection's socket against a plain one, and a forked child.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use super::{
    Callbacks, Engine, Wait,
    link::{Link, Taken},
    peek::{Found, Look},
    ready, receive,
};
use crate::{
    ErrorKind,
    config::PeerConfig,
    machine::{Instant, SocketId},
    peer::{CloseReason, Path, Strategy},
    punch::{CandidateKind, Role},
    wire::stun::{Builder, Class, Method, SessionId, TransactionId},
};

/// A link beside the address `parent`, connected to a plain socket.
fn link(may_be_data: bool) -> (Link, UdpSocket) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let parent = super::udp::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let path = Path {
        carrier: crate::peer::Carrier::Socket(SocketId(0)),
        local: parent.local(),
        remote: peer.local_addr().unwrap(),
        kind: CandidateKind::Host,
        strategy: Strategy::UdpSimultaneous,
        role: Role::Controlling,
        rtt: Duration::ZERO,
        signalled: false,
        since_introduction: Duration::ZERO,
        packets_sent: 0,
        sockets: 1,
    };
    let link = Link::open(SessionId([1; 16]), path, parent.local(), || may_be_data).unwrap();
    peer.connect(link.local()).unwrap();
    (link, peer)
}

fn message(number: u8) -> Vec<u8> {
    Builder::new(Class::Request, Method::BINDING, TransactionId([number; 12])).fingerprint().finish()
}

fn is_readable(link: &Link) -> bool {
    let mut polled = libc::pollfd { fd: link.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live entry.
    unsafe { libc::poll(&raw mut polled, 1, 0) == 1 }
}

/// The first bytes of the messages that a look finds.
fn look(look: &mut Look, link: &Link) -> (Found, Vec<(SocketAddr, Vec<u8>)>) {
    let mut messages = Vec::new();
    let found = look.look(link, &mut [0; 2048], |from, bytes| messages.push((from, bytes.to_vec())));
    (found, messages)
}

fn take(link: &Link, buffer: &mut [u8]) -> Option<Taken> {
    link.take(buffer, libc::MSG_DONTWAIT).ok()
}

#[test]
fn early_data_keeps_the_descriptor_readable() {
    let engine = Engine::start(PeerConfig::default(), Callbacks::default(), false).unwrap();
    let (link, _peer) = link(true);
    link.push(b"early".to_vec());
    let mut buffer = [0; 1200];
    assert!(is_readable(&link));
    assert_eq!(receive(&engine, &link, &mut buffer, &Wait::forever()).unwrap(), 5);
    // What keeps it readable is nobody's data.
    let error = receive(&engine, &link, &mut buffer, &Wait::at_most(Duration::ZERO)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!is_readable(&link));
    let (link, _peer) = self::link(false);
    assert!(!is_readable(&link));
}

/// An idle connection's messages must not fill its queue, and a program that polls it is not to see them.
#[test]
#[cfg(target_os = "linux")]
fn a_look_takes_out_the_messages_that_no_data_stands_before() {
    let (link, peer) = link(false);
    let mut looking = Look::new(Instant::default());
    let from = peer.local_addr().unwrap();
    let mut buffer = [0; 1200];
    peer.send(&message(1)).unwrap();
    peer.send(&message(2)).unwrap();
    assert_eq!(look(&mut looking, &link), (Found::New, vec![(from, message(1)), (from, message(2))]));
    assert!(!is_readable(&link));
    // Behind data they stay where they are, and before it they do not.
    for datagram in [&message(3), &b"data"[..], &message(4)] {
        peer.send(datagram).unwrap();
    }
    assert_eq!(look(&mut looking, &link), (Found::New, vec![(from, message(3)), (from, message(4))]));
    assert_eq!(take(&link, &mut buffer), Some(Taken::Data(4)));
    assert_eq!(take(&link, &mut buffer), Some(Taken::Other(from, message(4).len())));
    // Nothing is taken while somebody else reads, who might be given the data that comes next.
    link.set_leaving();
    let reading = link.reading();
    peer.send(&message(5)).unwrap();
    assert_eq!(look(&mut looking, &link), (Found::New, vec![(from, message(5))]));
    drop(reading);
    assert_eq!(take(&link, &mut buffer), Some(Taken::Other(from, message(5).len())));
}

#[test]
fn whoever_comes_to_read_while_messages_are_taken_out_is_told_so() {
    let (link, _peer) = link(false);
    let keeping_out = link.keep_readers_out().unwrap();
    let (kept_out, reading) = link.reading();
    assert!(kept_out);
    drop(keeping_out);
    assert!(link.keep_readers_out().is_none());
    let (kept_out, _other) = link.reading();
    assert!(!kept_out);
    drop(reading);
    assert!(link.keep_readers_out().is_none());
    assert_eq!(link.readers(), (2, true));
}

#[test]
fn a_look_sees_each_message_once_and_leaves_the_data() {
    let (link, peer) = link(false);
    let mut looking = Look::new(Instant::default());
    assert_eq!(look(&mut looking, &link), (Found::Nothing, vec![]));
    for datagram in [&b"one"[..], &message(1), b"", &[3; 1200], &message(2)] {
        peer.send(datagram).unwrap();
    }
    let from = peer.local_addr().unwrap();
    let (found, messages) = look(&mut looking, &link);
    if cfg!(not(target_os = "linux")) {
        return;
    }
    assert_eq!((found, messages), (Found::New, vec![(from, message(1)), (from, message(2))]));
    assert_eq!(look(&mut looking, &link), (Found::Nothing, vec![]));
    peer.send(&message(3)).unwrap();
    assert_eq!(look(&mut looking, &link), (Found::New, vec![(from, message(3))]));
    // Reading, with truncation, moves the place back by just what was read.
    let mut buffer = [0; 1200];
    assert_eq!(take(&link, &mut buffer[..1]), Some(Taken::Data(3)));
    assert_eq!(take(&link, &mut buffer), Some(Taken::Other(from, message(1).len())));
    assert_eq!(take(&link, &mut buffer), Some(Taken::Data(0)));
    peer.send(&message(4)).unwrap();
    assert_eq!(look(&mut looking, &link), (Found::New, vec![(from, message(4))]));
    assert_eq!(take(&link, &mut buffer), Some(Taken::Data(1200)));
}

#[test]
fn a_full_queue_still_takes_messages() {
    let (link, peer) = link(false);
    let mut looking = Look::new(Instant::default());
    let flood = |count: u32| (0..count).for_each(|number| drop(peer.send(&number.to_be_bytes())));
    flood(20_000);
    look(&mut looking, &link);
    flood(20_000);
    peer.send(&message(1)).unwrap();
    if cfg!(not(target_os = "linux")) {
        return;
    }
    assert_eq!(look(&mut looking, &link).1, [(peer.local_addr().unwrap(), message(1))]);
    let engine = Engine::start(PeerConfig::default(), Callbacks::default(), false).unwrap();
    let mut buffer = [0; 1200];
    while receive(&engine, &link, &mut buffer, &Wait::at_most(Duration::ZERO)).is_ok() {}
    peer.send(b"welcome again").unwrap();
    assert_eq!(receive(&engine, &link, &mut buffer, &Wait::forever()).unwrap(), 13);
}

#[test]
fn a_retired_connection_gives_its_port_back_and_keeps_its_data() {
    let (link, peer) = link(false);
    let engine = Engine::start(PeerConfig::default(), Callbacks::default(), false).unwrap();
    peer.send(b"unread").unwrap();
    ready::wait(&[&link], None).unwrap();
    link.retire(CloseReason::Peer, &mut [0; 2048]).unwrap();
    UdpSocket::bind(link.local()).unwrap();
    assert!(is_readable(&link));
    let mut buffer = [0; 1200];
    assert_eq!(receive(&engine, &link, &mut buffer, &Wait::forever()).unwrap(), 6);
    let error = receive(&engine, &link, &mut buffer, &Wait::forever()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(link.send(b"anybody?").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn what_icmp_says_is_no_error() {
    let (link, peer) = link(false);
    let engine = Engine::start(PeerConfig::default(), Callbacks::default(), false).unwrap();
    drop(peer);
    for _ in 0..10 {
        link.send(b"to nobody").unwrap();
    }
    let error = receive(&engine, &link, &mut [0; 1200], &Wait::at_most(Duration::ZERO)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[test]
fn a_forked_child_is_told_and_harms_nothing() {
    let engine = Engine::start(PeerConfig::default(), Callbacks::default(), true).unwrap();
    let (link, peer) = link(false);
    // SAFETY: the child calls nothing but what is under test, which takes no lock there, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let forked = |result: crate::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::Forked);
        let told = forked(engine.with(|_| ()))
            && forked(engine.process())
            && forked(receive(&engine, &link, &mut [0; 1200], &Wait::forever()).map(drop));
        drop(engine);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!told)) };
    }
    let mut status = -1;
    // SAFETY: `status` is live, and the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    engine.with(|_| ()).unwrap();
    peer.send(b"alive").unwrap();
    assert_eq!(receive(&engine, &link, &mut [0; 1200], &Wait::forever()).unwrap(), 5);
}

#[test]
fn a_link_follows_its_peer_and_takes_what_it_sent_before() {
    let (link, peer) = link(false);
    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    elsewhere.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let before = peer.local_addr().unwrap();
    let mut buffer = [0; 64];
    peer.send(b"from before").unwrap();
    elsewhere.send_to(b"too early", link.local()).unwrap();
    link.follow(elsewhere.local_addr().unwrap()).unwrap();
    assert_eq!(link.remote(), elsewhere.local_addr().unwrap());
    link.send(b"hello").unwrap();
    assert_eq!(elsewhere.recv_from(&mut buffer).unwrap(), (5, link.local()));
    elsewhere.send_to(b"from now", link.local()).unwrap();
    peer.send(b"too late").unwrap();
    // What came before it moved is handed to the machine, which knows whose it is.
    assert_eq!(link.take(&mut buffer, 0).unwrap(), Taken::Other(before, 11));
    assert_eq!(link.take(&mut buffer, 0).unwrap(), Taken::Data(8));
    assert_eq!(&buffer[..8], b"from now");
    let nothing = link.take(&mut buffer, libc::MSG_DONTWAIT).unwrap_err();
    assert!(super::fault::would_block(&nothing), "{nothing}");
}
