//! Inputs that reach the deep states of the harnesses, made of real exchanges: the fuzzer's starting points.

use super::targets::{
    agent::{Reached as Negotiated, operation as agent},
    peer::{Reached, operation as peer},
    records::{address, push_record},
    server::{CLIENTS, SOCKETS, operation as server, server as real_server},
    streams::operation as streams,
};
use holepunch::{
    config::PeerConfig,
    machine::{Input, Instant, Output, SocketId, UdpRequest},
    peer::{ConnectRequest, ListenRequest, Peer},
};
use std::{net::SocketAddr, time::Duration};

/// A list of records in the making.
#[derive(Clone, Default)]
struct Script(Vec<u8>);

impl Script {
    fn then(mut self, operation: u8, fields: &[u8]) -> Self {
        push_record(&mut self.0, operation, fields);
        self
    }

    fn wait(self, millis: u16) -> Self {
        self.then(peer::WAIT, &millis.to_le_bytes())
    }

    fn deliver_all(self) -> Self {
        self.then(peer::DELIVER_ALL, &[])
    }

    /// All sockets of the listener and the connector are bound.
    fn bound(self) -> Self {
        self.then(peer::BIND, &[0, 0]).then(peer::BIND, &[0, 0]).then(peer::BIND, &[1, 0]).then(peer::BIND, &[1, 0])
    }

    /// The listener is registered before the connector asks.
    fn registered(self) -> Self {
        self.then(peer::BIND, &[0, 0]).then(peer::BIND, &[0, 0]).deliver_all()
    }

    /// Both peers are connected.
    fn connected(self) -> Self {
        self.registered().then(peer::BIND, &[1, 0]).then(peer::BIND, &[1, 0]).deliver_all().wait(50).deliver_all()
    }
}

/// Seeds of `server_streams`, each with the introductions it makes.
pub(crate) fn server_streams() -> Vec<(&'static str, Vec<u8>, usize)> {
    let accept = |script: Script, id: u8, client: u8| script.then(streams::ACCEPT, &[id, client]);
    let say = |script: Script, id: u8, bytes: &[u8]| script.then(streams::SAY, &[&[id], bytes].concat());
    let pause = |script: Script, millis: u16| script.then(streams::WAIT, &millis.to_le_bytes());
    let two = say(accept(accept(Script::default(), 0, 0), 1, 1), 0, b"<");
    let stun = [&b"\0\x01\0\0\x21\x12\xa4\x42"[..], &[7; 12]].concat();
    let seeds = [
        ("two_of_2015_meet", pause(say(two.clone(), 1, b">127.0.0.2"), 20), 1),
        ("at_once", say(accept(two.clone(), 2, 1), 2, b"<>127.0.0.2>127.0.0.30>127.0.0.2\n"), 1),
        (
            "a_byte_at_a_time",
            {
                let script = b">127.0.0.2".iter().fold(two.clone(), |script, byte| say(script, 1, &[*byte]));
                script.then(streams::END, &[1])
            },
            1,
        ),
        ("an_announcement", say(say(two.clone(), 0, b"<holepunch <>"), 1, b">127.0.0.2 "), 1),
        ("not_found", pause(say(two.clone(), 1, b">198.51.100.2"), 100), 0),
        ("garbage", pause(say(say(two.clone(), 1, b"*('x', 1)\xff"), 0, b">\xff"), 100), 0),
        ("ipv6", say(say(accept(accept(two.clone(), 2, 4), 3, 5), 2, b"<>127.0.0.2\n"), 3, b"<>2001:db8::2\n"), 0),
        ("a_listener_fails", say(two.clone().then(streams::FAIL, &[0]), 1, b">127.0.0.2\n"), 0),
        ("stun", say(say(two.clone(), 1, &stun[..9]), 1, &[&stun[9..], &stun, &stun[..5]].concat()), 0),
        ("greeted", say(say(two.clone(), 1, b"HOLEPUNCH"), 1, &[b"/1\n", &stun[..]].concat()), 0),
        ("idle", (0..20).fold(two, |script, _| pause(script, u16::MAX)), 0),
    ];
    seeds.into_iter().map(|(name, Script(bytes), introductions)| (name, bytes, introductions)).collect()
}

/// Seeds of `peer_input`, each with what it reaches.
pub(crate) fn peer_input() -> Vec<(&'static str, Vec<u8>, Reached)> {
    let nothing = Reached::default();
    let both = Reached { connected: 2, closed: 2, ..nothing };
    let seeds = [
        ("nothing_is_bound", Script::default().wait(5000), nothing),
        ("connected", Script::default().connected(), both),
        (
            "data_both_ways",
            Script::default().connected().then(peer::DATA, b"\0hello").then(peer::DATA, b"\x01hello").deliver_all(),
            Reached { data: 2, ..both },
        ),
        (
            "both_end",
            Script::default()
                .connected()
                .then(peer::END, &[0, 0])
                .deliver_all()
                .then(peer::END, &[1, 0])
                .deliver_all()
                .wait(5000),
            both,
        ),
        ("one_closes", Script::default().connected().then(peer::CLOSE, &[1, 0]).deliver_all().wait(5000), both),
        ("consent_is_renewed_and_lost", Script::default().connected().wait(10_000).deliver_all().wait(60_000), both),
        ("the_server_is_silent", Script::default().bound().wait(6000), Reached { failed: 1, ..nothing }),
        (
            "no_such_listener",
            Script::default()
                .registered()
                .then(peer::CLOSE_LISTENER, &[0, 0])
                .deliver_all()
                .then(peer::BIND, &[1, 0])
                .then(peer::BIND, &[1, 0])
                .deliver_all()
                .wait(5000)
                .deliver_all()
                .wait(10_000),
            Reached { failed: 1, ..nothing },
        ),
        ("a_socket_fails", Script::default().then(peer::BIND, &[0, 1]).then(peer::BIND, &[1, 1]).connected(), both),
        (
            "interfaces_change",
            Script::default().connected().then(peer::INTERFACES, &[0, 1]).then(peer::INTERFACES, &[1, 5]).deliver_all(),
            both,
        ),
        (
            "the_server_restarts",
            Script::default().registered().then(peer::RESTART, &[]).wait(25_000).deliver_all().connected(),
            both,
        ),
        (
            "secrets_differ",
            Script::default()
                .connected()
                .then(peer::CONNECT, &[1, 0, 1, 1, 30])
                .bound()
                .deliver_all()
                .wait(100)
                .deliver_all(),
            Reached { failed: 2, ..both },
        ),
        (
            "a_server_lies_to_the_listener",
            Script::default()
                .registered()
                .then(peer::FORGE_INTRODUCTION, &[0, 7, 9, 1, 1, 0, 9, 2, 0, 0, 9, 3, 0, 0, 9, 5, 2, 0, 9, 4])
                .wait(5000)
                .then(peer::FORGE_CHECK, &[0, 3, 1])
                .then(peer::FORGE_CHECK, &[0, 3, 2]),
            Reached { failed: 1, ..nothing },
        ),
        (
            "a_server_lies_to_the_connector",
            Script::default()
                .bound()
                .then(peer::FORGE_ANSWER, &[1, 0, 0, 9, 1, 0, 9, 2, 0, 0, 9, 3, 0, 0, 9, 5, 2, 0, 9, 4])
                .wait(5000)
                .then(peer::FORGE_CHECK, &[1, 3, 1])
                .then(peer::FORGE_CHECK, &[1, 3, 2]),
            Reached { failed: 1, ..nothing },
        ),
    ];
    let all = |script: Script| script.deliver_all().then(peer::TCP_ALL, &[]).deliver_all().then(peer::TCP_ALL, &[]);
    let asked = all(Script::default().connected()).then(peer::CONNECT, &[1, 0, 0, 10, 30, 1]);
    let asked = asked.then(peer::BIND, &[1, 0]).then(peer::BIND, &[1, 0]).deliver_all();
    let refused = (0..20).fold(asked.clone(), |script, how| script.then(peer::TCP_ANSWER, &[how & 1, 0, how]).wait(5));
    let by_strangers = (0..6).fold(asked.clone(), |script, port| {
        let script = script.then(peer::TCP_STRANGER, &[0, 0, 1, port]).then(peer::TCP_STRANGER, &[1, 0, 0, port]);
        script.then(peer::TCP_DATA, &[0, port, 0, 0, 1, 0, 4, 33, 18]).then(peer::TCP_DATA, &[1, port, 0, b'G'])
    });
    let stream = Reached { connected: 4, ..both };
    let of_streams = [
        ("a_stream", all(all(all(asked.clone()).wait(50)).wait(50)), stream),
        (
            "a_stream_in_pieces",
            (0..60)
                .fold(all(asked.clone()), |script, at| script.then(peer::TCP_DATA, &[at & 1, at / 2, 7]).deliver_all()),
            stream,
        ),
        ("refused_connects", all(all(refused).wait(500)), stream),
        ("strangers_connect", all(all(by_strangers).wait(500)), stream),
        (
            "connections_fail",
            (0..8).fold(asked, |script, which| script.then(peer::TCP_FAIL, &[which & 1, which])).wait(900),
            Reached { failed: 1, ..both },
        ),
    ];
    seeds.into_iter().chain(of_streams).map(|(name, script, reached)| (name, script.0, reached)).collect()
}

/// Seeds of `agent_input`, each with what it reaches. The first byte says the roles, and whether the passwords agree.
pub(crate) fn agent_input() -> Vec<(&'static str, Vec<u8>, Negotiated)> {
    let socket = |script: Script, node: u8, which: u8| script.then(agent::SOCKET, &[node, which]);
    let remote = |script: Script, node: u8, at: u8, claimed: u8| script.then(agent::REMOTE, &[node, at, 0, claimed]);
    let all = |script: Script| script.then(agent::DELIVER_ALL, &[]);
    let pause = |script: Script, millis: u16| script.then(agent::WAIT, &millis.to_le_bytes());
    let met = |claimed: u8| {
        let script = socket(socket(Script::default(), 0, 0), 1, 0);
        pause(all(remote(remote(script, 0, 0, claimed), 1, 0, claimed)), 30)
    };
    let by_one_side = remote(socket(socket(Script::default(), 0, 1), 1, 1), 1, 1, 0);
    let two_families = [(0, 2), (1, 2), (0, 3), (1, 3)]
        .into_iter()
        .fold(met(0), |script, (node, which)| remote(socket(script, node, which), node, which, 0));
    let (nothing, both) = (Negotiated::default(), Negotiated { selected: 2, ..Negotiated::default() });
    let lies = (0..16).fold(met(1), |script, at| remote(script, at & 1, at, 1));
    let checks = (4..16).fold(met(0), |script, at| script.then(agent::CHECK, &[0, at, 0b10_0011, 1, 1]));
    let seeds = [
        ("nothing_is_there", 0, Script::default(), nothing),
        ("met", 0, met(0), both),
        ("both_control", 2, all(pause(all(met(0)), 100)), both),
        ("both_are_controlled", 3, all(pause(all(met(1)), 100)), both),
        ("passwords_differ", 4, pause(all(met(0)), 2000), Negotiated { wrong_secret: 2, ..nothing }),
        ("only_one_is_told", 1, all(pause(all(by_one_side), 100)), both),
        ("two_families", 0, all(pause(all(two_families), 5000)), both),
        ("claims", 0, pause(lies, 5000), both),
        ("lying_sources", 1, pause(checks, 5000), both),
        (
            "data",
            1,
            met(0).then(agent::RAW, b"\0\0hello").then(agent::RAW, b"\0\x09hello"),
            Negotiated { data: 1, ..both },
        ),
        ("consent_is_renewed_and_lost", 0, pause(all(pause(met(0), 20_000)), 65_000), both),
        (
            "a_peer_of_one_message",
            1,
            remote(socket(Script::default(), 0, 0), 0, 0, 0)
                .then(agent::ANSWER, &[0, 0, 0])
                .then(agent::ANSWER, &[0, 64, 1, 1])
                .then(agent::ANSWER, &[0, 64 | 128, 0]),
            Negotiated { selected: 1, data: 1, ..nothing },
        ),
    ];
    let with_first = |(name, first, Script(bytes), reached)| (name, [&[first][..], &bytes].concat(), reached);
    seeds.map(with_first).into()
}

/// Seeds of `server_input`, each with the introductions that it leads to.
pub(crate) fn server_input() -> Vec<(&'static str, Vec<u8>, u64)> {
    let wait = |seconds: u16| [0, 0, seconds.to_le_bytes()[0], seconds.to_le_bytes()[1]];
    let register = [0, 0, 1, 0, 0, 0, 0, 9, 1];
    let connect = [1, 0, 2, 0, 0, 0, 0, 9, 4];
    let introduced = Script::default()
        .then(server::REGISTER, &register)
        .then(server::REGISTER, &register)
        .then(server::CONNECT, &connect)
        .then(server::CONNECT, &connect);
    let seeds = [
        ("introduced", introduced.clone(), 1),
        (
            "trickled",
            introduced.clone().then(server::TRICKLE, &[0, 0, 0, 0, b'x']).then(server::TRICKLE, &[1, 0, 1, 1]),
            1,
        ),
        (
            "kept_alive_and_moved",
            introduced
                .clone()
                .then(server::WAIT, &wait(25))
                .then(server::KEEPALIVE, &[0, 0, 1, 255, 0])
                .then(server::WAIT, &wait(25))
                .then(server::KEEPALIVE, &[2, 0, 1, 255, 0])
                .then(server::KEEPALIVE, &[2, 0, 1, 255, 0])
                .then(server::CONNECT, &connect),
            2,
        ),
        ("left", introduced.clone().then(server::KEEPALIVE, &[0, 0, 1, 0, 0]).then(server::CONNECT, &connect), 1),
        (
            "by_address",
            Script::default()
                .then(server::REGISTER, &[0, 0, 3, 1, 0])
                .then(server::REGISTER, &[0, 0, 3, 1, 0])
                .then(server::CONNECT, &[4, 2, 2, 130, 0])
                .then(server::CONNECT, &[4, 2, 2, 130, 0]),
            1,
        ),
        (
            "current_and_2015",
            Script::default()
                .then(server::REGISTER, &[0, 0, 1, 1, 64])
                .then(server::REGISTER, &[0, 0, 1, 1, 64])
                .then(server::TEXT, &[1, 0, 2])
                .then(server::WAIT, &[100, 0, 0, 0])
                .then(server::WAIT, &[200, 0, 0, 0])
                .then(server::TEXT, &[1, 1, 0])
                .then(server::CONNECT, &[0, 0, 2, 131, 64])
                .then(server::CONNECT, &[0, 0, 2, 131, 64])
                .then(server::CONNECT, &[0, 0, 2, 131, 64])
                .then(server::KEEPALIVE, &[0, 0, 1, 255, 0])
                .then(server::TEXT, &[1, 0, 2])
                .then(server::WAIT, &wait(1)),
            4,
        ),
        (
            "bindings",
            Script::default()
                .then(server::BINDING, &[0, 0, 0, 0])
                .then(server::BINDING, &[1, 1, 2, 40])
                .then(server::BINDING, &[4, 2, 17, 10])
                .then(server::BINDING, &[4, 3, 24, 30])
                .then(server::CLASSIC, &[3, 0, 2])
                .then(server::MUTATED, &[0, 0, 22, 0, 1]),
            0,
        ),
        (
            "wrong_cookies",
            (0..8).fold(Script::default(), |script, _| script.then(server::CONNECT, &[1, 0, 2, 0, 32, 0, 0, 9, 4])),
            0,
        ),
        ("stale_cookies", introduced.then(server::WAIT, &wait(121)).then(server::CONNECT, &connect), 1),
        ("real_peers", recorded(), 1),
    ];
    seeds.map(|(name, script, introductions)| (name, script.0, introductions)).into()
}

/// A recording of a real listener and a real connector, up to the introduction.
fn recorded() -> Script {
    let mut server = real_server();
    let mut script = Script::default();
    let now = Instant::default();
    let mut peers = [1, 2].map(|seed| Peer::new(PeerConfig::default(), [seed; 32]));
    let bind: Vec<SocketAddr> = vec![address("0.0.0.0:0")];
    let servers = vec![address(SOCKETS[0]).into()];
    let [listener, _] = &mut peers;
    let name = Some("bob".parse().expect("it is a name"));
    listener
        .listen(
            now,
            ListenRequest {
                transports: holepunch::wire::stun::Transports { udp: true, tcp: true },
                name,
                servers: servers.clone(),
                bind: bind.clone(),
                secret: None,
                prefer_port: None,
                legacy: false,
            },
        )
        .expect("the request is right");
    let request = ConnectRequest {
        transport: holepunch::peer::Transport::Udp,
        target: "bob".parse().expect("it is a name"),
        servers,
        bind,
        secret: None,
        wait: Duration::ZERO,
        timeout: Duration::from_secs(30),
        prefer_port: None,
        legacy: false,
    };
    for (client, peer) in peers.iter_mut().enumerate() {
        if client == 1 {
            peer.connect(now, request.clone()).expect("the request is right");
        }
        loop {
            match peer.poll_output() {
                Output::Udp(UdpRequest::Bind { socket, .. }) => {
                    let local = address("0.0.0.0:40000");
                    peer.handle_input(now, Input::UdpBound { socket, local });
                }
                Output::Transmit(transmit) if transmit.destination == address(SOCKETS[0]) => {
                    let header = [client as u8, 0];
                    script = script.then(server::RAW, &[&header[..], &transmit.payload].concat());
                    let remote = address(CLIENTS[client]);
                    let (socket, local) = (SocketId(0), address(SOCKETS[0]));
                    server.handle_input(now, Input::Datagram { socket, local, remote, payload: &transmit.payload });
                    while let Output::Transmit(answer) = server.poll_output() {
                        if answer.destination == remote {
                            let local = address("10.0.0.2:40000");
                            let payload = &answer.payload;
                            let (socket, remote) = (transmit.socket, transmit.destination);
                            peer.handle_input(now, Input::Datagram { socket, local, remote, payload });
                        }
                    }
                }
                Output::Timeout(Some(time), _) if time <= now => drop(peer.handle_input(now, Input::Timeout)),
                Output::Timeout(..) => break,
                _ => {}
            }
        }
    }
    script
}
