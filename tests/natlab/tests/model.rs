//! The network model in real time, with bare sockets: it delays, loses, translates and filters as it does in virtual
//! time.

use natlab::{Families, Home, Host, Model, Router};
use netsim::{Filtering, Firewall, Link, Mapping, Nat, PortAllocation, UnsolicitedSyn, oracle::NatKind};
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

/// Long enough for a packet that is on its way, short enough to wait for one that must not come.
const SOON: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_millis(150);

const DELAY: Duration = Duration::from_millis(20);

fn link() -> Link {
    Link { delay: DELAY, ..Link::PERFECT }
}

fn bind(host: &Host, address: IpAddr, port: u16) -> UdpSocket {
    let socket = host.within(|| UdpSocket::bind((address, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn socket(host: &Host, port: u16) -> UdpSocket {
    bind(host, host.address(), port)
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

/// The error that a receive ends with, which is not that it was interrupted.
fn receive_error(socket: &UdpSocket) -> io::ErrorKind {
    let mut errors = std::iter::repeat_with(|| socket.recv(&mut [0; 8]).expect_err("nobody answers").kind());
    errors.find(|kind| *kind != io::ErrorKind::Interrupted).expect("it is endless")
}

/// The address that `outside` sees when `inside` sends to it.
fn mapped(inside: &UdpSocket, outside: &UdpSocket) -> SocketAddr {
    inside.send_to(b"hello", outside.local_addr().unwrap()).unwrap();
    receive(outside, SOON).expect("a datagram from the inside").1
}

fn nat(mapping: Mapping, filtering: Filtering) -> Nat {
    Nat::new(mapping, filtering, PortAllocation::Random)
}

const STRICT: (Mapping, Filtering) = (Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);

fn strict() -> Nat {
    nat(STRICT.0, STRICT.1)
}

#[test]
fn delays_are_those_of_the_links() {
    let Some(mut model) = Model::or_skip("delays_are_those_of_the_links", 1) else { return };
    let server = model.server().unwrap();
    let near = model.nat_home("near", strict(), link()).unwrap();
    let (inside, outside) = (socket(&near.host, 5000), socket(&server, 7000));
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        let outer = mapped(&inside, &outside);
        outside.send_to(b"answer", outer).unwrap();
        receive(&inside, SOON).unwrap();
        best = best.min(start.elapsed());
    }
    assert!(best >= DELAY * 2, "{best:?} is faster than the link");
    assert!(best < DELAY * 2 + Duration::from_millis(3), "{best:?} is slow");
}

#[test]
fn a_host_has_the_addresses_it_was_given() {
    let Some(mut model) = Model::or_skip("a_host_has_the_addresses_it_was_given", 1) else { return };
    let near = model.nat_home("near", strict(), link()).unwrap();
    let shown = Command::new("ip").args(["-n", near.host.namespace(), "-oneline", "address", "show", "eth0"]).output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    let addresses: Vec<_> = shown.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
    assert_eq!(addresses, [format!("{}/32", near.host.address())], "{shown}");
}

#[test]
fn jitter_and_loss_are_those_of_the_links() {
    let Some(mut model) = Model::or_skip("jitter_and_loss_are_those_of_the_links", 7) else { return };
    let server = model.server().unwrap();
    let jittery = Link { jitter: DELAY, ..link() }.with_loss(0.2);
    let near = model.open_home("near", Families::V4, jittery).unwrap();
    let (inside, outside) = (socket(&near.host, 5000), socket(&server, 7000));
    let sent = 1000_u32;
    for number in 0..sent {
        inside.send_to(&number.to_be_bytes(), outside.local_addr().unwrap()).unwrap();
    }
    let arrived: Vec<_> = std::iter::from_fn(|| receive(&outside, NEVER)).map(|(bytes, _)| bytes).collect();
    // Four standard deviations of a binomial distribution are 51.
    assert!((749..=851).contains(&arrived.len()), "{} of {sent} arrived", arrived.len());
    assert!(!arrived.is_sorted(), "jitter reorders");
}

#[test]
fn nats_map_and_filter_in_every_way() {
    let Some(mut model) = Model::or_skip("nats_map_and_filter_in_every_way", 3) else { return };
    let server = model.server().unwrap();
    let other: IpAddr = "192.0.2.2".parse().unwrap();
    let other = model.host("other", &[other], Link::PERFECT).unwrap();
    let outsides = [socket(&server, 7000), socket(&server, 7001), socket(&other, 7000)];
    for (number, (mapping, filtering)) in [
        (Mapping::EndpointIndependent, Filtering::EndpointIndependent),
        (Mapping::AddressDependent, Filtering::AddressDependent),
        (Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent),
    ]
    .into_iter()
    .enumerate()
    {
        let home = model.nat_home(&format!("home{number}"), nat(mapping, filtering), Link::PERFECT).unwrap();
        let inside = socket(&home.host, 5000);
        let first = mapped(&inside, &outsides[0]);
        assert_eq!(first.ip(), home.public);
        // Filtering: before the inside has spoken to them.
        let heard = [1, 2].map(|index: usize| {
            outsides[index].send_to(b"stranger", first).unwrap();
            receive(&inside, NEVER).is_some()
        });
        let expected = match filtering {
            Filtering::EndpointIndependent => [true, true],
            Filtering::AddressDependent => [true, false],
            Filtering::AddressAndPortDependent => [false, false],
        };
        assert_eq!(heard, expected, "{filtering:?}");
        // Mapping: from another socket, which nobody has spoken to.
        let inside = socket(&home.host, 5001);
        let [first, port, address] = [0, 1, 2].map(|index: usize| mapped(&inside, &outsides[index]));
        let same = [first == port, first == address];
        let expected = match mapping {
            Mapping::EndpointIndependent => [true, true],
            Mapping::AddressDependent => [true, false],
            Mapping::AddressAndPortDependent => [false, false],
        };
        assert_eq!(same, expected, "{mapping:?}");
    }
}

#[test]
fn some_packets_may_be_held() {
    let Some(mut model) = Model::or_skip("some_packets_may_be_held", 2) else { return };
    let server = model.server().unwrap();
    let home = model.nat_home("home", strict(), Link::PERFECT).unwrap();
    let (inside, outside) = (socket(&home.host, 5000), socket(&server, 7000));
    model.hold(|packet| if packet.payload[0] == b'l' { DELAY } else { Duration::ZERO });
    let start = Instant::now();
    for text in ["late", "early"] {
        inside.send_to(text.as_bytes(), outside.local_addr().unwrap()).unwrap();
    }
    let arrived = [(); 2].map(|()| receive(&outside, SOON).unwrap().0);
    assert_eq!(arrived, [b"early".to_vec(), b"late".to_vec()]);
    assert!(start.elapsed() >= DELAY);
}

#[test]
fn mappings_die_of_silence() {
    let Some(mut model) = Model::or_skip("mappings_die_of_silence", 4) else { return };
    let server = model.server().unwrap();
    let nat = Nat { lifetime: Duration::from_millis(300), ..strict() };
    let home = model.nat_home("home", nat, Link::PERFECT).unwrap();
    let (inside, outside) = (socket(&home.host, 5000), socket(&server, 7000));
    let outer = mapped(&inside, &outside);
    outside.send_to(b"answer", outer).unwrap();
    assert!(receive(&inside, SOON).is_some());
    assert_eq!(receive(&inside, Duration::from_millis(500)), None);
    outside.send_to(b"late", outer).unwrap();
    assert_eq!(receive(&inside, NEVER), None);
    assert_ne!(mapped(&inside, &outside), outer, "the port is drawn anew");
}

#[test]
fn a_datagram_to_a_closed_port_is_refused_through_the_nat() {
    let Some(mut model) = Model::or_skip("a_datagram_to_a_closed_port_is_refused_through_the_nat", 5) else { return };
    let server = model.server().unwrap();
    let home = model.nat_home("home", strict(), link()).unwrap();
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let Some(local) = home.host.addresses.iter().copied().find(family) else { continue };
        let inside = bind(&home.host, local, 5000);
        inside.connect((*server.addresses.iter().find(|address| family(address)).unwrap(), 9)).unwrap();
        inside.send(b"anybody?").unwrap();
        assert_eq!(receive_error(&inside), io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn a_firewall_of_both_families_lets_answers_in_and_nothing_else() {
    let test = "a_firewall_of_both_families_lets_answers_in_and_nothing_else";
    let Some(mut model) = Model::or_skip(test, 6) else { return };
    let server = model.server().unwrap();
    let home = model.firewall_home("home", Firewall::default(), Families::Both, link()).unwrap();
    for (own, other) in home.host.addresses.iter().zip(&server.addresses) {
        let (inside, outside) = (bind(&home.host, *own, 5000), bind(&server, *other, 7000));
        outside.send_to(b"stranger", (*own, 5000)).unwrap();
        assert_eq!(receive(&inside, NEVER), None);
        assert_eq!(mapped(&inside, &outside), SocketAddr::new(*own, 5000));
        outside.send_to(b"answer", (*own, 5000)).unwrap();
        assert_eq!(receive(&inside, SOON).unwrap().0, b"answer");
        let closed = bind(&home.host, *own, 5001);
        closed.connect((*other, 9)).unwrap();
        closed.send(b"anybody?").unwrap();
        assert_eq!(receive_error(&closed), io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn blocked_udp_does_not_pass_and_tcp_does() {
    let Some(mut model) = Model::or_skip("blocked_udp_does_not_pass_and_tcp_does", 8) else { return };
    let server = model.server().unwrap();
    let home = model.nat_home("home", Nat { block_udp: true, ..strict() }, link()).unwrap();
    let (inside, outside) = (socket(&home.host, 5000), socket(&server, 7000));
    inside.send_to(b"hello", outside.local_addr().unwrap()).unwrap();
    assert_eq!(receive(&outside, NEVER), None);
    let listener = server.within(|| TcpListener::bind((server.address(), 7000))).unwrap().unwrap();
    stream(&home, &listener);
}

/// Opens a stream from a home, and sends more than a window both ways; how long the opening took.
fn stream(home: &Home, listener: &TcpListener) -> Duration {
    use std::io::{Read as _, Write as _};
    const SIZE: usize = 300_000;

    let target = listener.local_addr().unwrap();
    let start = Instant::now();
    let mut near = home.host.within(|| TcpStream::connect_timeout(&target, SOON)).unwrap().unwrap();
    let took = start.elapsed();
    let (mut far, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), home.public);
    let writing = std::thread::spawn(move || {
        far.write_all(&[7; SIZE]).unwrap();
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        received
    });
    let mut received = vec![0; SIZE];
    near.read_exact(&mut received).unwrap();
    assert!(received.iter().all(|byte| *byte == 7));
    near.write_all(&[9; SIZE]).unwrap();
    drop(near);
    assert_eq!(writing.join().unwrap(), [9; SIZE]);
    took
}

#[test]
fn streams_pass_nats_and_take_the_time_of_the_links() {
    let Some(mut model) = Model::or_skip("streams_pass_nats_and_take_the_time_of_the_links", 9) else { return };
    let server = model.server().unwrap();
    let listener = server.within(|| TcpListener::bind((server.address(), 7000))).unwrap().unwrap();
    let home = model.nat_home("home", nat(Mapping::AddressDependent, Filtering::AddressDependent), link()).unwrap();
    let took = stream(&home, &listener);
    assert!((DELAY * 2..DELAY * 3).contains(&took), "{took:?}");
}

#[test]
fn an_unsolicited_syn_is_dropped_or_reset() {
    let Some(mut model) = Model::or_skip("an_unsolicited_syn_is_dropped_or_reset", 10) else { return };
    let server = model.server().unwrap();
    for (name, unsolicited_syn, expected) in [
        ("drops", UnsolicitedSyn::Drop, io::ErrorKind::TimedOut),
        ("resets", UnsolicitedSyn::Reset, io::ErrorKind::ConnectionRefused),
    ] {
        let home = model.nat_home(name, Nat { unsolicited_syn, ..strict() }, Link::PERFECT).unwrap();
        let target = SocketAddr::new(home.public, 9);
        let error = server.within(|| TcpStream::connect_timeout(&target, NEVER)).unwrap().unwrap_err();
        assert_eq!(error.kind(), expected, "{name}");
    }
}

#[test]
fn a_nat_hairpins_if_it_is_told_to() {
    let Some(mut model) = Model::or_skip("a_nat_hairpins_if_it_is_told_to", 11) else { return };
    let server = model.server().unwrap();
    let outside = socket(&server, 7000);
    for hairpin in [false, true] {
        let nat = Nat { hairpin, ..nat(Mapping::EndpointIndependent, Filtering::EndpointIndependent) };
        let home = model.nat_home(&format!("home-{hairpin}"), nat, Link::PERFECT).unwrap();
        let second: IpAddr = "192.168.200.3".parse().unwrap();
        let second = model.client(home.site.unwrap(), &format!("second-{hairpin}"), &[second], Link::PERFECT).unwrap();
        let (first, second) = (socket(&home.host, 5000), socket(&second, 5000));
        let outer = [mapped(&first, &outside), mapped(&second, &outside)];
        first.send_to(b"neighbour", outer[1]).unwrap();
        let expected = hairpin.then(|| (b"neighbour".to_vec(), outer[0]));
        assert_eq!(receive(&second, if hairpin { SOON } else { NEVER }), expected);
    }
}

#[test]
fn linux_routers_attach_to_the_model() {
    let Some(mut model) = Model::or_skip("linux_routers_attach_to_the_model", 12) else { return };
    let server = model.server().unwrap();
    let outside = socket(&server, 7000);
    let start = Instant::now();
    let home = model.linux_home("linux", Router::Masquerade, Families::V4, link()).unwrap();
    let inside = socket(&home.host, 5000);
    let outer = mapped(&inside, &outside);
    assert_eq!(outer, SocketAddr::new(home.public, 5000));
    assert!(start.elapsed() > DELAY);
    outside.send_to(b"answer", outer).unwrap();
    assert_eq!(receive(&inside, SOON).unwrap().0, b"answer");

    let home = model.linux_home("wall", Router::Firewall, Families::Both, link()).unwrap();
    for (own, other) in home.host.addresses.iter().zip(&server.addresses) {
        let (inside, outside) = (bind(&home.host, *own, 5000), bind(&server, *other, 7001));
        outside.send_to(b"stranger", (*own, 5000)).unwrap();
        assert_eq!(receive(&inside, NEVER), None);
        assert_eq!(mapped(&inside, &outside), SocketAddr::new(*own, 5000));
        outside.send_to(b"answer", (*own, 5000)).unwrap();
        assert_eq!(receive(&inside, SOON).unwrap().0, b"answer");
    }
}

/// A packet costs the carrying thread some 20 µs in a debug build; a lab that is idle costs nothing.
#[test]
fn nothing_runs_while_nothing_is_sent() {
    let Some(mut model) = Model::or_skip("nothing_runs_while_nothing_is_sent", 13) else { return };
    let server = model.server().unwrap();
    let home = model.nat_home("home", NatKind::all()[0].nat(), link()).unwrap();
    let (inside, outside) = (socket(&home.host, 5000), socket(&server, 7000));
    mapped(&inside, &outside);
    assert_eq!(receive(&outside, NEVER), None);
    let before = switches();
    assert_eq!(receive(&outside, NEVER * 2), None);
    assert!(switches() - before < 5, "the carrying thread woke up {} times", switches() - before);
}

/// How often the carrying threads of this process have gone to sleep.
fn switches() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let carriers = threads.filter(|thread| read(thread.path().join("comm")).trim() == "natlab-13");
    let counts = carriers.filter_map(|thread| {
        let status = read(thread.path().join("status"));
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?.to_owned();
        line.split_whitespace().next_back()?.parse::<u64>().ok()
    });
    counts.sum()
}

fn namespaces() -> String {
    String::from_utf8(Command::new("ip").args(["netns", "list"]).output().unwrap().stdout).unwrap()
}

#[test]
fn a_model_leaves_nothing_also_when_it_panics() {
    let Some(mut model) = Model::or_skip("a_model_leaves_nothing_also_when_it_panics", 14) else { return };
    let server = model.server().unwrap();
    let name = server.namespace().to_owned();
    assert!(namespaces().contains(&name));
    let panicked = std::thread::spawn(move || {
        let _model = model;
        panic!("on purpose, in a_model_leaves_nothing_also_when_it_panics");
    });
    assert!(panicked.join().is_err());
    assert!(!namespaces().contains(&name));
}

/// What `natlab run` makes of its options, shown by a datagram from each side to the server and back.
#[test]
fn the_program_makes_the_model_that_it_is_asked_for() {
    let Some(_allowed) = Model::or_skip("the_program_makes_the_model_that_it_is_asked_for", 15) else { return };
    let run = |options: &[&str], script: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_natlab"));
        command.arg("run").args(options).args(["--", "sh", "-c", script]);
        command.output().unwrap()
    };
    let options = ["--left", "eim_apdf_random", "--right", "masquerade", "--delay", "20", "--seed", "3"];
    let script = "for host in $NATLAB_LEFT $NATLAB_RIGHT; do ip -n $host -brief -4 address show eth0; done; echo $NATLAB_ADDRESS";
    let said = String::from_utf8(run(&options, script).stdout).unwrap();
    for word in ["192.168.1.2/32", "192.168.2.2/32", "192.0.2.1"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(run(&options, "exit 5").status.code(), Some(5));
    for wrong in [["--left", "nothing"], ["--loss", "101"], ["--delay", "-1"], ["--seed", "x"]] {
        assert_eq!(run(&wrong, "true").status.code(), Some(2), "{wrong:?}");
    }
}
