//! TCP between hosts, and through NATs and firewalls: the stack and the tracking by themselves.

use crate::{
    Counters, DropReason, Event, Filtering, Firewall, HostId, HostSpec, Link, Mapping, Nat, Network, PortAllocation,
    SiteId, SiteSpec, TcpConnection, TcpError, TcpEvent, TcpFailure, TcpPort, Time, UnsolicitedSyn,
};
use std::net::SocketAddr;
use std::time::Duration;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn host(net: &mut Network, address: &str, delay: u64) -> HostId {
    net.add_host(HostSpec { addresses: vec![address.parse().unwrap()], link: Link::delay_ms(delay) })
}

fn bind(net: &mut Network, host: HostId, local: &str) -> TcpPort {
    net.tcp_bind(host, at(local)).unwrap().0
}

/// Runs for that long; what happened, with its time in milliseconds.
fn run(net: &mut Network, millis: u64) -> Vec<(u64, HostId, TcpEvent)> {
    let end = net.now() + Duration::from_millis(millis);
    let mut events = Vec::new();
    while let Some(time) = net.next_event().filter(|time| *time <= end) {
        net.advance_to(time);
        while let Some((host, event)) = net.poll_tcp() {
            events.push((net.now().as_millis(), host, event));
        }
    }
    net.advance_to(end);
    events
}

fn data(events: &[(u64, HostId, TcpEvent)], of: HostId) -> Vec<u8> {
    let mut all = Vec::new();
    for (_, host, event) in events {
        if let TcpEvent::Data { bytes, .. } = event
            && *host == of
        {
            all.extend(bytes);
        }
    }
    all
}

fn accepted(events: &[(u64, HostId, TcpEvent)]) -> Option<TcpConnection> {
    events.iter().find_map(
        |(_, _, event)| {
            if let TcpEvent::Accepted { connection, .. } = event { Some(*connection) } else { None }
        },
    )
}

/// Two hosts, 20 ms from the backbone each, and a port of each.
fn two_hosts(seed: u64) -> (Network, [HostId; 2], [TcpPort; 2]) {
    let mut net = Network::new(seed);
    let hosts = [host(&mut net, "192.0.2.1", 20), host(&mut net, "192.0.2.2", 20)];
    let ports = [bind(&mut net, hosts[0], "0.0.0.0:1000"), bind(&mut net, hosts[1], "0.0.0.0:2000")];
    (net, hosts, ports)
}

/// A connection that was accepted, with both ends.
fn connected(net: &mut Network, ports: [TcpPort; 2]) -> [TcpConnection; 2] {
    net.tcp_listen(ports[0]);
    let ours = net.tcp_connect(ports[1], at("192.0.2.1:1000")).unwrap();
    let events = run(net, 150);
    [accepted(&events).unwrap(), ours]
}

#[test]
fn a_handshake_takes_a_round_trip_and_half_of_one() {
    let (mut net, hosts, ports) = two_hosts(1);
    net.tcp_listen(ports[0]);
    let ours = net.tcp_connect(ports[1], at("192.0.2.1:1000")).unwrap();
    let events = run(&mut net, 1000);
    assert_eq!(events[0], (80, hosts[1], TcpEvent::Connected { connection: ours, local: at("192.0.2.2:2000") }));
    assert!(matches!(
        events[1],
        (120, host, TcpEvent::Accepted { port, local, remote, .. })
            if host == hosts[0] && port == ports[0] && local == at("192.0.2.1:1000") && remote == at("192.0.2.2:2000")
    ));
    assert_eq!(events.len(), 2);
    assert_eq!(net.tcp_connect(ports[1], at("192.0.2.1:1000")), Err(TcpError::InUse));
    assert_eq!(net.tcp_bind(hosts[1], at("192.0.2.2:2000")), Err(TcpError::InUse));
}

#[test]
fn data_and_both_ends_arrive_in_order() {
    let (mut net, hosts, ports) = two_hosts(2);
    let [theirs, ours] = connected(&mut net, ports);
    let long: Vec<u8> = (0..10_000_u32).map(|number| number as u8).collect();
    net.tcp_send(ours, &long);
    net.tcp_close(ours);
    net.tcp_send(theirs, b"welcome");
    let events = run(&mut net, 100);
    assert_eq!(data(&events, hosts[0]), long);
    assert_eq!(events.last().unwrap().2, TcpEvent::Ended { connection: theirs });
    net.tcp_close(theirs);
    run(&mut net, 100);
    assert_eq!(net.tcp_in_use(hosts[0]).1, 0);
    net.tcp_release(ports[0]);
    net.tcp_release(ports[1]);
    assert_eq!(net.tcp_connect(ports[1], at("192.0.2.1:1000")), Err(TcpError::Released));
    run(&mut net, 70_000);
    assert_eq!([0, 1].map(|side| net.tcp_in_use(hosts[side])), [(0, 0); 2]);
}

#[test]
fn a_port_that_nobody_listens_on_refuses() {
    let (mut net, hosts, ports) = two_hosts(3);
    let connection = net.tcp_connect(ports[1], at("192.0.2.1:1000")).unwrap();
    let refused = TcpEvent::Failed { connection, why: TcpFailure::Refused };
    assert_eq!(run(&mut net, 1000), [(80, hosts[1], refused)]);
}

#[test]
fn an_unanswered_syn_is_repeated_after_one_two_and_four_seconds() {
    let (mut net, hosts, ports) = two_hosts(4);
    net.set_link_up(hosts[0], false);
    net.tcp_connect(ports[1], at("192.0.2.1:1000")).unwrap();
    run(&mut net, 8000);
    let sent: Vec<_> = net.trace().records().filter(|it| it.event == Event::Sent).map(|it| it.at.as_millis()).collect();
    assert_eq!(sent, [0, 1000, 3000, 7000]);
    let events = run(&mut net, 200_000);
    assert!(matches!(events[..], [(127_000, _, TcpEvent::Failed { why: TcpFailure::TimedOut, .. })]), "{events:?}");
}

#[test]
fn an_attempt_that_is_closed_is_silent() {
    let (mut net, hosts, ports) = two_hosts(5);
    let attempt = net.tcp_connect(ports[1], at("192.0.2.1:1000")).unwrap();
    net.tcp_close(attempt);
    assert_eq!(run(&mut net, 1000), []);
    let sent = net.trace().records().filter(|it| it.place == crate::Place::Host(hosts[1]) && it.event == Event::Sent);
    assert_eq!(sent.count(), 1, "the SYN and nothing more");
    assert_eq!(net.counters(hosts[1]), Counters { segments_sent: 1, ..Counters::default() });
}

#[test]
fn syns_that_cross_make_one_connection() {
    let (mut net, hosts, ports) = two_hosts(6);
    for (port, remote) in [(ports[0], "192.0.2.2:2000"), (ports[1], "192.0.2.1:1000")] {
        let connection = net.tcp_connect(port, at(remote)).unwrap();
        net.tcp_send(connection, b"hello");
    }
    let events = run(&mut net, 1000);
    let connects = events.iter().filter(|(at, _, event)| *at == 80 && matches!(event, TcpEvent::Connected { .. }));
    assert_eq!(connects.count(), 2);
    assert_eq!([data(&events, hosts[0]), data(&events, hosts[1])], [b"hello", b"hello"]);
}

#[test]
fn a_port_can_connect_to_itself() {
    let (mut net, hosts, ports) = two_hosts(7);
    let connection = net.tcp_connect(ports[0], at("192.0.2.1:1000")).unwrap();
    net.tcp_send(connection, b"echo");
    let events = run(&mut net, 10);
    assert_eq!(events[0], (0, hosts[0], TcpEvent::Connected { connection, local: at("192.0.2.1:1000") }));
    assert_eq!(data(&events, hosts[0]), b"echo");
}

#[test]
fn a_listener_and_a_connection_share_a_port() {
    let (mut net, hosts, ports) = two_hosts(8);
    let third = host(&mut net, "192.0.2.3", 0);
    let port = bind(&mut net, third, "0.0.0.0:3000");
    net.tcp_listen(ports[0]);
    net.tcp_listen(port);
    net.tcp_connect(ports[0], at("192.0.2.3:3000")).unwrap();
    net.tcp_connect(ports[1], at("192.0.2.1:1000")).unwrap();
    let events = run(&mut net, 1000);
    let of_first: Vec<_> = events.iter().filter(|(_, host, _)| *host == hosts[0]).map(|(_, _, event)| event).collect();
    assert!(matches!(of_first[..], [TcpEvent::Connected { .. }, TcpEvent::Accepted { .. }]), "{of_first:?}");
}

#[test]
fn lost_and_late_segments_change_nothing_but_the_time() {
    for seed in 0..100 {
        let (mut net, hosts, ports) = two_hosts(seed);
        for host in hosts {
            let faulty = Link::delay_ms(20).with_loss(0.15).with_jitter(Duration::from_millis(30));
            net.set_link(host, Link { duplicate: 0.1, reorder: 0.1, ..faulty });
        }
        net.tcp_listen(ports[0]);
        let ours = net.tcp_connect(ports[1], at("192.0.2.1:1000")).unwrap();
        let long: Vec<u8> = (0..20_000_u32).map(|number| (number * 7) as u8).collect();
        net.tcp_send(ours, &long);
        let mut events = run(&mut net, 130_000);
        net.tcp_send(accepted(&events).unwrap_or_else(|| panic!("seed {seed}\n{}", net.trace())), &long);
        net.tcp_close(ours);
        events.extend(run(&mut net, 130_000));
        assert!(data(&events, hosts[0]) == long, "seed {seed}");
        let ended = events.iter().any(|(_, host, event)| *host == hosts[0] && matches!(event, TcpEvent::Ended { .. }));
        let reset = events.iter().any(|(_, _, event)| matches!(event, TcpEvent::Failed { .. }));
        assert!(ended || reset, "seed {seed}: who closes and is sent data answers with a RST");
    }
}

#[test]
fn a_rst_ends_a_connection_on_the_other_side() {
    let (mut net, hosts, ports) = two_hosts(9);
    let [theirs, ours] = connected(&mut net, ports);
    net.tcp_abort(ours);
    let reset = TcpEvent::Failed { connection: theirs, why: TcpFailure::Reset };
    let events = run(&mut net, 1000);
    assert_eq!(events.last().map(|(_, host, event)| (*host, event.clone())), Some((hosts[0], reset)));
    assert_eq!([0, 1].map(|side| net.tcp_in_use(hosts[side]).1), [0, 0]);
}

#[test]
fn a_new_syn_from_the_same_endpoint_replaces_a_half_open_one() {
    let (mut net, hosts, ports) = two_hosts(10);
    net.tcp_listen(ports[0]);
    let first = net.tcp_connect(ports[1], at("192.0.2.1:1000")).unwrap();
    run(&mut net, 50);
    // The SYN-ACK is under way; its receiver has begun anew and refuses it.
    net.tcp_close(first);
    let second = net.tcp_connect(ports[1], at("192.0.2.1:1000")).unwrap();
    let events = run(&mut net, 3000);
    let connected = TcpEvent::Connected { connection: second, local: at("192.0.2.2:2000") };
    assert!(events.iter().any(|(_, host, event)| *host == hosts[1] && *event == connected), "{}", net.trace());
}

/// Two hosts in sites of their own with that NAT, and a server.
struct Sites {
    net: Network,
    sites: [SiteId; 2],
    hosts: [HostId; 2],
    ports: [TcpPort; 2],
}

fn sites(nat: &Nat) -> Sites {
    let mut net = Network::new(11);
    let sites = [1, 2].map(|number| {
        let public = vec![format!("198.51.100.{number}").parse().unwrap()];
        net.add_site(SiteSpec { public, nat: Some(nat.clone()), link: Link::delay_ms(20), ..SiteSpec::default() })
    });
    let hosts = sites.map(|site| net.add_host_in(site, vec!["10.0.0.2".parse().unwrap()], Link::PERFECT));
    let ports = hosts.map(|host| bind(&mut net, host, "0.0.0.0:5000"));
    Sites { net, sites, hosts, ports }
}

fn nat(filtering: Filtering, unsolicited_syn: UnsolicitedSyn) -> Nat {
    let nat = Nat::new(Mapping::EndpointIndependent, filtering, PortAllocation::Preserving);
    Nat { unsolicited_syn, ..nat }
}

const OTHERS: [&str; 2] = ["198.51.100.2:5000", "198.51.100.1:5000"];

fn connects(events: &[(u64, HostId, TcpEvent)]) -> usize {
    events.iter().filter(|(_, _, event)| matches!(event, TcpEvent::Connected { .. })).count()
}

#[test]
fn crossing_syns_get_through_nats_that_drop_whatever_the_skew() {
    for skew in [0, 10, 40, 150, 700] {
        let Sites { mut net, ports, .. } = sites(&nat(Filtering::AddressAndPortDependent, UnsolicitedSyn::Drop));
        net.tcp_connect(ports[0], at(OTHERS[0])).unwrap();
        let mut events = run(&mut net, skew);
        net.tcp_connect(ports[1], at(OTHERS[1])).unwrap();
        events.extend(run(&mut net, 2000));
        assert_eq!(connects(&events), 2, "skew {skew}\n{}", net.trace());
    }
}

#[test]
fn nats_that_reset_want_syns_that_cross() {
    let refusing = nat(Filtering::AddressAndPortDependent, UnsolicitedSyn::Reset);
    let Sites { mut net, ports, hosts, .. } = sites(&refusing);
    net.tcp_connect(ports[0], at(OTHERS[0])).unwrap();
    let events = run(&mut net, 100);
    assert!(matches!(events[..], [(80, host, TcpEvent::Failed { why: TcpFailure::Refused, .. })] if host == hosts[0]));
    // The RST has closed the hole again.
    net.tcp_connect(ports[1], at(OTHERS[1])).unwrap();
    let events = run(&mut net, 100);
    assert!(matches!(events[..], [(180, host, TcpEvent::Failed { why: TcpFailure::Refused, .. })] if host == hosts[1]));
    // Less than a one-way delay apart.
    net.tcp_connect(ports[0], at(OTHERS[0])).unwrap();
    let mut events = run(&mut net, 30);
    net.tcp_connect(ports[1], at(OTHERS[1])).unwrap();
    events.extend(run(&mut net, 300));
    assert_eq!(connects(&events), 2, "{}", net.trace());
}

#[test]
fn a_listener_is_reached_where_the_filter_permits_it() {
    for filtering in [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent] {
        let Sites { mut net, sites, ports, .. } = sites(&nat(filtering, UnsolicitedSyn::Drop));
        // The mapping, and the peer's address; then the attempt is given up and only the listener is left.
        let opening = net.tcp_connect(ports[0], at("198.51.100.2:9")).unwrap();
        run(&mut net, 100);
        net.tcp_close(opening);
        assert_eq!(net.mappings(sites[0]), [], "ports of TCP are not those of UDP");
        net.tcp_listen(ports[0]);
        net.tcp_connect(ports[1], at(OTHERS[1])).unwrap();
        let events = run(&mut net, 500);
        let is_reached = filtering != Filtering::AddressAndPortDependent;
        assert_eq!(connects(&events), usize::from(is_reached), "{filtering:?}");
        if is_reached {
            assert!(events.iter().any(|(_, _, event)| matches!(event, TcpEvent::Accepted { .. })));
        } else {
            let filtered = |it: &crate::Record| it.event == Event::Dropped(DropReason::Filtered);
            assert!(net.trace().records().any(filtered));
        }
    }
}

/// As connection tracking has it: the answer of a listener does not belong to the SYN that went out before.
#[test]
fn a_syn_that_is_given_up_opens_nothing_for_a_listener() {
    let dropping = nat(Filtering::AddressAndPortDependent, UnsolicitedSyn::Drop);
    let Sites { mut net, ports, .. } = sites(&dropping);
    let opening = net.tcp_connect(ports[0], at(OTHERS[0])).unwrap();
    run(&mut net, 50);
    net.tcp_close(opening);
    net.tcp_listen(ports[0]);
    net.tcp_connect(ports[1], at(OTHERS[1])).unwrap();
    let events = run(&mut net, 20_000);
    assert_eq!(connects(&events), 0, "{}", net.trace());
    assert!(net.trace().records().any(|it| it.event == Event::Dropped(DropReason::OutOfWindow)));
}

#[test]
fn what_belongs_to_no_connection_does_not_pass() {
    let open = nat(Filtering::EndpointIndependent, UnsolicitedSyn::Drop);
    let Sites { mut net, sites, ports, .. } = sites(&open);
    net.tcp_connect(ports[0], at("198.51.100.2:9")).unwrap();
    net.tcp_listen(ports[0]);
    run(&mut net, 100);
    let connection = net.tcp_connect(ports[1], at(OTHERS[1])).unwrap();
    assert_eq!(connects(&run(&mut net, 500)), 1);
    net.flush_nat(sites[0]);
    net.tcp_send(connection, b"lost");
    let events = run(&mut net, 2000);
    assert_eq!(events, []);
    assert!(net.trace().records().any(|it| it.event == Event::Dropped(DropReason::Untracked)));
}

#[test]
fn a_firewall_lets_in_what_its_own_syn_went_out_for() {
    for unsolicited_syn in [UnsolicitedSyn::Drop, UnsolicitedSyn::Reset] {
        let mut net = Network::new(12);
        let outside =
            net.add_host(HostSpec { addresses: vec!["2001:db8::1".parse().unwrap()], link: Link::delay_ms(20) });
        let firewall = Some(Firewall { unsolicited_syn, ..Firewall::default() });
        let site = net.add_site(SiteSpec { firewall, link: Link::delay_ms(20), ..SiteSpec::default() });
        let inside = net.add_host_in(site, vec!["2001:db8:a::2".parse().unwrap()], Link::PERFECT);
        let ports = [bind(&mut net, outside, "[::]:1000"), bind(&mut net, inside, "[::]:2000")];
        for port in ports {
            net.tcp_listen(port);
        }
        let stranger = net.tcp_connect(ports[0], at("[2001:db8:a::2]:2000")).unwrap();
        let events = run(&mut net, 500);
        match unsolicited_syn {
            UnsolicitedSyn::Drop => assert_eq!(events, []),
            UnsolicitedSyn::Reset => {
                let refused = TcpEvent::Failed { connection: stranger, why: TcpFailure::Refused };
                assert_eq!(events, [(80, outside, refused)]);
            }
        }
        net.tcp_close(stranger);
        net.tcp_connect(ports[1], at("[2001:db8::1]:1000")).unwrap();
        assert_eq!(connects(&run(&mut net, 500)), 1);
    }
}

#[test]
fn one_seed_gives_one_trace() {
    let digest = |seed| {
        let (mut net, hosts, ports) = two_hosts(seed);
        net.set_link(hosts[0], Link::delay_ms(20).with_loss(0.2));
        net.tcp_listen(ports[0]);
        let connection = net.tcp_connect(ports[1], at("192.0.2.1:1000")).unwrap();
        net.tcp_send(connection, &[1; 5000]);
        run(&mut net, 10_000);
        assert_eq!(net.now(), Time::from_millis(10_000));
        assert!(net.pcap().len() > 5000);
        net.trace_digest()
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}
