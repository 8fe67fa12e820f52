//! What goes wrong in the middle, what each side sees of it, and how long until all is normal: the table in
//! `docs/faults.md`, made anew and compared. `HOLEPUNCH_BLESS=1 cargo test --test sim faults` writes it.
//!
//! Times are virtual. The peers' links take 20 ms each, a round trip between them 80 ms, one to the server 40 ms. Where a
//! time depends on when the fault happens, it is the worst of many runs.

use crate::{
    topology::{Pair, add_server, ips, link, path},
    world::{NodeId, World},
};
use holepunch::{
    config::{PeerConfig, ServerConfig},
    machine::Input,
    peer::{CloseReason, ConnectRequest, PeerEvent},
    wire::stun::SessionId,
};
use netsim::{Filtering, HostSpec, Mapping, Nat, PortAllocation, oracle::NatKind};
use std::{fs, path::PathBuf, time::Duration};

const RUNS: u64 = 20;
const MINUTE: Duration = Duration::from_secs(60);

fn nat(filtering: Filtering, allocation: PortAllocation) -> NatKind {
    let is_it = |kind: &NatKind| {
        let nat = kind.nat();
        (nat.mapping, nat.filtering, nat.allocation) == (Mapping::EndpointIndependent, filtering, allocation)
    };
    NatKind::all().into_iter().find(is_it).unwrap()
}

fn strict() -> NatKind {
    nat(Filtering::AddressAndPortDependent, PortAllocation::Random)
}

/// Two connected peers; the fault comes some time into the connection.
fn connected(run: u64, listener: NatKind, connector: NatKind) -> (Pair, SessionId) {
    let mut pair = Pair::new(run, listener, connector);
    let session = pair.introduce();
    assert!(pair.run_until_connected(Duration::from_secs(5)), "run {run}");
    pair.world.run_for(Duration::from_secs(20) + Duration::from_millis(run * 517));
    (pair, session)
}

fn registered(run: u64, kind: NatKind) -> Pair {
    let mut pair = Pair::new(run, kind, kind);
    pair.world.listen(pair.listener, pair.server, Some("bob"));
    pair.world.run_until_registered(pair.listener);
    pair.world.run_for(Duration::from_secs(100) + Duration::from_millis(run * 1317));
    pair
}

/// What a peer was told since the fault, without times.
fn saw(world: &World, node: NodeId, since: netsim::Time) -> String {
    let events = world.node(node).events.iter().filter(|(time, _)| *time >= since);
    let words = events.map(|(_, event)| match event {
        PeerEvent::Closed { reason: CloseReason::Lost, .. } => "lost".into(),
        PeerEvent::Moved { .. } => "moved".into(),
        PeerEvent::Registered { .. } => "registered again".into(),
        PeerEvent::Connected { .. } => "connected".into(),
        PeerEvent::Introduced { .. } => "introduced".into(),
        PeerEvent::Failed { error, .. } | PeerEvent::ListenFailed { error, .. } => format!("{:?}", error.kind()),
        other => panic!("{other:?}"),
    });
    let mut words: Vec<String> = words.collect();
    words.dedup();
    if words.is_empty() { "nothing".into() } else { words.join(", ") }
}

/// The same without what the listener's registration is told.
fn of_the_connection(seen: &str) -> String {
    let words: Vec<_> = seen.split(", ").filter(|word| *word != "registered again").collect();
    if words.is_empty() { "nothing".into() } else { words.join(", ") }
}

/// Where a peer sends its data now.
fn remote(world: &World, node: NodeId) -> holepunch::peer::Path {
    let mut found = path(world, node).unwrap();
    for (_, event) in &world.node(node).events {
        if let PeerEvent::Moved { remote, .. } = event {
            found.remote = *remote;
        }
    }
    found
}

/// Both sides send data ten times a second until both have got some that was sent since; when that was. Data that
/// the peer's own machine did not take, it did not get.
fn until_data_flows(pair: &mut Pair, nodes: [NodeId; 2]) -> Duration {
    let start = pair.world.net.now();
    let before = nodes.map(|node| pair.world.node(node).received.len());
    for _ in 0..600 {
        for node in nodes {
            let path = remote(&pair.world, node);
            pair.world.send_data(node, &path, b"still there?");
        }
        let flows = |world: &World| (0..2).all(|side| world.node(nodes[side]).received.len() > before[side]);
        if pair.world.run_until(Duration::from_millis(100), flows) {
            break;
        }
    }
    pair.world.net.now().since(start)
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// Runs a fault with many seeds: what was seen, which must be the same each time, and the worst time.
fn worst(mut run: impl FnMut(u64) -> ([String; 2], Duration)) -> ([String; 2], String) {
    let (seen, mut longest) = run(0);
    for number in 1..RUNS {
        let (again, time) = run(number);
        assert_eq!(again, seen, "run {number}");
        longest = longest.max(time);
    }
    (seen, seconds(longest))
}

/// A fault of a connection: it happens at one side; until data flows both ways.
fn of_connection(kinds: [NatKind; 2], mut fault: impl FnMut(&mut Pair)) -> ([String; 2], String) {
    worst(|run| {
        let (mut pair, _) = connected(run, kinds[0], kinds[1]);
        let start = pair.world.net.now();
        fault(&mut pair);
        let nodes = [pair.listener, pair.connector];
        let time = until_data_flows(&mut pair, nodes);
        assert!(time < MINUTE, "run {run}: no data flows");
        pair.world.run_for(MINUTE);
        (nodes.map(|node| of_the_connection(&saw(&pair.world, node, start))), time)
    })
}

/// A fault that ends a connection: until both know.
fn of_end(kinds: [NatKind; 2], mut fault: impl FnMut(&mut Pair)) -> ([String; 2], String) {
    worst(|run| {
        let (mut pair, _) = connected(run, kinds[0], kinds[1]);
        let start = pair.world.net.now();
        fault(&mut pair);
        let nodes = [pair.listener, pair.connector];
        let is_lost = |world: &World| {
            nodes.iter().all(|node| world.node(*node).any(|event| matches!(event, PeerEvent::Closed { .. })))
        };
        pair.world.run_until(MINUTE, is_lost);
        let time = pair.world.net.now().since(start);
        (nodes.map(|node| of_the_connection(&saw(&pair.world, node, start))), time)
    })
}

/// A fault of a registration: until somebody who tries from the moment of the fault on is connected.
fn of_registration(kind: NatKind, mut fault: impl FnMut(&mut Pair)) -> ([String; 2], String) {
    worst(|run| {
        let mut pair = registered(run, kind);
        let start = pair.world.net.now();
        fault(&mut pair);
        let again = pair.world.net.now();
        let request = pair.world.connect_request(pair.server, "bob");
        let request = ConnectRequest { wait: MINUTE, timeout: MINUTE, ..request };
        pair.world.with_peer(pair.connector, |peer, now| peer.connect(now, request)).unwrap();
        assert!(pair.run_until_connected(MINUTE), "run {run}\n{}", pair.world.net.trace());
        let time = pair.world.net.now().since(again);
        pair.world.run_for(MINUTE);
        let seen = [pair.listener, pair.connector].map(|node| saw(&pair.world, node, start));
        (seen, time)
    })
}

/// A fault after each number of milliseconds into the whole of it: listening, then connecting; until connected, from the
/// call on.
fn in_the_middle(steps: u64, kinds: [NatKind; 2], mut fault: impl FnMut(&mut Pair)) -> String {
    let mut longest = Duration::ZERO;
    for step in 0..steps {
        let mut pair = Pair::new(step, kinds[0], kinds[1]);
        pair.world.listen(pair.listener, pair.server, Some("bob"));
        // The first 100 ms are the registration's.
        let first = Duration::from_millis(step * 10).min(Duration::from_millis(100));
        pair.world.run_for(first);
        let request = pair.world.connect_request(pair.server, "bob");
        let request = ConnectRequest { wait: MINUTE, timeout: MINUTE, ..request };
        pair.world.with_peer(pair.connector, |peer, now| peer.connect(now, request)).unwrap();
        let called = pair.world.net.now();
        pair.world.run_for(Duration::from_millis(step * 10) - first);
        fault(&mut pair);
        assert!(pair.run_until_connected(MINUTE), "step {step}\n{}", pair.world.net.trace());
        longest = longest.max(pair.world.net.now().since(called));
    }
    seconds(longest)
}

fn restart(pair: &mut Pair) {
    pair.world.restart_server(pair.server, ServerConfig::default());
}

fn suspend(pair: &mut Pair, node: NodeId, time: Duration) {
    pair.world.suspend(node);
    pair.world.run_for(time);
    pair.world.resume(node);
}

fn down(pair: &mut Pair, site: usize, time: Duration) {
    pair.world.net.set_link_up(pair.sites[site], false);
    pair.world.run_for(time);
    pair.world.net.set_link_up(pair.sites[site], true);
}

fn table() -> String {
    let mut rows = String::from(
        "| what happens | the listener sees | the connector sees | until normal, at worst |\n|---|---|---|---|\n",
    );
    let mut add = |what: &str, ([listener, connector], time): ([String; 2], String), note: &str| {
        rows += &format!("| {what} | {listener} | {connector} | {time}{note} |\n");
    };
    let open = nat(Filtering::EndpointIndependent, PortAllocation::Random);
    let preserving = nat(Filtering::AddressAndPortDependent, PortAllocation::Preserving);
    add("**A connection for datagrams**", Default::default(), "");
    add(
        "the listener's NAT gives it another port; the connector's lets in what comes",
        of_connection([strict(), open], |pair| pair.world.net.flush_nat(pair.sites[0])),
        "",
    );
    add(
        "the connector's NAT gives it another address; the listener's lets in what comes",
        of_connection([open, strict()], |pair| pair.world.net.set_public(pair.sites[1], ips(&["203.0.113.7"]))),
        "",
    );
    add(
        "the listener's NAT gives it another port; the connector's filters by address and port",
        of_end([strict(), strict()], |pair| pair.world.net.flush_nat(pair.sites[0])),
        " until both know",
    );
    add(
        "the listener's machine gets another address; the connector's NAT lets in what comes",
        of_connection([strict(), open], |pair| other_address(pair, false)),
        "",
    );
    add(
        "the listener's machine gets another address; the connector's NAT filters by address and port",
        of_end([strict(), strict()], |pair| other_address(pair, false)),
        " until both know",
    );
    add(
        "a NAT that preserves ports restarts, at both",
        of_connection([preserving, preserving], |pair| {
            for site in pair.sites {
                pair.world.net.flush_nat(site);
            }
        }),
        "",
    );
    add(
        "nothing gets through for 20 s",
        of_connection([strict(), strict()], |pair| down(pair, 0, Duration::from_secs(20))),
        " after that",
    );
    add(
        "the listener vanishes",
        of_end([strict(), strict()], |pair| pair.world.net.set_link_up(pair.sites[0], false)),
        " until both know",
    );
    add(
        "the system of both sends nothing for 20 s (no buffers, no route)",
        of_connection([strict(), strict()], |pair| {
            pair.world.refuse_datagrams = true;
            pair.world.run_for(Duration::from_secs(20));
            pair.world.refuse_datagrams = false;
        }),
        " after that",
    );
    add(
        "the connector's process is stopped for 20 s",
        of_connection([strict(), strict()], |pair| suspend(pair, pair.connector, Duration::from_secs(20))),
        " after that",
    );
    for (name, time) in [("2 minutes", MINUTE * 2), ("10 hours", MINUTE * 600)] {
        add(
            &format!("the connector's process is stopped for {name}"),
            worst(|run| {
                let (mut pair, _) = connected(run, strict(), strict());
                let start = pair.world.net.now();
                let lost = |event: &PeerEvent| matches!(event, PeerEvent::Closed { .. });
                let sent = pair.world.net.counters(pair.world.host(pair.connector)).packets_sent;
                let connector = pair.connector;
                suspend(&mut pair, connector, time);
                let sent_then = pair.world.net.counters(pair.world.host(pair.connector)).packets_sent;
                assert!(pair.world.node(pair.connector).any(lost), "it knows as soon as it goes on");
                assert_eq!(sent_then, sent, "and does not make up for what it missed");
                let known = pair.world.node(pair.listener).time_of(lost).unwrap().since(start);
                let nodes = [pair.listener, pair.connector];
                (nodes.map(|node| of_the_connection(&saw(&pair.world, node, start))), known)
            }),
            " until the listener knows; the connector at once when it goes on",
        );
    }
    add(
        "the server restarts",
        worst(|run| {
            let (mut pair, _) = connected(run, strict(), strict());
            restart(&mut pair);
            let nodes = [pair.listener, pair.connector];
            let time = until_data_flows(&mut pair, nodes);
            ([String::from("nothing"), String::from("nothing")], time)
        }),
        ": nothing stops",
    );
    add(
        "one of two families dies, the one in use",
        dead_family(),
        " until both know; a new connection then takes the other at once",
    );
    add("**A listener that is registered**", Default::default(), "");
    add("nothing", of_registration(strict(), |_| {}), "");
    add("the server restarts", of_registration(strict(), restart), "");
    add(
        "the server is away for an hour",
        of_registration(strict(), |pair| {
            let host = pair.world.host(pair.server);
            pair.world.net.set_link_up(host, false);
            pair.world.run_for(MINUTE * 60);
            pair.world.net.set_link_up(host, true);
        }),
        " after that",
    );
    add(
        "its NAT gives it another address",
        of_registration(strict(), |pair| pair.world.net.set_public(pair.sites[0], ips(&["203.0.113.7"]))),
        "",
    );
    add(
        "its machine gets another address, and it is told",
        of_registration(strict(), |pair| other_address(pair, true)),
        "",
    );
    add(
        "its machine gets another address, and it is not told",
        of_registration(strict(), |pair| other_address(pair, false)),
        "",
    );
    add(
        "its process is stopped for 10 hours",
        of_registration(strict(), |pair| suspend(pair, pair.listener, MINUTE * 600)),
        " after that",
    );
    add("**In the middle of registering, being introduced and punching**", Default::default(), "");
    let nothing = || [String::from("a delay"), String::from("a delay")];
    add("nothing", (nothing(), in_the_middle(30, [strict(), strict()], |_| {})), "");
    add("the server restarts", (nothing(), in_the_middle(30, [strict(), strict()], restart)), "");
    add(
        "the server is away for 3 s and restarts",
        (
            nothing(),
            in_the_middle(30, [strict(), strict()], |pair| {
                let host = pair.world.host(pair.server);
                pair.world.net.set_link_up(host, false);
                pair.world.run_for(Duration::from_secs(3));
                pair.world.net.set_link_up(host, true);
                restart(pair);
            }),
        ),
        "",
    );
    add(
        "before the introduction, the listener's NAT gives it another port",
        (nothing(), in_the_middle(16, [strict(), open], |pair| pair.world.net.flush_nat(pair.sites[0]))),
        "",
    );
    add(
        "before the introduction, the connector's NAT gives it another port",
        (nothing(), in_the_middle(16, [open, strict()], |pair| pair.world.net.flush_nat(pair.sites[1]))),
        "",
    );
    add(
        "the connector's process is stopped for 3 s",
        (
            nothing(),
            in_the_middle(30, [strict(), strict()], |pair| suspend(pair, pair.connector, Duration::from_secs(3))),
        ),
        "",
    );
    add(
        "the listener's process is stopped for 3 s",
        (
            nothing(),
            in_the_middle(30, [strict(), strict()], |pair| suspend(pair, pair.listener, Duration::from_secs(3))),
        ),
        "",
    );
    rows
}

/// The listener's host gets another address in its LAN, which it may be told.
fn other_address(pair: &mut Pair, is_told: bool) {
    let host = pair.world.host(pair.listener);
    pair.world.net.remove_address(host, ips(&["10.0.1.2"])[0]);
    pair.world.net.add_address(host, ips(&["10.0.1.77"])[0]);
    if is_told {
        pair.world.with_peer(pair.listener, |peer, now| {
            peer.handle_input(now, Input::Interfaces(&ips(&["10.0.1.77"])));
        });
    }
}

/// Two hosts with both families; the interfaces of the one that they are connected by lose everything.
fn dead_family() -> ([String; 2], String) {
    worst(|run| {
        let mut world = World::new(run);
        let server = add_server(&mut world);
        let mut interfaces = Vec::new();
        let nodes = [1, 2].map(|number| {
            let ipv4 = ips(&[&format!("198.51.100.{number}")]);
            let host = world.net.add_host(HostSpec { addresses: ipv4, link: link() });
            let ipv6 = ips(&[&format!("2001:db8:{number}::2")]);
            interfaces.push(world.net.add_interface(host, None, ipv6, link()));
            world.add_peer(host, PeerConfig::default())
        });
        world.listen(nodes[0], server, Some("bob"));
        world.run_until_registered(nodes[0]);
        world.connect(nodes[1], server, "bob");
        let both = |world: &World| nodes.iter().all(|node| world.node(*node).is_connected());
        assert!(world.run_until(MINUTE, both));
        assert!(path(&world, nodes[1]).unwrap().remote.is_ipv6());
        world.run_for(Duration::from_millis(20_000 + run * 517));
        let start = world.net.now();
        for interface in interfaces {
            world.net.set_link_up(interface, false);
        }
        let lost = |event: &PeerEvent| matches!(event, PeerEvent::Closed { reason: CloseReason::Lost, .. });
        assert!(world.run_until(MINUTE, |world| nodes.iter().all(|node| world.node(*node).any(lost))));
        let time = world.net.now().since(start);
        let seen = nodes.map(|node| of_the_connection(&saw(&world, node, start)));
        let again = world.net.now();
        world.connect(nodes[1], server, "bob");
        let is_new = |(at, event): &(netsim::Time, PeerEvent)| {
            *at >= again && matches!(event, PeerEvent::Connected { path, .. } if path.remote.is_ipv4())
        };
        assert!(world.run_until(Duration::from_millis(500), |world| {
            nodes.iter().all(|node| world.node(*node).events.iter().any(is_new))
        }));
        (seen, time)
    })
}

#[test]
fn the_table_of_faults_is_what_the_document_says() {
    const BEGIN: &str = "<!-- begin: made by the test -->\n";
    const END: &str = "<!-- end -->";
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let document = fs::read_to_string(&file).unwrap();
    let (head, rest) = document.split_once(BEGIN).expect("a table in docs/faults.md");
    let (committed, tail) = rest.split_once(END).expect("an end of the table");
    let made = table();
    if std::env::var_os("HOLEPUNCH_BLESS").is_some() {
        fs::write(&file, format!("{head}{BEGIN}{made}{END}{tail}")).unwrap();
    } else {
        assert_eq!(made, committed, "HOLEPUNCH_BLESS=1 cargo test --test sim faults");
    }
}

/// In the last round trip of a punch one side may be connected while the other is not there any more.
#[test]
fn a_nat_that_forgets_while_peers_punch_is_survived_or_told() {
    for step in 0..50 {
        for side in [0, 1] {
            let mut pair = Pair::new(step, strict(), strict());
            pair.introduce();
            pair.world.run_for(Duration::from_millis(step * 2));
            pair.world.net.flush_nat(pair.sites[side]);
            let is_settled = |event: &PeerEvent| matches!(event, PeerEvent::Failed { .. } | PeerEvent::Closed { .. });
            pair.world.run_for(MINUTE + Duration::from_millis(500));
            let nodes = [pair.listener, pair.connector];
            let told = nodes.map(|node| {
                let node = pair.world.node(node);
                node.any(is_settled) || !node.any(|event| matches!(event, PeerEvent::Introduced { .. }))
            });
            if told != [true; 2] {
                assert!(nodes.iter().all(|node| pair.world.node(*node).is_connected()), "step {step} {told:?}");
                assert!(until_data_flows(&mut pair, nodes) < Duration::from_secs(1), "step {step}");
            }
        }
    }
}

/// Three days of an idle connection beside a registered listener, over NATs that forget after 30 s.
#[test]
fn three_days_of_keepalives() {
    let (mut pair, session) = connected(1, strict(), strict());
    for site in pair.sites {
        pair.world.net.set_nat(site, Nat { lifetime: Duration::from_secs(30), ..strict().nat() });
    }
    pair.world.net.set_trace_capacity(0);
    let nodes = [pair.listener, pair.connector];
    let sent = |world: &World| nodes.map(|node| world.net.counters(world.host(node)).packets_sent);
    let state = |pair: &Pair| {
        let world = &pair.world;
        let of_node = |node| (world.node(node).events.len(), world.sockets(node).len(), world.tcp_of_machine(node));
        (nodes.map(of_node), pair.sites.map(|site| world.net.mappings(site).len()))
    };
    pair.world.run_for(MINUTE * 60);
    let (first, mut before) = (state(&pair), sent(&pair.world));
    for hour in 1..72 {
        pair.world.run_for(MINUTE * 60);
        assert_eq!(state(&pair), first, "hour {hour}: something grows");
        let now = sent(&pair.world);
        let [listener, connector] = [now[0] - before[0], now[1] - before[1]];
        before = now;
        // A check each 4 to 6 s and an answer to each of the other's; the listener's keepalive to the server each 25 s.
        assert!((1380..1500).contains(&connector), "hour {hour}: {connector}");
        assert!((1380 + 144..1500 + 145).contains(&listener), "hour {hour}: {listener}");
        assert_eq!(pair.world.server(pair.server).stats().registrations, 1);
        if hour == 71 {
            println!("in an hour: the listener sends {listener} datagrams, the connector {connector}");
        }
    }
    assert!(pair.exchange_data(session));
    assert_eq!(nodes.map(|node| saw(&pair.world, node, netsim::Time::from_millis(1000))), ["nothing", "nothing"]);
}

/// A stream that is there costs nothing: neither side's machine knows of it any more.
#[test]
fn an_idle_stream_costs_nothing() {
    let mut pair = Pair::new(2, strict(), strict());
    pair.world.listen(pair.listener, pair.server, Some("bob"));
    pair.world.run_until_registered(pair.listener);
    let session = pair.world.connect_stream(pair.connector, pair.server, "bob");
    assert!(pair.run_until_connected(MINUTE));
    pair.world.run_for(MINUTE);
    let of = |pair: &Pair| pair.world.net.counters(pair.world.host(pair.connector));
    let before = of(&pair);
    // NATs keep a connection for two hours (RFC 5382); what outlives that is the system's keepalive, which is not here.
    pair.world.run_for(MINUTE * 110);
    assert_eq!(of(&pair), before);
    assert_eq!(pair.world.wake(pair.connector), None);
    pair.world.send_stream(pair.connector, session, b"still there");
    pair.world.run_for(Duration::from_secs(1));
    assert_eq!(pair.world.stream_received(pair.listener, session), b"still there");
}

#[test]
fn a_clock_that_goes_back_or_leaps_is_survived() {
    for leap in [1, 60, 3600, 36_000] {
        let (mut pair, _) = connected(leap, strict(), strict());
        let nodes = [pair.listener, pair.connector];
        let now = pair.world.net.now().as_nanos();
        let back = holepunch::machine::Instant::from_nanos(now.saturating_sub(leap * 1_000_000_000));
        for node in nodes {
            pair.world.with_peer(node, |peer, _| peer.handle_input(back, Input::Timeout));
        }
        until_data_flows(&mut pair, nodes);
        pair.world.run_for(MINUTE);
        assert_eq!(
            nodes.map(|node| pair.world.node(node).any(|event| matches!(event, PeerEvent::Closed { .. }))),
            [false; 2]
        );
    }
}

#[test]
fn a_dead_interface_does_not_delay() {
    for dead in [false, true] {
        let mut world = World::new(4);
        let server = add_server(&mut world);
        let nodes = [1, 2].map(|number| {
            let host =
                world.net.add_host(HostSpec { addresses: ips(&[&format!("198.51.100.{number}")]), link: link() });
            let ipv6 = ips(&[&format!("2001:db8:{number}::2")]);
            let lossy = if dead { link().with_loss(1.0) } else { link() };
            world.net.add_interface(host, None, ipv6, lossy);
            world.add_peer(host, PeerConfig::default())
        });
        world.listen(nodes[0], server, Some("bob"));
        world.run_until_registered(nodes[0]);
        world.run_for(Duration::from_secs(6));
        let called = world.net.now();
        world.connect(nodes[1], server, "bob");
        let both = |world: &World| nodes.iter().all(|node| world.node(*node).is_connected());
        assert!(world.run_until(MINUTE, both));
        // Two round trips to the server and one between the peers, dead or not.
        assert_eq!(world.net.now().since(called), Duration::from_millis(160), "dead: {dead}");
    }
}
