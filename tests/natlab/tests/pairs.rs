//! The command line through real NATs and firewalls, each pair of routers by name.
//!
//! What must happen follows from the routers alone. `masquerade` and a firewall without NAT are endpoint-independent as long as
//! ports are free and filter by address and port: both sides send at once, and each opens its own filter for the other.
//! `fully-random` maps to another port for the peer than for the server, and filters by address and port: its port toward the
//! peer is learned from its check by a peer that nothing filters, and by nobody else; that takes a search, which is not made.

use natlab::{Artefacts, Connected, Families, Host, Lab, Pair, Place, Rendezvous, Router, Site, Stream, field};
use std::{net::SocketAddr, time::Duration};

const PATIENCE: Duration = Duration::from_secs(20);

fn client(lab: &mut Lab, name: &str, kind: Router) -> (Site, Host) {
    let mut site = lab.site(&format!("{name}-router"), kind, Families::V4).unwrap();
    let host = lab.client(&mut site, name).unwrap();
    (site, host)
}

fn start(server: SocketAddr, listener: &Host, connector: &Host, options: &[&str]) -> Pair {
    let command = || Artefacts::get().holepunch();
    Pair::start(server, (&listener.into(), command()), (&connector.into(), command()), &[&["--udp"], options].concat())
        .unwrap()
}

/// Connects, sends data both ways also after the server is gone, ends: the listener's report and the connector's.
fn connects(mut server: Rendezvous, listener: &Host, connector: &Host) -> (Connected, Connected) {
    let mut pair = start(server.address, listener, connector, &[]);
    let reports = pair.connected().unwrap();
    pair.exchange("from the listener", "from the connector").unwrap();

    // The server ends cleanly when told so, and the path does not need it.
    server.program.signal("TERM").unwrap();
    assert_eq!(server.program.wait(PATIENCE).unwrap().code(), Some(0), "{}", server.program.transcript());
    pair.exchange("still there", "so am I").unwrap();
    pair.end().unwrap();
    reports
}

/// The connector gives up with status 7 and its typed error; the listener stays, until it is told to go.
fn times_out(server: &Rendezvous, listener: &Host, connector: &Host) {
    let mut pair = start(server.address, listener, connector, &["--timeout", "3"]);
    let status = pair.connector.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(7), "{}", pair.connector.transcript());
    let last = pair.connector.lines(Stream::Err).pop().unwrap();
    assert_eq!(field(&last, "event"), Some("error"), "{last}");
    assert_eq!(field(&last, "kind"), Some("timeout"), "{last}");
    assert_eq!(field(&last, "status"), Some("7"), "{last}");
    assert_eq!(pair.connector.lines(Stream::Out), [""; 0]);

    pair.listener.signal("INT").unwrap();
    assert_eq!(pair.listener.wait(PATIENCE).unwrap().code(), Some(130), "{}", pair.listener.transcript());
}

fn serve(lab: &mut Lab) -> Rendezvous {
    let server = lab.host("server").unwrap();
    Rendezvous::start(&Place::from(&server), &[]).unwrap()
}

#[test]
fn nat_masquerade_x_masquerade() {
    let Some(mut lab) = Lab::or_skip("nat_masquerade_x_masquerade") else { return };
    let server = serve(&mut lab);
    let (left, bob) = client(&mut lab, "bob", Router::Masquerade);
    let (right, alice) = client(&mut lab, "alice", Router::Masquerade);
    let (listener, connector) = connects(server, &bob, &alice);
    assert_eq!(connector.remote.ip(), left.public[0], "{}", connector.line);
    assert_eq!(listener.remote.ip(), right.public[0], "{}", listener.line);
    assert_eq!(connector.remote.port(), listener.local.port(), "the NAT keeps the port");
}

/// Both homes number their LAN alike, as most do: each peer's private address is the other's own.
#[test]
fn nat_masquerade_x_masquerade_with_the_same_private_addresses() {
    let test = "nat_masquerade_x_masquerade_with_the_same_private_addresses";
    let Some(mut lab) = Lab::or_skip(test) else { return };
    let server = serve(&mut lab);
    let mut homes = ["bob", "alice"].map(|name| {
        let site = lab.site(&format!("{name}-router"), Router::Masquerade, Families::V4).unwrap();
        let mut site = site.with_subnet(1);
        let host = lab.client(&mut site, name).unwrap();
        (site, host)
    });
    let [(left, bob), (right, alice)] = &mut homes;
    assert_eq!(bob.addresses, alice.addresses);
    let (listener, connector) = connects(server, bob, alice);
    assert_eq!(connector.remote.ip(), left.public[0], "{}", connector.line);
    assert_eq!(listener.remote.ip(), right.public[0], "{}", listener.line);
}

#[test]
fn nat_masquerade_x_firewall() {
    let Some(mut lab) = Lab::or_skip("nat_masquerade_x_firewall") else { return };
    let server = serve(&mut lab);
    let (left, bob) = client(&mut lab, "bob", Router::Masquerade);
    let (_right, alice) = client(&mut lab, "alice", Router::Firewall);
    let (listener, connector) = connects(server, &bob, &alice);
    assert_eq!(connector.remote.ip(), left.public[0], "{}", connector.line);
    assert_eq!(listener.remote.ip(), alice.address(), "{}", listener.line);
}

#[test]
fn firewall_x_firewall_over_ipv6() {
    let Some(mut lab) = Lab::or_skip("firewall_x_firewall_over_ipv6") else { return };
    let host = lab.host("server").unwrap();
    let mut server = Rendezvous::start(&Place::from(&host), &[]).unwrap();
    server.address.set_ip(host.ipv6().unwrap());
    let [bob, alice] = ["bob", "alice"].map(|name| {
        let mut site = lab.site(&format!("{name}-router"), Router::Firewall, Families::V6).unwrap();
        lab.client(&mut site, name).unwrap()
    });
    let (listener, connector) = connects(server, &bob, &alice);
    assert_eq!(connector.remote.ip(), bob.address(), "{}", connector.line);
    assert_eq!(listener.remote.ip(), alice.address(), "{}", listener.line);
}

#[test]
fn no_nat_x_nat_masquerade() {
    let Some(mut lab) = Lab::or_skip("no_nat_x_nat_masquerade") else { return };
    let server = serve(&mut lab);
    let bob = lab.host("bob").unwrap();
    let (right, alice) = client(&mut lab, "alice", Router::Masquerade);
    let (listener, connector) = connects(server, &bob, &alice);
    assert_eq!(connector.remote.ip(), bob.address(), "{}", connector.line);
    assert_eq!(listener.remote.ip(), right.public[0], "{}", listener.line);
}

#[test]
fn no_nat_x_nat_fully_random() {
    let Some(mut lab) = Lab::or_skip("no_nat_x_nat_fully_random") else { return };
    let server = serve(&mut lab);
    let bob = lab.host("bob").unwrap();
    let (right, alice) = client(&mut lab, "alice", Router::MasqueradeRandom);
    let (listener, connector) = connects(server, &bob, &alice);
    assert_eq!(connector.remote.ip(), bob.address(), "{}", connector.line);
    assert_eq!(listener.remote.ip(), right.public[0], "{}", listener.line);
    assert_eq!(listener.path, "prflx", "its port was learned from its check: {}", listener.line);
}

/// Impossible by plain means: the random side's port toward the peer is unknown, and the other side's filter wants it known.
#[test]
fn nat_masquerade_x_fully_random_times_out() {
    let Some(mut lab) = Lab::or_skip("nat_masquerade_x_fully_random_times_out") else { return };
    let server = serve(&mut lab);
    let (_left, bob) = client(&mut lab, "bob", Router::Masquerade);
    let (_right, alice) = client(&mut lab, "alice", Router::MasqueradeRandom);
    times_out(&server, &bob, &alice);
}

/// Impossible by any means known: both ports are unknown, and both filters want them known.
#[test]
fn nat_fully_random_x_fully_random_times_out() {
    let Some(mut lab) = Lab::or_skip("nat_fully_random_x_fully_random_times_out") else { return };
    let server = serve(&mut lab);
    let (_left, bob) = client(&mut lab, "bob", Router::MasqueradeRandom);
    let (_right, alice) = client(&mut lab, "alice", Router::MasqueradeRandom);
    times_out(&server, &bob, &alice);
}

/// Two peers behind one NAT meet on their LAN, with their private addresses; the NAT would not let them through.
#[test]
fn same_lan_behind_nat_masquerade() {
    let Some(mut lab) = Lab::or_skip("same_lan_behind_nat_masquerade") else { return };
    let server = serve(&mut lab);
    let (mut left, bob) = client(&mut lab, "bob", Router::Masquerade);
    let alice = lab.client(&mut left, "alice").unwrap();
    let (listener, connector) = connects(server, &bob, &alice);
    assert_eq!(connector.remote.ip(), bob.address(), "{}", connector.line);
    assert_eq!(listener.remote.ip(), alice.address(), "{}", listener.line);
    assert_eq!(connector.path, "host", "{}", connector.line);
}

#[test]
fn same_lan_with_the_server_on_it() {
    let Some(mut lab) = Lab::or_skip("same_lan_with_the_server_on_it") else { return };
    let (mut left, bob) = client(&mut lab, "bob", Router::Masquerade);
    let alice = lab.client(&mut left, "alice").unwrap();
    let server = Rendezvous::start(&Place::from(&lab.client(&mut left, "server").unwrap()), &[]).unwrap();
    let (listener, connector) = connects(server, &bob, &alice);
    assert_eq!(connector.remote.ip(), bob.address(), "{}", connector.line);
    assert_eq!(listener.remote.ip(), alice.address(), "{}", listener.line);
}

/// The server's port is forwarded by bob's router, so that it sees bob's private address; alice, whom nothing filters, learns
/// his public one from his check.
#[test]
fn server_on_the_lan_of_one_peer() {
    let Some(mut lab) = Lab::or_skip("server_on_the_lan_of_one_peer") else { return };
    let (mut left, bob) = client(&mut lab, "bob", Router::Masquerade);
    let alice = lab.host("alice").unwrap();
    let host = lab.client(&mut left, "server").unwrap();
    left.forward_udp(20000, &host).unwrap();
    let public = SocketAddr::new(left.public[0], 20000);
    let mut server = Rendezvous::start(&Place::from(&host), &["--advertise", &public.to_string()]).unwrap();

    let inner = server.address.to_string();
    let mut listen = Artefacts::get().holepunch();
    listen.args(["--json", "listen", "bob", "--udp", "--server", &inner]);
    let listener = bob.spawn(listen).unwrap();
    let registered = |line: &str| field(line, "event") == Some("registered");
    listener.wait_for(Stream::Err, "that it is registered", PATIENCE, registered).unwrap();
    let mut connect = Artefacts::get().holepunch();
    connect.args(["--json", "connect", "bob", "--udp", "--server", &public.to_string()]);
    let connector = alice.spawn(connect).unwrap();
    let mut pair = Pair { listener, connector };
    let (listener, connector) = pair.connected().unwrap();
    pair.exchange("from the listener", "from the connector").unwrap();
    pair.end().unwrap();
    assert_eq!(connector.remote.ip(), left.public[0], "{}", connector.line);
    assert_eq!(listener.remote.ip(), alice.address(), "{}", listener.line);
    server.program.signal("INT").unwrap();
    assert_eq!(server.program.wait(PATIENCE).unwrap().code(), Some(0), "{}", server.program.transcript());
}

/// `python -m holepunch` is the same program: it listens, and then connects, with the Rust command as the other.
#[test]
fn nat_masquerade_x_masquerade_with_the_command_of_python() {
    let test = "nat_masquerade_x_masquerade_with_the_command_of_python";
    let Some(mut lab) = Lab::or_skip(test) else { return };
    let artefacts = Artefacts::get();
    let python = || artefacts.python_holepunch();
    if let Err(why) = python() {
        return natlab::skip(test, &why);
    }
    let server = serve(&mut lab);
    let (left, bob) = client(&mut lab, "bob", Router::Masquerade);
    let (_right, alice) = client(&mut lab, "alice", Router::Masquerade);
    let (bob, alice) = (Place::from(&bob), Place::from(&alice));
    for python_listens in [true, false] {
        let (listen, connect) = match python_listens {
            true => (python().unwrap(), artefacts.holepunch()),
            false => (artefacts.holepunch(), python().unwrap()),
        };
        let mut pair = Pair::start(server.address, (&bob, listen), (&alice, connect), &["--udp"]).unwrap();
        let (_, connector) = pair.connected().unwrap();
        assert_eq!(connector.remote.ip(), left.public[0], "{}", connector.line);
        pair.exchange("from the listener", "from the connector").unwrap();
        pair.end().unwrap();
    }
}

/// The connector's NAT forgets its mapping after a second of silence, and gives it another port for the next check: the
/// listener follows, and data that only the listener sends arrives again.
#[test]
fn a_mapping_that_changes_in_the_middle_is_followed() {
    let Some(mut lab) = Lab::or_skip("a_mapping_that_changes_in_the_middle_is_followed") else { return };
    let server = serve(&mut lab);
    let bob = lab.host("bob").unwrap();
    let (right, alice) = client(&mut lab, "alice", Router::MasqueradeRandom);
    let mut pair = start(server.address, &bob, &alice, &[]);
    pair.connected().unwrap();
    pair.exchange("from the listener", "from the connector").unwrap();
    let forget_after = |seconds: &str| {
        let names = ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"];
        let settings = names.map(|name| format!("net.netfilter.{name}={seconds}"));
        let done = std::process::Command::new("ip")
            .args(["netns", "exec", right.router(), "sysctl", "-qw"])
            .args(settings)
            .status();
        assert!(done.unwrap().success());
    };
    forget_after("1");
    // The listener's line comes through again once the mapping has gone and the next check has come from another.
    pair.listener
        .wait_for(Stream::Err, "that the peer has moved", PATIENCE, |line| field(line, "event") == Some("moved"))
        .unwrap();
    forget_after("30");
    pair.listener.say("found you").unwrap();
    pair.connector.wait_for(Stream::Out, "found you", PATIENCE, |line| line == "found you").unwrap();
    pair.connector.say("so you did").unwrap();
    pair.listener.wait_for(Stream::Out, "so you did", PATIENCE, |line| line == "so you did").unwrap();
}
