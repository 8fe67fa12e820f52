//! Agents with signalling of the program's own, over real sockets on loopback.

use super::{LONG, SHORT, receive};
use holepunch::{Agent, AgentOptions, Connection, Endpoint, ErrorKind, Wait, punch::Role};
use std::{thread, time::Duration};

fn agent(role: Role) -> Agent {
    let endpoint = Endpoint::builder().bind("127.0.0.1:0".parse().unwrap()).build().unwrap();
    endpoint.agent(role, &AgentOptions::default()).unwrap()
}

fn pair() -> (Connection, Connection) {
    let (near, far) = (agent(Role::Controlling), agent(Role::Controlled));
    far.set_remote_description(&near.local_description(LONG.into()).unwrap()).unwrap();
    near.set_remote_description(&far.local_description(LONG.into()).unwrap()).unwrap();
    (near.connect(LONG.into()).unwrap(), far.connect(LONG.into()).unwrap())
}

#[test]
fn data_goes_both_ways() {
    let (near, far) = pair();
    assert_eq!(near.path().remote, far.local_addr());
    assert!(near.path().signalled);
    for round in 0..50_u8 {
        near.send(&[round; 1200]).unwrap();
        assert_eq!(receive(&far).unwrap(), [round; 1200]);
        far.send(&[round]).unwrap();
        assert_eq!(receive(&near).unwrap(), [round]);
    }
    let error = near.end(LONG.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    near.send(b"still open").unwrap();
    assert_eq!(receive(&far).unwrap(), b"still open");
}

#[test]
fn the_socket_is_given_away_at_once() {
    let (near, far) = pair();
    let (near, far) = (near.into_socket().unwrap(), far.into_socket().unwrap());
    near.set_read_timeout(Some(LONG)).unwrap();
    far.send(b"plain").unwrap();
    let mut buffer = [0; 1200];
    // Nobody asks the other side to fall silent: a check may have been on its way.
    let data = loop {
        let length = near.recv(&mut buffer).unwrap();
        if buffer[0] > 3 {
            break &buffer[..length];
        }
    };
    assert_eq!(data, b"plain");
}

#[test]
fn candidates_are_told_one_by_one() {
    let (near, far) = (agent(Role::Controlling), agent(Role::Controlled));
    let line = near.next_candidate(LONG.into()).unwrap().unwrap();
    assert!(line.starts_with("candidate:10 1 udp ") && line.contains(" 127.0.0.1 "), "{line}");
    assert_eq!(near.next_candidate(LONG.into()).unwrap(), None);
    assert_eq!(near.next_candidate(LONG.into()).unwrap(), None);
    assert_eq!((near.ufrag().len(), near.password().len()), (8, 32));
    let description = near.local_description(LONG.into()).unwrap();
    assert!(description.contains(&format!("a={line}\n")), "what was given is in the description all the same");
    assert_eq!(near.local_description(LONG.into()).unwrap(), description);
    far.add_remote_candidate(&format!("a={line}")).unwrap();
    far.add_remote_candidate("").unwrap();
    far.set_remote(near.ufrag(), near.password()).unwrap();
    assert_eq!(far.connect(SHORT.into()).unwrap_err().kind(), ErrorKind::Timeout);
    near.set_remote(far.ufrag(), far.password()).unwrap();
    let far_end = far.connect(LONG.into()).unwrap();
    let near_end = near.connect(LONG.into()).unwrap();
    near_end.send(b"hello").unwrap();
    assert_eq!(receive(&far_end).unwrap(), b"hello");
    assert_eq!(far.connect(LONG.into()).unwrap_err().kind(), ErrorKind::Closed);
    drop(far);
    far_end.send(b"the connection outlives its agent").unwrap();
    assert_eq!(receive(&near_end).unwrap(), b"the connection outlives its agent");
}

#[test]
fn what_is_known_may_be_polled() {
    let (near, far) = (agent(Role::Controlling), agent(Role::Controlled));
    fn until<T>(mut poll: impl FnMut() -> Option<holepunch::Result<T>>) -> T {
        loop {
            match poll() {
                Some(known) => return known.unwrap(),
                None => thread::yield_now(),
            }
        }
    }
    let line = until(|| near.poll_candidate()).unwrap();
    assert_eq!(until(|| near.poll_candidate()), None);
    assert!(until(|| near.poll_description()).contains(&line));
    assert!(near.poll_connect().is_none());
    far.set_remote_description(&until(|| near.poll_description())).unwrap();
    near.set_remote_description(&until(|| far.poll_description())).unwrap();
    let (near_end, far_end) = (until(|| near.poll_connect()), until(|| far.poll_connect()));
    near_end.send(b"hello").unwrap();
    assert_eq!(receive(&far_end).unwrap(), b"hello");
    assert_eq!(near.poll_connect().unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn wrong_arguments_are_refused() {
    let agent = agent(Role::Controlling);
    let kinds = [
        agent.set_remote("abc", "0123456789012345678901"),
        agent.set_remote("abcd", "short"),
        agent.add_remote_candidate("candidate:nonsense"),
        agent.set_remote_description("v=0"),
        self::agent(Role::Controlled)
            .set_remote_description("a=ice-lite\na=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901"),
    ];
    for result in kinds {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    let endpoint = Endpoint::builder().build().unwrap();
    let options = AgentOptions::default().stun_server("a b");
    assert_eq!(endpoint.agent(Role::Controlling, &options).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let options = (0..9).fold(AgentOptions::default(), |options, _| options.stun_server("127.0.0.1"));
    assert_eq!(endpoint.agent(Role::Controlling, &options).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let options = AgentOptions::default().stun_server("nowhere.invalid");
    assert_eq!(endpoint.agent(Role::Controlling, &options).unwrap_err().kind(), ErrorKind::Unresolvable);
}

#[test]
fn a_failure_is_told_by_every_call() {
    let endpoint = Endpoint::builder().bind("127.0.0.1:0".parse().unwrap()).build().unwrap();
    let options = AgentOptions::default().timeout(Duration::from_millis(20));
    let agent = endpoint.agent(Role::Controlling, &options).unwrap();
    agent.set_remote("abcd", "0123456789012345678901").unwrap();
    for _ in 0..2 {
        let error = agent.connect(Wait::forever()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.message().contains("after its description came"), "{error}");
        assert_eq!(error.strategies(), ["udp_simultaneous"]);
    }
    assert_eq!(agent.add_remote_candidate("1 1 udp 1 127.0.0.1 9 typ host").unwrap_err().kind(), ErrorKind::Timeout);
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::builder().bind(taken.local_addr().unwrap()).build().unwrap();
    let agent = endpoint.agent(Role::Controlling, &AgentOptions::default()).unwrap();
    assert_eq!(agent.next_candidate(LONG.into()).unwrap_err().kind(), ErrorKind::AddressInUse);
}

#[test]
fn closing_wakes_whoever_waits() {
    let agent = agent(Role::Controlling);
    agent.set_remote("abcd", "0123456789012345678901").unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| agent.connect(Wait::forever()).unwrap_err());
        agent.close();
        assert_eq!(waiting.join().unwrap().kind(), ErrorKind::Closed);
    });
    assert_eq!(agent.next_candidate(LONG.into()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(agent.set_remote("abcd", "0123456789012345678901").unwrap_err().kind(), ErrorKind::Closed);
}
