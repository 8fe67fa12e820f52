//! Calls that block in one thread and are ended by another.
//!
//! | call | its handle's close | the endpoint's close | a token |
//! |---|---|---|---|
//! | `Endpoint::listen`, `connect`, `connect_datagram` | has none yet | `a_closed_endpoint_ends_all_that_waits`, `streams` | `a_token_ends_all_that_waits_and_what_comes_later`, `streams` |
//! | `Listener::accept`, `accept_datagram` | `a_closed_listener_ends_its_accepts`, `streams` | `whatever_waits_for_the_peer_is_ended` | as above |
//! | `Connection::recv` | `a_closed_connection_ends_its_receivers` | `whatever_waits_for_the_peer_is_ended` | as above |
//! | `Connection::send`, `send_within` | `full` | `full` | `full` |
//! | `Connection::end` | `whatever_waits_for_the_peer_is_ended` | the same | the same |
//! | `Connection::into_socket` | takes the handle | bounded by 4.5 round trips, 3 s at most | takes none |
//! | `Stream::recv`, `send`, `send_all` | `streams` | `whatever_waits_for_the_peer_is_ended` | `streams` |
//! | `Agent::next_candidate`, `local_description`, `connect` | `whatever_waits_for_the_peer_is_ended` | the same | the same |
//! | the calls of `legacy` | have none | have none | `legacy_client` |

use std::{
    fs,
    net::UdpSocket,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use holepunch::{
    AgentOptions, Cancel, ConnectOptions, Endpoint, ErrorKind, Result, Wait, config::PeerConfig, punch::Role,
};

use crate::rendezvous::{LONG, Rendezvous};

/// An ended call has to return within 100 ms, which is what is printed; a busy machine gets more.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A call in a thread of its own.
pub(crate) struct Blocked {
    pub(crate) thread: JoinHandle<ErrorKind>,
    task: String,
}

impl Blocked {
    pub(crate) fn start<T>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let task = fs::read_link("/proc/thread-self").unwrap();
            sender.send(format!("/proc/{}/syscall", task.display())).unwrap();
            call().map(|_| ()).expect_err("the call cannot succeed").kind()
        });
        Self { thread, task: receiver.recv().unwrap() }
    }

    /// Waits until the thread sleeps in the system, where only the call under test can have brought it.
    pub(crate) fn is_asleep(&self) {
        let (mut before, mut same) = (String::new(), 0);
        while same < 50 {
            let now = fs::read_to_string(&self.task).unwrap_or_default();
            same = if now == before && !now.starts_with("running") { same + 1 } else { 0 };
            before = now;
            thread::yield_now();
        }
    }

    /// Ends the call, and says how it ended.
    pub(crate) fn end(self, end: impl FnOnce()) -> ErrorKind {
        self.is_asleep();
        let start = Instant::now();
        end();
        let kind = self.thread.join().unwrap();
        println!("ended after {:?}", start.elapsed());
        assert!(start.elapsed() < AT_ONCE);
        kind
    }
}

/// A server that says nothing, and an endpoint that asks it.
fn unanswered(threaded: bool) -> (UdpSocket, Endpoint) {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let builder = Endpoint::builder().server(silent.local_addr().unwrap().to_string());
    (silent, builder.thread(threaded).build().unwrap())
}

fn patient(cancel: &Cancel) -> ConnectOptions {
    ConnectOptions::default().wait(LONG).cancel(cancel)
}

#[test]
fn a_closed_connection_ends_its_receivers() {
    let server = Rendezvous::start();
    for wait in [Wait::forever(), LONG.into(), Wait::forever().or_cancelled(&Cancel::new().unwrap())] {
        let (_listener, near, _far) = server.pair("bob");
        let near = Arc::new(near);
        let receiver = near.clone();
        let blocked = Blocked::start(move || receiver.recv(&mut [0; 1200], wait));
        assert_eq!(blocked.end(|| near.close()), ErrorKind::Closed);
    }
}

#[test]
fn the_peers_close_ends_a_receiver() {
    let server = Rendezvous::start();
    let (_listener, near, far) = server.pair("bob");
    let blocked = Blocked::start(move || near.recv(&mut [0; 1200], Wait::forever()));
    assert_eq!(blocked.end(|| drop(far)), ErrorKind::Closed);
}

#[test]
fn a_closed_listener_ends_its_accepts() {
    let server = Rendezvous::start();
    for threaded in [true, false] {
        let endpoint = server.endpoint().thread(threaded).build().unwrap();
        let listener = Arc::new(endpoint.listen(Some("bob"), LONG.into()).unwrap());
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let listener = listener.clone();
                Blocked::start(move || listener.accept_datagram(Wait::forever()))
            })
            .collect();
        calls.iter().for_each(Blocked::is_asleep);
        listener.close();
        for blocked in calls {
            assert_eq!(blocked.thread.join().unwrap(), ErrorKind::Closed);
        }
    }
}

#[test]
fn a_closed_endpoint_ends_all_that_waits() {
    for threaded in [true, false] {
        let (_silent, endpoint) = unanswered(threaded);
        let (listens, connects) = (endpoint.clone(), endpoint.clone());
        let listen = Blocked::start(move || listens.listen(Some("x"), Wait::forever()));
        let connect = Blocked::start(move || connects.connect_datagram("x", &ConnectOptions::default()));
        listen.is_asleep();
        connect.is_asleep();
        endpoint.close();
        assert_eq!(listen.thread.join().unwrap(), ErrorKind::Closed);
        assert_eq!(connect.thread.join().unwrap(), ErrorKind::Closed);
        assert_eq!(endpoint.listen(None, Wait::forever()).unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[test]
fn a_token_ends_all_that_waits_and_what_comes_later() {
    let server = Rendezvous::start();
    for threaded in [true, false] {
        let cancel = Cancel::new().unwrap();
        let wait = Wait::forever().or_cancelled(&cancel);
        let (_listener, near, _far) = server.pair("bob");
        let endpoint = server.endpoint().thread(threaded).build().unwrap();
        let listener = endpoint.listen(Some("alice"), LONG.into()).unwrap();
        let (_silent, unanswered) = unanswered(threaded);
        let (other, options) = (unanswered.clone(), patient(&cancel));
        let waits = [wait.clone(), wait.clone(), wait.clone()];
        let [receives, accepts, listens] = waits;
        let calls = [
            Blocked::start(move || near.recv(&mut [0; 1200], receives)),
            Blocked::start(move || listener.accept_datagram(accepts)),
            Blocked::start(move || unanswered.listen(Some("x"), listens)),
            Blocked::start(move || other.connect_datagram("x", &options)),
        ];
        calls.iter().for_each(Blocked::is_asleep);
        let start = Instant::now();
        cancel.cancel();
        for blocked in calls {
            assert_eq!(blocked.thread.join().unwrap(), ErrorKind::Cancelled);
        }
        assert!(start.elapsed() < LONG);
        let (_listener, near, far) = server.pair("carol");
        near.send(b"there is data").unwrap();
        assert_eq!(far.recv(&mut [0; 1200], wait.clone()).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(endpoint.listen(None, wait).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(endpoint.connect_datagram("carol", &patient(&cancel)).unwrap_err().kind(), ErrorKind::Cancelled);
    }
}

/// A peer that is never driven again, but to let the endpoint go that was connected to it.
#[test]
fn whatever_waits_for_the_peer_is_ended() {
    /// No call ends by itself in this time.
    const FAREWELL: Duration = LONG;
    for ender in ["token", "handle", "endpoint"] {
        let server = Rendezvous::start();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut config = PeerConfig::default();
        config.farewell = FAREWELL;
        let endpoint = server.endpoint().config(config).build().unwrap();
        let quiet = server.endpoint().thread(false).build().unwrap();
        let host = quiet.listen(Some("quiet"), LONG.into()).unwrap();
        let drive_while = |runs: &dyn Fn() -> bool| {
            while runs() {
                quiet.process().unwrap();
                thread::yield_now();
            }
        };
        let (connection, stream) = thread::scope(|scope| {
            let connects = scope.spawn(|| {
                let options = ConnectOptions::default();
                let connection = endpoint.connect_datagram("quiet", &options).unwrap();
                (Arc::new(connection), Arc::new(endpoint.connect("quiet", &options).unwrap()))
            });
            drive_while(&|| !connects.is_finished());
            connects.join().unwrap()
        });
        let listener = Arc::new(endpoint.listen(Some("own"), LONG.into()).unwrap());
        let options = AgentOptions::default().stun_server(silent.local_addr().unwrap().to_string());
        let agents = [(); 3].map(|()| Arc::new(endpoint.agent(Role::Controlling, &options).unwrap()));
        while agents[0].next_candidate(Duration::ZERO.into()).is_ok() {}

        let cancel = Cancel::new().unwrap();
        let wait = || if ender == "token" { Wait::forever().or_cancelled(&cancel) } else { Wait::forever() };
        let calls = [
            Blocked::start({
                let (connection, wait) = (connection.clone(), wait());
                move || connection.end(wait)
            }),
            Blocked::start({
                let (connection, wait) = (connection.clone(), wait());
                move || connection.recv(&mut [0; 1200], wait)
            }),
            Blocked::start({
                let (stream, wait) = (stream.clone(), wait());
                move || stream.recv(&mut [0; 10], wait)
            }),
            Blocked::start({
                let (stream, wait) = (stream.clone(), wait());
                move || stream.send_all(&vec![0; 1 << 26], wait)
            }),
            Blocked::start({
                let (listener, wait) = (listener.clone(), wait());
                move || listener.accept(wait)
            }),
            Blocked::start({
                let (listener, wait) = (listener.clone(), wait());
                move || listener.accept_datagram(wait)
            }),
            Blocked::start({
                let (agent, wait) = (agents[0].clone(), wait());
                move || agent.next_candidate(wait)
            }),
            Blocked::start({
                let (agent, wait) = (agents[1].clone(), wait());
                move || agent.local_description(wait)
            }),
            Blocked::start({
                let (agent, wait) = (agents[2].clone(), wait());
                move || agent.connect(wait)
            }),
        ];
        calls.iter().for_each(Blocked::is_asleep);
        let start = Instant::now();
        match ender {
            "token" => cancel.cancel(),
            "handle" => {
                connection.close();
                stream.close();
                listener.close();
                agents.iter().for_each(|agent| agent.close());
            }
            _ => endpoint.close(),
        }
        let expected = if ender == "token" { ErrorKind::Cancelled } else { ErrorKind::Closed };
        for (number, blocked) in calls.into_iter().enumerate() {
            assert_eq!(blocked.thread.join().unwrap(), expected, "call {number}, ended by the {ender}");
        }
        println!("ended by the {ender} after {:?}", start.elapsed());
        assert!(start.elapsed() < AT_ONCE);
        thread::scope(|scope| {
            let farewell = scope.spawn(|| drop((connection, stream, listener, agents, endpoint)));
            drive_while(&|| !farewell.is_finished());
        });
        drop(host);
    }
}

#[test]
fn a_blocking_call_in_a_callback_is_refused() {
    let server = Rendezvous::start();
    let (sender, receiver) = mpsc::channel();
    let endpoint = Arc::new(std::sync::OnceLock::<Endpoint>::new());
    let own = endpoint.clone();
    let built = server.endpoint().on_event(move |_| {
        if let Some(endpoint) = own.get() {
            let _ = sender.send(endpoint.listen(None, Wait::forever()).map(|_| ()).unwrap_err().kind());
        }
    });
    let listener = {
        let _ = endpoint.set(built.build().unwrap());
        endpoint.get().unwrap().listen(Some("bob"), LONG.into()).unwrap()
    };
    assert_eq!(receiver.recv_timeout(LONG).unwrap(), ErrorKind::InvalidArgument);
    drop(listener);
    endpoint.get().unwrap().close();
}
