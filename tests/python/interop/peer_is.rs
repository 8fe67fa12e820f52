//! The agent of `is` (str0m's) as the peer of the example `agent`, on a socket: the same arguments and texts.
//!
//! `peer_is controlling|controlled MESSAGE SERVER`; SERVER is a STUN server, on port 3478.

use std::{
    io::{BufRead as _, ErrorKind},
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use holepunch::wire::stun::{Builder, Class, Message, Method, TransactionId};
use is::{
    Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol,
    stun::{StunMessage, StunPacket},
};

/// How long the two may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, message, server] = arguments.as_slice() else { panic!("three arguments") };
    let server: SocketAddr = format!("{server}:3478").parse().unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    probe.connect(server).unwrap();
    let host = SocketAddr::new(probe.local_addr().unwrap().ip(), socket.local_addr().unwrap().port());

    let own = IceCreds { ufrag: "theirs".into(), pass: "their password 22 long".replace(' ', "+") };
    let mut agent = IceAgent::new(own.clone());
    agent.set_controlling(role == "controlling");
    agent.add_local_candidate(Candidate::host(host, "udp").unwrap());
    let mapped = ask(&socket, server);
    if mapped != host {
        agent.add_local_candidate(Candidate::server_reflexive(mapped, host, "udp").unwrap());
    }
    println!("a=ice-ufrag:{}\na=ice-pwd:{}", own.ufrag, own.pass);
    for candidate in agent.local_candidates() {
        println!("a={}", candidate.to_sdp_string());
    }
    println!("a=end-of-candidates");

    let (mut ufrag, mut pass) = (String::new(), String::new());
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        if let Some(value) = line.strip_prefix("a=ice-ufrag:") {
            ufrag = value.into();
        } else if let Some(value) = line.strip_prefix("a=ice-pwd:") {
            pass = value.into();
        } else if let Some(value) = line.strip_prefix("a=candidate:") {
            agent.add_remote_candidate(Candidate::from_sdp_string(&format!("candidate:{value}")).unwrap());
        } else if line == "a=end-of-candidates" {
            break;
        }
    }
    agent.set_remote_credentials(IceCreds { ufrag, pass });
    println!("{}", talk(&socket, host, agent, message));
}

/// The mapped address.
fn ask(socket: &UdpSocket, server: SocketAddr) -> SocketAddr {
    let request = Builder::new(Class::Request, Method::BINDING, TransactionId([7; 12])).fingerprint().finish();
    let mut buffer = [0; 1500];
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    for _ in 0..10 {
        socket.send_to(&request, server).unwrap();
        if let Ok(length) = socket.recv(&mut buffer) {
            return Message::parse(&buffer[..length]).unwrap().xor_mapped_address().unwrap();
        }
    }
    panic!("the STUN server is silent");
}

/// Says the message until something was heard, and once more.
fn talk(socket: &UdpSocket, host: SocketAddr, mut agent: IceAgent, message: &str) -> String {
    let begin = Instant::now();
    let mut path = None;
    let mut buffer = [0; 1500];
    let mut said = begin;
    agent.handle_timeout(begin);
    while begin.elapsed() < PATIENCE {
        while let Some(transmit) = agent.poll_transmit() {
            // Where there is no route the check is lost.
            let _ = socket.send_to(&transmit.contents, transmit.destination);
        }
        while let Some(event) = agent.poll_event() {
            if let IceAgentEvent::NominatedSend { destination, .. } = event {
                path = Some(destination);
                said = begin;
            }
        }
        if let Some(path) = path
            && (said == begin || said.elapsed() > Duration::from_millis(500))
        {
            said = Instant::now();
            let _ = socket.send_to(message.as_bytes(), path);
        }
        let wait = agent.poll_timeout().map_or(Duration::MAX, |time| time.saturating_duration_since(Instant::now()));
        let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(100));
        socket.set_read_timeout(Some(wait)).unwrap();
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => match StunMessage::parse(&buffer[..length]) {
                Ok(message) => {
                    let packet = StunPacket { proto: Protocol::Udp, source, destination: host, message };
                    agent.handle_packet(Instant::now(), packet);
                }
                Err(_) => {
                    let _ = socket.send_to(message.as_bytes(), source);
                    return String::from_utf8_lossy(&buffer[..length]).into_owned();
                }
            },
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => panic!("{error}"),
        }
        agent.handle_timeout(Instant::now());
    }
    panic!("not connected");
}
