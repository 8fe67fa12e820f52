//! Networks of the model that are more than two NATs, each over UDP and over TCP, with the command line in real time:
//! carriers over homes, one carrier for both, one LAN, the same private addresses, firewalls of both families, blocked
//! UDP, slow and uneven links, and mappings that die young.

mod meeting;

use meeting::{connects, fails, serve, start};
use natlab::{Artefacts, Families, Home, Host, Model, Pair, Router, Stream, field};
use netsim::{Filtering, Firewall, Link, Mapping, Nat, PortAllocation, SiteId, SiteSpec, oracle::NatKind};
use std::{net::IpAddr, thread, time::Duration};

fn link() -> Link {
    Link::delay_ms(20)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Endpoint-independent mapping, filtering by address and port, as most homes have it.
fn usual() -> Nat {
    Nat::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent, PortAllocation::Preserving)
}

/// A kind that no plain punch gets through.
fn random() -> Nat {
    NatKind::all()[26].nat()
}

/// Two homes of a model, each made by the other argument from its name.
fn two(model: &mut Model, mut home: impl FnMut(&mut Model, &str) -> Home) -> [Home; 2] {
    ["bob", "alice"].map(|name| home(model, name))
}

/// Makes a test of each transport.
macro_rules! networks {
    ($($(#[$doc:meta])* $udp:ident, $tcp:ident => $network:ident;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $udp() {
            if let Some(mut model) = Model::or_skip(stringify!($udp), 1) { $network(&mut model, "--udp") }
        }

        $(#[$doc])*
        #[test]
        fn $tcp() {
            if let Some(mut model) = Model::or_skip(stringify!($tcp), 1) { $network(&mut model, "--tcp") }
        }
    )*};
}

networks! {
    udp_carriers_over_homes, tcp_carriers_over_homes => carriers_over_homes;
    udp_one_carrier_that_hairpins, tcp_one_carrier_that_hairpins => one_carrier_that_hairpins;
    udp_one_carrier_that_does_not_hairpin, tcp_one_carrier_that_does_not_hairpin => one_carrier_that_does_not_hairpin;
    udp_one_lan_behind_any_nat, tcp_one_lan_behind_any_nat => one_lan_behind_any_nat;
    udp_same_private_addresses, tcp_same_private_addresses => same_private_addresses;
    udp_firewalls_of_ipv6, tcp_firewalls_of_ipv6 => firewalls_of_ipv6;
    udp_firewall_x_nat, tcp_firewall_x_nat => firewall_x_nat;
    udp_firewall_of_the_model_x_firewall_of_linux_ipv6, tcp_firewall_of_the_model_x_firewall_of_linux_ipv6 => firewall_x_linux_firewall;
    udp_strict_nats_and_ipv6_beside_them, tcp_strict_nats_and_ipv6_beside_them => strict_nats_and_ipv6;
    udp_no_nat_x_random_nat, tcp_no_nat_x_random_nat => no_nat_x_random_nat;
    udp_no_nat_x_no_nat, tcp_no_nat_x_no_nat => no_nat_x_no_nat;
    udp_uneven_delays, tcp_uneven_delays => uneven_delays;
    udp_far_away, tcp_far_away => far_away;
    udp_jitter, tcp_jitter => jitter;
    udp_masquerade_x_masquerade_at_a_distance, tcp_masquerade_x_masquerade_at_a_distance => linux_x_linux;
    udp_masquerade_x_firewall_at_a_distance, tcp_masquerade_x_firewall_at_a_distance => linux_x_linux_firewall;
    udp_port_block_of_a_carrier, tcp_port_block_of_a_carrier => port_blocks;
    udp_busy_nats, tcp_busy_nats => busy_nats;
}

/// Connects, and each sees the other where it should.
fn meets(model: &mut Model, [bob, alice]: [(&Host, IpAddr); 2], transport: &str) {
    let server = serve(model).unwrap();
    let (listener, connector) = connects(&server, bob.0, alice.0, &[transport], || {}).unwrap();
    assert_eq!(connector.remote.ip(), bob.1, "{}", connector.line);
    assert_eq!(listener.remote.ip(), alice.1, "{}", listener.line);
}

fn homes_meet(model: &mut Model, [bob, alice]: &[Home; 2], transport: &str) {
    meets(model, [(&bob.host, bob.public), (&alice.host, alice.public)], transport);
}

/// A home behind a carrier, whose subscriber it is under this address.
fn subscriber(model: &mut Model, carrier: SiteId, name: &str, shared: &str) -> Host {
    let (parent, public) = (Some(carrier), vec![ip(shared)]);
    let home = model.site(SiteSpec { parent, public, nat: Some(usual()), ..SiteSpec::default() });
    model.client(home, name, &[ip("192.168.1.2")], Link::PERFECT).unwrap()
}

fn carrier(model: &mut Model, public: &str, nat: Nat) -> SiteId {
    model.site(SiteSpec { public: vec![ip(public)], nat: Some(nat), link: link(), ..SiteSpec::default() })
}

fn carriers_over_homes(model: &mut Model, transport: &str) {
    let publics = ["203.0.113.1", "203.0.113.2"];
    let [bob, alice] = [("bob", publics[0]), ("alice", publics[1])].map(|(name, public)| {
        let carrier = carrier(model, public, usual());
        subscriber(model, carrier, name, "100.64.0.9")
    });
    meets(model, [(&bob, ip(publics[0])), (&alice, ip(publics[1]))], transport);
}

fn one_carrier_that_hairpins(model: &mut Model, transport: &str) {
    let carrier = carrier(model, "203.0.113.1", Nat { hairpin: true, ..usual() });
    let [bob, alice] =
        [("bob", "100.64.0.8"), ("alice", "100.64.0.9")].map(|(name, shared)| subscriber(model, carrier, name, shared));
    meets(model, [(&bob, ip("203.0.113.1")), (&alice, ip("203.0.113.1"))], transport);
}

/// Neither knows what the other is called between the two NATs, and the carrier turns nothing round: impossible.
fn one_carrier_that_does_not_hairpin(model: &mut Model, transport: &str) {
    let carrier = carrier(model, "203.0.113.1", usual());
    let [bob, alice] =
        [("bob", "100.64.0.8"), ("alice", "100.64.0.9")].map(|(name, shared)| subscriber(model, carrier, name, shared));
    let server = serve(model).unwrap();
    fails(&server, &bob, &alice, &[transport], ("timeout", 7)).unwrap();
}

fn one_lan_behind_any_nat(model: &mut Model, transport: &str) {
    let home = model.nat_home("bob", random(), link()).unwrap();
    let address = ip("192.168.1.3");
    let alice = model.client(home.site.unwrap(), "alice", &[address], Link::PERFECT).unwrap();
    meets(model, [(&home.host, home.host.address()), (&alice, address)], transport);
}

fn same_private_addresses(model: &mut Model, transport: &str) {
    let publics = ["203.0.113.1", "203.0.113.2"];
    let [bob, alice] = [("bob", publics[0]), ("alice", publics[1])].map(|(name, public)| {
        let site = carrier(model, public, usual());
        model.client(site, name, &[ip("192.168.1.2")], Link::PERFECT).unwrap()
    });
    meets(model, [(&bob, ip(publics[0])), (&alice, ip(publics[1]))], transport);
}

fn firewalls_of_ipv6(model: &mut Model, transport: &str) {
    let homes = two(model, |model, name| model.firewall_home(name, Firewall::default(), Families::V6, link()).unwrap());
    homes_meet_by_ipv6(model, &homes, transport);
}

fn homes_meet_by_ipv6(model: &mut Model, [bob, alice]: &[Home; 2], transport: &str) {
    let mut server = serve(model).unwrap();
    server.address.set_ip(ip("2001:db8::1"));
    let (listener, connector) = connects(&server, &bob.host, &alice.host, &[transport], || {}).unwrap();
    assert_eq!(connector.remote.ip(), bob.public, "{}", connector.line);
    assert_eq!(listener.remote.ip(), alice.public, "{}", listener.line);
}

fn firewall_x_nat(model: &mut Model, transport: &str) {
    let bob = model.firewall_home("bob", Firewall::default(), Families::V4, link()).unwrap();
    let alice = model.nat_home("alice", usual(), link()).unwrap();
    homes_meet(model, &[bob, alice], transport);
}

fn firewall_x_linux_firewall(model: &mut Model, transport: &str) {
    let bob = model.firewall_home("bob", Firewall::default(), Families::V6, link()).unwrap();
    let alice = model.linux_home("alice", Router::Firewall, Families::V6, link()).unwrap();
    homes_meet_by_ipv6(model, &[bob, alice], transport);
}

/// NATs that no plain punch gets through, and firewalls of IPv6, which one does.
fn strict_nats_and_ipv6(model: &mut Model, transport: &str) {
    let [bob, alice] = [("bob", 1), ("alice", 2)].map(|(name, number)| {
        let site = model.site(SiteSpec {
            public: vec![ip(&format!("198.51.100.{number}"))],
            nat: Some(random()),
            firewall: Some(Firewall::default()),
            link: link(),
            ..SiteSpec::default()
        });
        let addresses = [ip(&format!("10.0.{number}.2")), ip(&format!("2001:db8:{number}::2"))];
        model.client(site, name, &addresses, Link::PERFECT).unwrap()
    });
    meets(model, [(&bob, ip("2001:db8:1::2")), (&alice, ip("2001:db8:2::2"))], transport);
}

fn no_nat_x_random_nat(model: &mut Model, transport: &str) {
    let bob = model.open_home("bob", Families::V4, link()).unwrap();
    let alice = model.nat_home("alice", random(), link()).unwrap();
    homes_meet(model, &[bob, alice], transport);
}

fn no_nat_x_no_nat(model: &mut Model, transport: &str) {
    let homes = two(model, |model, name| model.open_home(name, Families::V4, link()).unwrap());
    homes_meet(model, &homes, transport);
}

fn uneven_delays(model: &mut Model, transport: &str) {
    let bob = model.nat_home("bob", usual(), Link::PERFECT).unwrap();
    let alice = model.nat_home("alice", usual(), Link::delay_ms(150)).unwrap();
    homes_meet(model, &[bob, alice], transport);
}

fn far_away(model: &mut Model, transport: &str) {
    let homes = two(model, |model, name| model.nat_home(name, usual(), Link::delay_ms(150)).unwrap());
    homes_meet(model, &homes, transport);
}

fn jitter(model: &mut Model, transport: &str) {
    let link = link().with_jitter(Duration::from_millis(20));
    let homes = two(model, |model, name| model.nat_home(name, usual(), link).unwrap());
    homes_meet(model, &homes, transport);
}

fn linux_x_linux(model: &mut Model, transport: &str) {
    let homes = two(model, |model, name| model.linux_home(name, Router::Masquerade, Families::V4, link()).unwrap());
    homes_meet(model, &homes, transport);
}

fn linux_x_linux_firewall(model: &mut Model, transport: &str) {
    let bob = model.linux_home("bob", Router::Masquerade, Families::V4, link()).unwrap();
    let alice = model.linux_home("alice", Router::Firewall, Families::V4, link()).unwrap();
    homes_meet(model, &[bob, alice], transport);
}

/// A carrier that gives its subscriber 512 ports (RFC 7422).
fn port_blocks(model: &mut Model, transport: &str) {
    let homes = two(model, |model, name| {
        let nat = Nat { allocation: PortAllocation::Random, ports: 2048..=2559, ..usual() };
        model.nat_home(name, nat, link()).unwrap()
    });
    homes_meet(model, &homes, transport);
}

/// Nine in ten ports are taken by others, so that a preserving NAT seldom preserves.
fn busy_nats(model: &mut Model, transport: &str) {
    let neighbours = Some(netsim::Neighbours { rate: 50.0, burst: 4, taken: 0.9 });
    let homes = two(model, |model, name| model.nat_home(name, Nat { neighbours, ..usual() }, link()).unwrap());
    homes_meet(model, &homes, transport);
}

/// What some home routers do: forget a mapping after 30 s, and not keep it for what comes in.
fn forgetful(model: &mut Model) -> [Home; 2] {
    let nat = Nat { lifetime: LIFETIME, inbound_refresh: false, ..usual() };
    two(model, |model, name| model.nat_home(name, nat.clone(), link()).unwrap())
}

const LIFETIME: Duration = Duration::from_secs(30);

#[test]
fn udp_a_connection_outlives_its_mappings() {
    let Some(mut model) = Model::or_skip("udp_a_connection_outlives_its_mappings", 2) else { return };
    let [bob, alice] = forgetful(&mut model);
    let server = serve(&mut model).unwrap();
    let wait = || thread::sleep(LIFETIME + Duration::from_secs(3));
    connects(&server, &bob.host, &alice.host, &["--udp"], wait).unwrap();
}

#[test]
fn udp_a_listener_outlives_its_mapping() {
    let Some(mut model) = Model::or_skip("udp_a_listener_outlives_its_mapping", 2) else { return };
    let [bob, alice] = forgetful(&mut model);
    let server = serve(&mut model).unwrap();
    let peer = |host: &Host, verb: &str| {
        let mut command = Artefacts::get().holepunch();
        command.args(["--json", verb, "bob", "--udp", "--server", &server.address.to_string()]);
        host.spawn(command).unwrap()
    };
    let listener = peer(&bob.host, "listen");
    let registered = |line: &str| field(line, "event") == Some("registered");
    listener.wait_for(Stream::Err, "that it is registered", Duration::from_secs(20), registered).unwrap();
    thread::sleep(LIFETIME + Duration::from_secs(3));
    let mut pair = Pair { listener, connector: peer(&alice.host, "connect") };
    pair.connected().unwrap();
    pair.exchange("found", "as ever").unwrap();
    pair.end().unwrap();
}

/// They are introduced over TCP; but `--udp` cannot be had where one side's UDP is blocked, and the error says so.
#[test]
fn udp_where_it_is_blocked_is_a_typed_error() {
    let Some(mut model) = Model::or_skip("udp_where_it_is_blocked_is_a_typed_error", 3) else { return };
    let bob = model.nat_home("bob", usual(), link()).unwrap();
    let alice = model.nat_home("alice", Nat { block_udp: true, ..usual() }, link()).unwrap();
    let server = serve(&mut model).unwrap();
    fails(&server, &bob.host, &alice.host, &["--udp"], ("timeout", 7)).unwrap();
}

/// The command of Python on either side.
#[test]
fn udp_and_tcp_with_the_command_of_python() {
    let test = "udp_and_tcp_with_the_command_of_python";
    let artefacts = Artefacts::get();
    if let Err(why) = artefacts.python_holepunch() {
        return natlab::skip(test, &why);
    }
    let Some(mut model) = Model::or_skip(test, 4) else { return };
    let server = serve(&mut model).unwrap();
    let bob = model.nat_home("bob", usual(), link()).unwrap();
    let alice = model.nat_home("alice", NatKind::all()[5].nat(), link()).unwrap();
    for transport in ["--udp", "--tcp"] {
        for python_listens in [true, false] {
            let python = artefacts.python_holepunch().unwrap();
            let (listen, connect) =
                if python_listens { (python, artefacts.holepunch()) } else { (artefacts.holepunch(), python) };
            let mut pair = start(&server, (&bob.host, listen), (&alice.host, connect), &[transport]).unwrap();
            let (_, connector) = pair.connected().unwrap();
            assert_eq!(connector.remote.ip(), bob.public, "{}", connector.line);
            pair.exchange("from the listener", "from the connector").unwrap();
            pair.end().unwrap();
        }
    }
}

/// A stream needs no UDP: not to the server, and not to the peer.
#[test]
fn tcp_where_udp_is_blocked_on_both_sides() {
    let Some(mut model) = Model::or_skip("tcp_where_udp_is_blocked_on_both_sides", 5) else { return };
    let blocking = Nat { block_udp: true, ..usual() };
    let homes = two(&mut model, |model, name| model.nat_home(name, blocking.clone(), link()).unwrap());
    homes_meet(&mut model, &homes, "--tcp");
}

#[test]
fn tcp_where_udp_is_blocked_on_one_side() {
    let Some(mut model) = Model::or_skip("tcp_where_udp_is_blocked_on_one_side", 6) else { return };
    let bob = model.nat_home("bob", usual(), link()).unwrap();
    let alice = model.nat_home("alice", Nat { block_udp: true, ..usual() }, link()).unwrap();
    homes_meet(&mut model, &[bob, alice], "--tcp");
}
