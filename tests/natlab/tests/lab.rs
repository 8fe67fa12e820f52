//! The lab itself, with bare sockets: each router maps and filters as its name says, and nothing is left behind.

use natlab::{Families, Host, Lab, Router, Site};
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

/// Long enough for a datagram that is on its way, short enough to wait for one that must not come.
const SOON: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_millis(150);

fn socket(host: &Host, port: u16) -> UdpSocket {
    let address = SocketAddr::new(host.address(), port);
    host.within(|| UdpSocket::bind(address)).unwrap().unwrap()
}

/// What arrives within `patience`, and from where.
fn receive(socket: &UdpSocket, patience: Duration) -> Option<(Vec<u8>, SocketAddr)> {
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 64];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => return Some((buffer[..length].to_vec(), from)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The address that `outside` sees when `inside` sends to it.
fn mapped(inside: &UdpSocket, outside: &UdpSocket) -> SocketAddr {
    inside.send_to(b"hello", outside.local_addr().unwrap()).unwrap();
    receive(outside, SOON).expect("a datagram from the inside").1
}

fn site(lab: &mut Lab, name: &str, kind: Router, families: Families) -> (Site, Host) {
    let mut site = lab.site(name, kind, families).unwrap();
    let client = lab.client(&mut site, &format!("{name}-client")).unwrap();
    (site, client)
}

#[test]
fn masquerade_keeps_the_port_toward_every_destination() {
    let Some(mut lab) = Lab::or_skip("masquerade_keeps_the_port_toward_every_destination") else { return };
    let (one, two) = (lab.host("one").unwrap(), lab.host("two").unwrap());
    let (left, client) = site(&mut lab, "left", Router::Masquerade, Families::V4);
    let inside = socket(&client, 5000);
    let expected = SocketAddr::new(left.public[0], 5000);
    for outside in [socket(&one, 7000), socket(&one, 7001), socket(&two, 7000)] {
        assert_eq!(mapped(&inside, &outside), expected);
        outside.send_to(b"answer", expected).unwrap();
        assert_eq!(receive(&inside, SOON).unwrap().0, b"answer");
    }
}

#[test]
fn masquerade_moves_a_port_that_another_host_has() {
    let Some(mut lab) = Lab::or_skip("masquerade_moves_a_port_that_another_host_has") else { return };
    let server = lab.host("server").unwrap();
    let (mut left, first) = site(&mut lab, "left", Router::Masquerade, Families::V4);
    let second = lab.client(&mut left, "second").unwrap();
    let outside = socket(&server, 7000);
    assert_eq!(mapped(&socket(&first, 5000), &outside).port(), 5000);
    assert_ne!(mapped(&socket(&second, 5000), &outside).port(), 5000);
}

#[test]
fn fully_random_draws_a_port_for_every_destination() {
    let Some(mut lab) = Lab::or_skip("fully_random_draws_a_port_for_every_destination") else { return };
    let server = lab.host("server").unwrap();
    let (left, client) = site(&mut lab, "left", Router::MasqueradeRandom, Families::V4);
    let inside = socket(&client, 5000);
    let mut ports: Vec<u16> = (7000..7004)
        .map(|port| {
            let seen = mapped(&inside, &socket(&server, port));
            assert_eq!(seen.ip(), left.public[0]);
            seen.port()
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    // Four draws from some 64,000 that give less than three values are no accident.
    assert!(ports.len() >= 3, "{ports:?}");
}

/// Only what the inside spoke to may speak to it, by address and port, and an early stranger changes nothing.
fn filters_by_address_and_port(test: &str, kind: Router, families: Families) {
    let Some(mut lab) = Lab::or_skip(test) else { return };
    let v6 = families == Families::V6;
    let pick = |host: &Host| if v6 { host.ipv6().unwrap() } else { host.address() };
    let bind = |host: &Host, port: u16| {
        let address: IpAddr = pick(host);
        host.within(|| UdpSocket::bind((address, port))).unwrap().unwrap()
    };
    let (server, stranger) = (lab.host("server").unwrap(), lab.host("stranger").unwrap());
    let (left, client) = site(&mut lab, "left", kind, families);
    let inside = bind(&client, 5000);
    let outer = SocketAddr::new(if kind.translates() { left.public[0] } else { pick(&client) }, 5000);

    // A stranger who comes first is dropped, and so is what the router itself is asked.
    let (outside, other_port, other_host) = (bind(&server, 7000), bind(&server, 7001), bind(&stranger, 7000));
    outside.send_to(b"early", outer).unwrap();
    outside.send_to(b"router", SocketAddr::new(left.public[0], 9)).unwrap();
    assert_eq!(receive(&inside, NEVER), None);

    // The early datagram has not moved the mapping.
    assert_eq!(mapped(&inside, &outside), outer);
    other_port.send_to(b"other port", outer).unwrap();
    other_host.send_to(b"other host", outer).unwrap();
    outside.send_to(b"answer", outer).unwrap();
    assert_eq!(receive(&inside, SOON).unwrap(), (b"answer".to_vec(), outside.local_addr().unwrap()));
    assert_eq!(receive(&inside, NEVER), None);
}

#[test]
fn masquerade_filters_by_address_and_port() {
    filters_by_address_and_port("masquerade_filters_by_address_and_port", Router::Masquerade, Families::V4);
}

#[test]
fn firewall_filters_by_address_and_port() {
    filters_by_address_and_port("firewall_filters_by_address_and_port", Router::Firewall, Families::V4);
}

#[test]
fn firewall_filters_ipv6_by_address_and_port() {
    filters_by_address_and_port("firewall_filters_ipv6_by_address_and_port", Router::Firewall, Families::V6);
}

#[test]
fn an_unsolicited_syn_is_dropped_or_reset() {
    let Some(mut lab) = Lab::or_skip("an_unsolicited_syn_is_dropped_or_reset") else { return };
    let server = lab.host("server").unwrap();
    for (name, kind, expected) in [
        ("drops", Router::Masquerade, io::ErrorKind::TimedOut),
        ("resets", Router::MasqueradeReset, io::ErrorKind::ConnectionRefused),
    ] {
        let (home, _client) = site(&mut lab, name, kind, Families::V4);
        let target = SocketAddr::new(home.public[0], 9);
        let error = server.within(|| TcpStream::connect_timeout(&target, NEVER)).unwrap().unwrap_err();
        assert_eq!(error.kind(), expected, "{name}");
    }
}

#[test]
fn hosts_on_one_lan_reach_each_other_past_the_router() {
    let Some(mut lab) = Lab::or_skip("hosts_on_one_lan_reach_each_other_past_the_router") else { return };
    let (mut left, first) = site(&mut lab, "left", Router::Masquerade, Families::V4);
    let second = lab.client(&mut left, "second").unwrap();
    let (near, far) = (socket(&first, 5000), socket(&second, 5000));
    assert_eq!(mapped(&near, &far), near.local_addr().unwrap());
}

#[test]
fn a_private_address_means_nothing_on_the_internet() {
    let Some(mut lab) = Lab::or_skip("a_private_address_means_nothing_on_the_internet") else { return };
    let (_left, near) = site(&mut lab, "left", Router::Masquerade, Families::V4);
    let (_right, far) = site(&mut lab, "right", Router::Masquerade, Families::V4);
    let (near, far) = (socket(&near, 5000), socket(&far, 5000));
    near.send_to(b"hello", far.local_addr().unwrap()).unwrap();
    assert_eq!(receive(&far, NEVER), None);
}

#[test]
fn a_forwarded_port_reaches_the_inside() {
    let Some(mut lab) = Lab::or_skip("a_forwarded_port_reaches_the_inside") else { return };
    let peer = lab.host("peer").unwrap();
    let (left, server) = site(&mut lab, "left", Router::Masquerade, Families::V4);
    left.forward_udp(7000, &server).unwrap();
    let (inside, outside) = (socket(&server, 7000), socket(&peer, 5000));
    outside.send_to(b"hello", (left.public[0], 7000)).unwrap();
    let (_, from) = receive(&inside, SOON).unwrap();
    inside.send_to(b"answer", from).unwrap();
    assert_eq!(receive(&outside, SOON).unwrap().1, SocketAddr::new(left.public[0], 7000));
}

fn namespaces() -> String {
    String::from_utf8(Command::new("ip").args(["netns", "list"]).output().unwrap().stdout).unwrap()
}

#[test]
fn a_dropped_lab_leaves_nothing_and_its_programs_are_killed() {
    let Some(mut lab) = Lab::or_skip("a_dropped_lab_leaves_nothing_and_its_programs_are_killed") else { return };
    let (left, client) = site(&mut lab, "left", Router::Masquerade, Families::V4);
    let mut command = Command::new("sh");
    command.args(["-c", "echo ready; exec cat"]);
    let mut program = client.spawn(command).unwrap();
    program.wait_for(natlab::Stream::Out, "ready", SOON, |line| line == "ready").unwrap();
    assert!(namespaces().contains(left.router()) && namespaces().contains(client.namespace()));
    let names = [left.router().to_owned(), client.namespace().to_owned()];
    drop(lab);
    assert!(!names.iter().any(|name| namespaces().contains(name)));
    assert_eq!(program.wait(SOON).unwrap().code(), None, "it was killed by a signal");
}

#[test]
fn a_lab_whose_process_is_killed_leaves_nothing() {
    let Some(_allowed) = Lab::or_skip("a_lab_whose_process_is_killed_leaves_nothing") else { return };
    // The last with the network model in it.
    for (signal, options) in [("INT", &[][..]), ("TERM", &[]), ("KILL", &[]), ("KILL", &["--delay", "1"])] {
        // Tests that were started in the background ignore SIGINT, and so would the program.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_natlab"), "run"]).args(options).args([
            "--",
            "sh",
            "-c",
            "echo namespace $NATLAB_LEFT; exec ip netns exec $NATLAB_LEFT cat",
        ]);
        let mut program = natlab::Program::spawn("natlab", command).unwrap();
        let line = program
            .wait_for(natlab::Stream::Out, "its namespace", SOON, |line| line.starts_with("namespace "))
            .unwrap();
        let name = line.trim_start_matches("namespace ").to_owned();
        assert!(namespaces().contains(&name));
        program.signal(signal).unwrap();
        // The program inside holds the output open until the reaper has killed it.
        program.wait(SOON).unwrap();
        let gone = std::iter::repeat_with(namespaces).take(1000).any(|list| !list.contains(&name));
        assert!(gone, "{name} is still there after SIG{signal}");
    }
}
