//! Streams over real sockets on loopback.

use std::{
    fs,
    io::{ErrorKind as IoKind, Read as _, Write as _},
    net::{Shutdown, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use holepunch::{
    Cancel, ConnectOptions, ErrorKind, Listener, Secret, Stream, Wait,
    peer::{Strategy, Transport},
};

use crate::{
    SHORT,
    blocked::Blocked,
    once,
    rendezvous::{LONG, Rendezvous, receive},
};

/// More than the system's buffers hold on either side.
const MUCH: usize = 10 << 20;

impl Rendezvous {
    /// A listener and one stream, both ends of it.
    fn streams(&self, name: &str) -> (Listener, Stream, Stream) {
        let (here, there) = (self.endpoint().build().unwrap(), self.endpoint().build().unwrap());
        let listener = here.listen(Some(name), LONG.into()).unwrap();
        let near = there.connect(name, &ConnectOptions::default()).unwrap();
        let far = listener.accept(LONG.into()).unwrap();
        (listener, near, far)
    }
}

/// Reads to the end of the peer's data.
fn read_to_end(stream: &Stream) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match stream.recv(&mut buffer, LONG.into()).unwrap() {
            0 => return all,
            length => all.extend_from_slice(&buffer[..length]),
        }
    }
}

/// Fills the way to a peer that does not read.
fn fill(stream: &Stream) -> ErrorKind {
    loop {
        if let Err(error) = stream.send(&[0; 1 << 16], SHORT.into()) {
            return error.kind();
        }
    }
}

#[test]
fn bytes_go_both_ways_and_each_direction_ends_alone() {
    let server = Rendezvous::start();
    let (_listener, mut near, mut far) = server.streams("bob");
    assert_eq!(near.session(), far.session());
    let path = near.path();
    assert_eq!((path.carrier.transport(), path.strategy), (Transport::Tcp, Strategy::TcpSimultaneousOpen));
    assert_eq!((path.remote, far.path().remote), (far.local_addr(), near.local_addr()));
    assert_eq!(path.local, near.local_addr());
    near.write_all(b"question").unwrap();
    let mut buffer = [0; 8];
    far.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"question");
    near.shutdown_write().unwrap();
    near.shutdown_write().unwrap();
    assert_eq!(near.send(b"more", LONG.into()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(far.recv(&mut buffer, LONG.into()).unwrap(), 0);
    assert_eq!(far.read(&mut buffer).unwrap(), 0);
    for _ in 0..10 {
        far.send_all(b"answer", LONG.into()).unwrap();
        assert_eq!(near.recv(&mut buffer, LONG.into()).unwrap(), 6);
    }
    assert!(near.rtt() < LONG && far.rtt() < LONG);
    far.shutdown_write().unwrap();
    assert_eq!(near.recv(&mut buffer, LONG.into()).unwrap(), 0);
    assert_eq!(near.recv(&mut [], LONG.into()).unwrap(), 0);
}

#[test]
fn much_goes_both_ways_at_once() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.streams("bob");
    let pattern = |seed: usize| (0..MUCH).map(|index| ((index * seed) >> 8) as u8).collect::<Vec<_>>();
    let (there, back) = (pattern(3), pattern(7));
    thread::scope(|scope| {
        for (stream, bytes) in [(&near, &there), (&far, &back)] {
            scope.spawn(move || {
                let mut writer = stream;
                writer.write_all(bytes).unwrap();
                stream.shutdown_write().unwrap();
            });
        }
        let at_far = scope.spawn(|| read_to_end(&far));
        assert!(read_to_end(&near) == back);
        assert!(at_far.join().unwrap() == there);
    });
}

#[test]
fn what_is_sent_at_once_is_not_lost() {
    let server = Rendezvous::start();
    let listener = server.endpoint().build().unwrap().listen(Some("bob"), LONG.into()).unwrap();
    let endpoint = server.endpoint().build().unwrap();
    for round in 0..20_u8 {
        // Each side sends, ends and lets go in the moment in which it has the stream: behind its last check.
        let near = endpoint.connect("bob", &ConnectOptions::default()).unwrap();
        near.send_all(&[round; 5000], LONG.into()).unwrap();
        near.shutdown_write().unwrap();
        let far = listener.accept(LONG.into()).unwrap();
        far.send_all(&[!round; 3000], LONG.into()).unwrap();
        far.shutdown_write().unwrap();
        assert_eq!(read_to_end(&near), [!round; 3000]);
        drop(near);
        assert_eq!(read_to_end(&far), [round; 5000]);
    }
}

#[test]
fn one_listener_has_both_kinds_apart() {
    let server = Rendezvous::start();
    let listener = server.endpoint().build().unwrap().listen(Some("bob"), LONG.into()).unwrap();
    let endpoint = server.endpoint().build().unwrap();
    let stream = endpoint.connect("bob", &once()).unwrap();
    let datagrams = endpoint.connect_datagram("bob", &once()).unwrap();
    // Accepted in the other order.
    let far_datagrams = listener.accept_datagram(LONG.into()).unwrap();
    let far_stream = listener.accept(LONG.into()).unwrap();
    assert_eq!(datagrams.session(), far_datagrams.session());
    assert_eq!(stream.session(), far_stream.session());
    datagrams.send(b"datagram").unwrap();
    stream.send_all(b"stream", LONG.into()).unwrap();
    stream.shutdown_write().unwrap();
    assert_eq!(receive(&far_datagrams).unwrap(), b"datagram");
    assert_eq!(read_to_end(&far_stream), b"stream");
    assert_eq!(listener.accept(Duration::ZERO.into()).unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn a_kind_that_is_not_offered_is_refused() {
    let server = Rendezvous::start();
    let streams = server.endpoint().streams_only().build().unwrap();
    let datagrams = server.endpoint().datagrams_only().build().unwrap();
    let _listeners =
        [streams.listen(Some("s"), LONG.into()).unwrap(), datagrams.listen(Some("d"), LONG.into()).unwrap()];
    let endpoint = server.endpoint().build().unwrap();
    assert_eq!(endpoint.connect_datagram("s", &once()).unwrap_err().kind(), ErrorKind::TransportMismatch);
    assert_eq!(endpoint.connect("d", &once()).unwrap_err().kind(), ErrorKind::TransportMismatch);
    endpoint.connect("s", &once()).unwrap();
    endpoint.connect_datagram("d", &once()).unwrap();
}

#[test]
fn a_close_ends_every_blocked_call() {
    let server = Rendezvous::start();
    let cancel = Cancel::new().unwrap();
    for wait in [Wait::forever(), LONG.into(), Wait::forever().or_cancelled(&cancel)] {
        let (_listener, near, _far) = server.streams("bob");
        assert_eq!(fill(&near), ErrorKind::Timeout);
        let near = Arc::new(near);
        let (receiver, sender, all) = (near.clone(), near.clone(), near.clone());
        let (receives, sends) = (wait.clone(), wait.clone());
        let calls = [
            Blocked::start(move || receiver.recv(&mut [0; 10], receives)),
            Blocked::start(move || sender.send(b"more", sends)),
            Blocked::start(move || all.send_all(b"more", wait)),
        ];
        calls.iter().for_each(Blocked::is_asleep);
        let start = Instant::now();
        near.close();
        near.close();
        for blocked in calls {
            assert_eq!(blocked.thread.join().unwrap(), ErrorKind::Closed);
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(near.recv(&mut [0; 10], LONG.into()).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(near.send(b"more", LONG.into()).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(near.shutdown_write().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!((&*near).read(&mut [0; 10]).unwrap_err().kind(), IoKind::BrokenPipe);
    }
}

#[test]
fn a_closed_listener_or_endpoint_ends_accepts_and_connects() {
    let server = Rendezvous::start();
    for threaded in [true, false] {
        let endpoint = server.endpoint().thread(threaded).build().unwrap();
        let listener = Arc::new(endpoint.listen(Some("bob"), LONG.into()).unwrap());
        let accepting = listener.clone();
        let accept = Blocked::start(move || accepting.accept(Wait::forever()));
        assert_eq!(accept.end(|| listener.close()), ErrorKind::Closed);
        let connecting = endpoint.clone();
        let patient = ConnectOptions::default().wait(LONG);
        let connect = Blocked::start(move || connecting.connect("nobody", &patient));
        assert_eq!(connect.end(|| endpoint.close()), ErrorKind::Closed);
    }
    let (listener, near, far) = server.streams("bob");
    let endpoint = server.endpoint().build().unwrap();
    let other = endpoint.connect("bob", &once()).unwrap();
    endpoint.close();
    assert_eq!(other.recv(&mut [0; 10], LONG.into()).unwrap_err().kind(), ErrorKind::Closed);
    listener.close();
    near.send_all(b"on", LONG.into()).unwrap();
    assert_eq!(far.recv(&mut [0; 10], LONG.into()).unwrap(), 2);
}

#[test]
fn a_token_ends_every_blocked_call_and_deadlines_are_kept() {
    let server = Rendezvous::start();
    for threaded in [true, false] {
        let cancel = Cancel::new().unwrap();
        let wait = Wait::forever().or_cancelled(&cancel);
        let endpoint = server.endpoint().thread(threaded).build().unwrap();
        let (listener, near, far) = server.streams("bob");
        for wait in [Duration::ZERO, SHORT] {
            assert_eq!(near.recv(&mut [0; 10], wait.into()).unwrap_err().kind(), ErrorKind::Timeout);
            assert_eq!(listener.accept(wait.into()).unwrap_err().kind(), ErrorKind::Timeout);
        }
        assert_eq!(fill(&far), ErrorKind::Timeout);
        assert_eq!(far.send(b"more", Duration::ZERO.into()).unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(far.send_all(&[0; MUCH], SHORT.into()).unwrap_err().kind(), ErrorKind::Timeout);
        let options = ConnectOptions::default().wait(LONG).cancel(&cancel);
        let (receives, sends, accepts, late) = (wait.clone(), wait.clone(), wait.clone(), wait);
        // In the other direction nothing was sent.
        let own = endpoint.listen(Some("own"), LONG.into()).unwrap();
        let (from, here) = thread::scope(|scope| {
            let from = scope.spawn(|| server.endpoint().build().unwrap().connect("own", &once()).unwrap());
            let here = own.accept(LONG.into()).unwrap();
            (from.join().unwrap(), here)
        });
        let calls = [
            Blocked::start(move || here.recv(&mut [0; 10], receives)),
            Blocked::start(move || far.send(b"more", sends)),
            Blocked::start(move || own.accept(accepts)),
            Blocked::start(move || endpoint.connect("nobody", &options)),
        ];
        calls.iter().for_each(Blocked::is_asleep);
        cancel.cancel();
        for blocked in calls {
            assert_eq!(blocked.thread.join().unwrap(), ErrorKind::Cancelled);
        }
        assert_eq!(from.send(b"late", late).unwrap_err().kind(), ErrorKind::Cancelled);
        drop(near);
    }
}

#[test]
fn what_cannot_be_is_said() {
    let server = Rendezvous::start();
    let endpoint = server.endpoint().build().unwrap();
    let error = endpoint.connect("nobody", &once()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("nobody"), "{error}");
    assert_eq!(endpoint.connect("No Name", &once()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let with = |text: &str| server.endpoint().secret(Secret::new(text.as_bytes()).unwrap()).build().unwrap();
    let listener = with("the secret that both know").listen(Some("bob"), LONG.into()).unwrap();
    let stranger = with("some other secret, not it");
    assert_eq!(stranger.connect("bob", &once()).unwrap_err().kind(), ErrorKind::WrongSecret);
    let near = with("the secret that both know").connect("bob", &once()).unwrap();
    assert_eq!(near.session(), listener.accept(LONG.into()).unwrap().session());
}

#[test]
fn a_peer_that_breaks_off_is_lost() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.streams("bob");
    let socket = far.into_socket().unwrap();
    // What a peer that is killed with unread data does: a RST.
    near.send_all(b"unread", LONG.into()).unwrap();
    assert_eq!(socket.peek(&mut [0; 10]).unwrap(), 6);
    drop(socket);
    assert_eq!(near.recv(&mut [0; 10], LONG.into()).unwrap_err().kind(), ErrorKind::Lost);
    let error = near.send_all(&[0; MUCH], LONG.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert!(error.message().contains(&near.path().remote.to_string()), "{error}");
    assert_eq!((&near).write(b"x").unwrap_err().kind(), IoKind::ConnectionReset);
}

#[test]
fn a_close_comes_after_the_data() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.streams("bob");
    far.send_all(b"never read", LONG.into()).unwrap();
    assert_eq!(near.recv(&mut [0; 5], LONG.into()).unwrap(), 5);
    near.send_all(&[7; 100_000], LONG.into()).unwrap();
    near.close();
    drop(near);
    assert_eq!(read_to_end(&far), [7; 100_000]);
}

#[test]
fn the_socket_is_the_programs() {
    let server = Rendezvous::start();
    let (listener, near, far) = server.streams("bob");
    far.send_all(b"before", LONG.into()).unwrap();
    let mut plain = near.into_socket().unwrap();
    // The endpoints go, thread and all; the other end's stays for its stream.
    drop(listener);
    let mut buffer = [0; 6];
    plain.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"before");
    plain.write_all(b"after").unwrap();
    plain.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&far), b"after");
    assert!(plain.nodelay().is_ok_and(|nodelay| !nodelay));
    drop(far);
    assert_eq!(plain.read(&mut buffer).unwrap(), 0);
}

#[test]
fn the_descriptor_can_be_polled() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.streams("bob");
    let mut poll = readable(&near);
    assert!(!poll());
    far.send_all(b"x", LONG.into()).unwrap();
    let start = Instant::now();
    while !poll() {
        assert!(start.elapsed() < LONG);
        thread::yield_now();
    }
    assert!(near.as_fd().as_raw_fd() > 2);
}

/// Whether there is something to read, by the descriptor alone.
fn readable(stream: &Stream) -> impl FnMut() -> bool {
    let socket = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned().unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    move || socket.peek(&mut [0; 1]).is_ok()
}

#[test]
fn many_peers_have_streams_to_one_listener() {
    // Each asks a few times, and all from one address, which the server lets ask only so often.
    const PEERS: u32 = 10;
    let server = Rendezvous::start();
    let listener = server.endpoint().build().unwrap().listen(Some("bob"), LONG.into()).unwrap();
    let endpoint = server.endpoint().build().unwrap();
    thread::scope(|scope| {
        for number in 0..PEERS {
            let endpoint = &endpoint;
            scope.spawn(move || {
                let stream = endpoint.connect("bob", &ConnectOptions::default()).unwrap();
                stream.send_all(&number.to_be_bytes(), LONG.into()).unwrap();
                stream.shutdown_write().unwrap();
                assert_eq!(read_to_end(&stream), number.to_le_bytes());
            });
        }
        let mut seen = Vec::new();
        for _ in 0..PEERS {
            let stream = listener.accept(LONG.into()).unwrap();
            let number = u32::from_be_bytes(read_to_end(&stream).try_into().unwrap());
            stream.send_all(&number.to_le_bytes(), LONG.into()).unwrap();
            seen.push(number);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..PEERS).collect::<Vec<_>>());
    });
}

#[test]
fn without_the_thread_streams_work_too() {
    let server = Rendezvous::start();
    let listening = server.endpoint().thread(false).build().unwrap();
    let connecting = server.endpoint().thread(false).build().unwrap();
    let listener = listening.listen(Some("bob"), LONG.into()).unwrap();
    thread::scope(|scope| {
        let near = scope.spawn(|| connecting.connect("bob", &ConnectOptions::default()).unwrap());
        let far = listener.accept(LONG.into()).unwrap();
        let near = &near.join().unwrap();
        // Nobody drives any more.
        thread::scope(|scope| {
            scope.spawn(|| {
                near.send_all(&[1; MUCH], LONG.into()).unwrap();
                near.shutdown_write().unwrap();
            });
            assert_eq!(read_to_end(&far).len(), MUCH);
        });
        far.send_all(b"answer", LONG.into()).unwrap();
        assert_eq!((&*near).read(&mut [0; 10]).unwrap(), 6);
        near.close();
        assert_eq!(far.recv(&mut [0; 10], Wait::forever()).unwrap(), 0);
    });
}

#[test]
fn without_tcp_at_the_server_the_connect_fails_in_time() {
    // No mapped address, and on loopback no other.
    let udp_only = Rendezvous::over(UdpSocket::bind("127.0.0.1:0").unwrap());
    let _listener = udp_only.endpoint().build().unwrap().listen(Some("bob"), LONG.into()).unwrap();
    let endpoint = udp_only.endpoint().build().unwrap();
    let options = once().timeout(Duration::from_millis(500));
    let kind = endpoint.connect("bob", &options).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::NoPath), "{kind}");
}

/// Descriptors and threads of this process.
fn held() -> (usize, usize) {
    (fs::read_dir("/proc/self/fd").unwrap().count(), fs::read_dir("/proc/self/task").unwrap().count())
}

#[test]
fn nothing_is_left_behind() {
    const ALONE: &str = "HOLEPUNCH_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // Other tests of this process open and close as they like.
        let own = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "streams::nothing_is_left_behind", "--test-threads=1"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        return assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stdout));
    }
    let settle = |expected: (usize, usize)| {
        let start = Instant::now();
        while held() != expected {
            assert!(start.elapsed() < LONG, "{:?} instead of {expected:?}", held());
            thread::yield_now();
        }
    };
    let before = held();
    let server = Rendezvous::start();
    let with_server = held();
    for round in 0..3 {
        let (listener, near, far) = server.streams("bob");
        let endpoint = server.endpoint().build().unwrap();
        let more: Vec<_> = (0..5)
            .map(|_| (endpoint.connect("bob", &once()).unwrap(), listener.accept(LONG.into()).unwrap()))
            .collect();
        // Three endpoints with a thread, a poll, a waker each, and two sockets of the listener's; and the streams.
        near.send_all(b"x", LONG.into()).unwrap();
        if round == 1 {
            near.close();
        }
        drop((near, far, more, endpoint, listener));
        settle(with_server);
    }
    drop(server);
    settle(before);
}
