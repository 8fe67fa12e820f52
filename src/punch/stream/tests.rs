//! A negotiation over TCP, alone in virtual time: nobody answers.

use super::*;
use alloc::format;

const PORT: PortId = PortId(1);
const PEER: &str = "198.51.100.2:2000";

fn ms(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

/// A negotiation that has been told of one address, which no server has seen the peer at.
fn alone(role: Role) -> StreamAgent {
    let credentials = |side| Credentials { ufrag: format!("ufrag-{side}"), password: "a password of 22 chars".into() };
    let mut agent = StreamAgent::new(role, credentials(0), credentials(1), [1; 32]);
    agent.add_port(ms(0), PORT, "192.0.2.1:1000".parse().unwrap());
    let address = PEER.parse().unwrap();
    agent.add_remote(ms(0), Candidate::new(CandidateKind::ServerReflexive, address, Provenance::Claimed));
    agent
}

/// What it asks for from then until then.
fn run(agent: &mut StreamAgent, from: Instant, until: Instant) -> Vec<TcpRequest> {
    let mut requests = Vec::new();
    let (mut now, mut number) = (from, 1000 * (from.as_nanos() / 1_000_000) as u32);
    while now <= until {
        agent.handle_timeout(now, || {
            number += 1;
            StreamId(number)
        });
        requests.extend(core::iter::from_fn(|| agent.poll_request()));
        let Some(next) = agent.next_wake().time() else { break };
        now = next.max(now);
    }
    requests
}

fn connects(requests: &[TcpRequest]) -> usize {
    requests.iter().filter(|request| matches!(request, TcpRequest::Connect { .. })).count()
}

#[test]
fn an_address_is_tried_on_once_a_server_has_seen_the_peer_there() {
    let mut agent = alone(Role::Controlled);
    assert_eq!(connects(&run(&mut agent, ms(0), ms(5000))), CLAIMED_PUBLIC_ATTEMPTS as usize);
    agent.believe(ms(5000), "198.51.100.2".parse().unwrap());
    assert!(connects(&run(&mut agent, ms(5000), ms(10_000))) > 2);
}

#[test]
fn a_connection_on_which_nothing_is_heard_leaves_its_endpoints_to_the_next() {
    let mut agent = alone(Role::Controlled);
    let requests = run(&mut agent, ms(0), ms(0));
    let [TcpRequest::Connect { stream, .. }] = requests[..] else { panic!("{requests:?}") };
    agent.handle_connected(ms(100), stream, "192.0.2.1:1000".parse().unwrap());
    let requests = run(&mut agent, ms(100), ms(5200));
    assert!(requests.contains(&TcpRequest::Abort { stream }), "{requests:?}");
    assert_eq!(connects(&requests), 1);
}
