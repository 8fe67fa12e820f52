//! Streams through real NATs and firewalls, with the command line: simultaneous open behind Linux's own connection
//! tracking, which is what no model of a NAT is trusted to be.

use natlab::{Artefacts, Families, Host, Lab, Pair, Place, Rendezvous, Router, Site, Stream, field};
use std::{net::IpAddr, time::Duration};

fn client(lab: &mut Lab, name: &str, kind: Router, families: Families) -> (Site, Host) {
    let mut site = lab.site(&format!("{name}-router"), kind, families).unwrap();
    let host = lab.client(&mut site, name).unwrap();
    (site, host)
}

/// Connects over TCP, sends both ways, ends both ways: the address that the connector sees, and the listener.
fn connects(server: &Rendezvous, listener: &Host, connector: &Host) -> (IpAddr, IpAddr) {
    let command = || Artefacts::get().holepunch();
    let sides = ((&listener.into(), command()), (&connector.into(), command()));
    let mut pair = Pair::start(server.address, sides.0, sides.1, &["--tcp"]).unwrap();
    let (from_listener, from_connector) = pair.connected().unwrap();
    for report in [&from_listener, &from_connector] {
        assert_eq!(field(&report.line, "transport"), Some("tcp"), "{}", report.line);
        assert_eq!(field(&report.line, "strategy"), Some("tcp_simultaneous_open"), "{}", report.line);
    }
    pair.exchange("from the listener", "from the connector").unwrap();
    pair.end().unwrap();
    (from_connector.remote.ip(), from_listener.remote.ip())
}

/// How the listener of a pair was registered.
fn via(pair: &Pair) -> String {
    let is_registered = |line: &str| field(line, "event") == Some("registered");
    let line = pair.listener.wait_for(Stream::Err, "that it is registered", Duration::from_secs(1), is_registered);
    field(&line.unwrap(), "via").unwrap_or_default().to_owned()
}

fn serve(lab: &mut Lab) -> (Host, Rendezvous) {
    let host = lab.host("server").unwrap();
    let server = Rendezvous::start(&Place::from(&host), &[]).unwrap();
    (host, server)
}

#[test]
fn tcp_masquerade_x_masquerade() {
    let Some(mut lab) = Lab::or_skip("tcp_masquerade_x_masquerade") else { return };
    let (_host, server) = serve(&mut lab);
    let (left, bob) = client(&mut lab, "bob", Router::Masquerade, Families::V4);
    let (right, alice) = client(&mut lab, "alice", Router::Masquerade, Families::V4);
    for _ in 0..5 {
        assert_eq!(connects(&server, &bob, &alice), (left.public[0], right.public[0]));
    }
}

#[test]
fn tcp_masquerade_x_firewall() {
    let Some(mut lab) = Lab::or_skip("tcp_masquerade_x_firewall") else { return };
    let (_host, server) = serve(&mut lab);
    let (left, bob) = client(&mut lab, "bob", Router::Masquerade, Families::V4);
    let (_right, alice) = client(&mut lab, "alice", Router::Firewall, Families::V4);
    assert_eq!(connects(&server, &bob, &alice), (left.public[0], alice.address()));
}

#[test]
fn tcp_firewall_x_firewall_over_ipv6() {
    let Some(mut lab) = Lab::or_skip("tcp_firewall_x_firewall_over_ipv6") else { return };
    let (host, mut server) = serve(&mut lab);
    server.address.set_ip(host.ipv6().unwrap());
    let (_left, bob) = client(&mut lab, "bob", Router::Firewall, Families::V6);
    let (_right, alice) = client(&mut lab, "alice", Router::Firewall, Families::V6);
    assert_eq!(connects(&server, &bob, &alice), (bob.address(), alice.address()));
}

#[test]
fn tcp_no_nat_x_masquerade() {
    let Some(mut lab) = Lab::or_skip("tcp_no_nat_x_masquerade") else { return };
    let (_host, server) = serve(&mut lab);
    let bob = lab.host("bob").unwrap();
    let (right, alice) = client(&mut lab, "alice", Router::Masquerade, Families::V4);
    assert_eq!(connects(&server, &bob, &alice), (bob.address(), right.public[0]));
}

#[test]
fn tcp_on_one_lan() {
    let Some(mut lab) = Lab::or_skip("tcp_on_one_lan") else { return };
    let (_host, server) = serve(&mut lab);
    let mut home = lab.site("home-router", Router::Masquerade, Families::V4).unwrap();
    let bob = lab.client(&mut home, "bob").unwrap();
    let alice = lab.client(&mut home, "alice").unwrap();
    assert_eq!(connects(&server, &bob, &alice), (bob.address(), alice.address()));
}

#[test]
fn tcp_where_udp_is_blocked() {
    for blocked in [[false, true], [true, false], [true, true]] {
        let Some(mut lab) = Lab::or_skip("tcp_where_udp_is_blocked") else { return };
        let (_host, server) = serve(&mut lab);
        let (left, bob) = client(&mut lab, "bob", Router::Masquerade, Families::V4);
        let (right, alice) = client(&mut lab, "alice", Router::Masquerade, Families::V4);
        for (site, blocked) in [&left, &right].into_iter().zip(blocked) {
            if blocked {
                site.block_udp().unwrap();
            }
        }
        let command = || Artefacts::get().holepunch();
        let sides = ((&Place::from(&bob), command()), (&Place::from(&alice), command()));
        let mut pair = Pair::start(server.address, sides.0, sides.1, &["--tcp"]).unwrap();
        let (from_listener, from_connector) = pair.connected().unwrap();
        assert_eq!(via(&pair), if blocked[0] { "tcp" } else { "udp" });
        let seen = (from_connector.remote.ip(), from_listener.remote.ip());
        assert_eq!(seen, (left.public[0], right.public[0]));
        pair.exchange("from the listener", "from the connector").unwrap();
        pair.end().unwrap();
    }
}

#[test]
fn tcp_where_the_system_refuses_udp() {
    let Some(mut lab) = Lab::or_skip("tcp_where_the_system_refuses_udp") else { return };
    let (_host, server) = serve(&mut lab);
    let bob = lab.host("bob").unwrap();
    let (right, alice) = client(&mut lab, "alice", Router::Masquerade, Families::V4);
    bob.refuse_udp().unwrap();
    alice.refuse_udp().unwrap();
    let command = || Artefacts::get().holepunch();
    let sides = ((&Place::from(&bob), command()), (&Place::from(&alice), command()));
    let mut pair = Pair::start(server.address, sides.0, sides.1, &["--tcp"]).unwrap();
    let (from_listener, from_connector) = pair.connected().unwrap();
    assert_eq!(via(&pair), "tcp");
    assert_eq!((from_connector.remote.ip(), from_listener.remote.ip()), (bob.address(), right.public[0]));
    pair.exchange("from the listener", "from the connector").unwrap();
    pair.end().unwrap();
}
