//! From the introduction to connected, and the whole connect call, in real time, beside the least that bare sockets
//! need in the same run.
//!
//! Three threads' worth of programs (a rendezvous server, a listener, a connector) run on the loopback interface, and then
//! in a lab of network namespaces behind Linux's own NATs (`tests/natlab`; left out aloud where namespaces are not
//! allowed). Each round does, one after the other:
//!
//! - a connect, whose two ends tell how long they took since they learned of each other;
//! - a raw exchange (`raw`) with the same wake-ups: two threads that sleep in epoll are told each other's address;
//! - three round trips of a raw datagram to an echo beside the server, which is what a connect call cannot do without:
//!   two to the server, one to the peer.
//!
//! A connect's two sides agree on a key when they learn of each other, which the raw exchange does without; what that
//! takes is printed too.
//!
//!     cargo bench --features server --bench introduction

mod raw;
mod rendezvous;

use std::{
    hint::black_box,
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

use holepunch::{ConnectOptions, Connection, Endpoint, Wait};
use natlab::{Families, Host, Lab, LabError, Router};
use raw::Exchange;
use rendezvous::{Rendezvous, is_measurement};
use x25519_dalek::{PublicKey, StaticSecret};

const PATIENCE: Duration = Duration::from_secs(20);

/// Where a program runs.
#[derive(Clone)]
pub(crate) enum Place {
    Here,
    Host(Host),
}

impl Place {
    /// Runs `work` there; sockets and threads made there stay there.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Here => work(),
            Self::Host(host) => host.within(work).expect("the namespace can be entered"),
        }
    }
}

/// Three places, and the address of the server's.
struct Network {
    name: &'static str,
    server: Place,
    address: IpAddr,
    listener: Place,
    connector: Place,
    /// What the endpoints bind; nothing for the default, which is everything.
    bind: Option<&'static str>,
    _lab: Option<Lab>,
}

fn main() {
    let rounds = if is_measurement() { 300 } else { 3 };
    println!("{rounds} rounds of each; times in ms: p50 / p95 / worst\n");
    println!("key agreement (X25519), once a side{:8}{}\n", "", key_agreement(rounds));
    for network in loopback() {
        measure(&network, rounds);
    }
    for (name, left, right) in [
        ("Linux masquerade x masquerade", Some(Router::Masquerade), Some(Router::Masquerade)),
        ("firewall x firewall, no NAT", Some(Router::Firewall), Some(Router::Firewall)),
        ("no NAT x masquerade fully-random (its port must be learned)", None, Some(Router::MasqueradeRandom)),
    ] {
        match lab(name, left, right) {
            Ok(network) => measure(&network, rounds),
            Err(error @ LabError::NotAllowed(_)) => {
                println!("{name}: left out: {error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn loopback() -> [Network; 2] {
    let network = |name, bind| Network {
        name,
        server: Place::Here,
        address: [127, 0, 0, 1].into(),
        listener: Place::Here,
        connector: Place::Here,
        bind,
        _lab: None,
    };
    [
        network("loopback, bound to 127.0.0.1", Some("127.0.0.1:0")),
        network("loopback, default: both families, every interface", None),
    ]
}

/// A public server, a listener behind the left router and a connector behind the right one.
fn lab(name: &'static str, left: Option<Router>, right: Option<Router>) -> Result<Network, LabError> {
    let mut lab = Lab::new()?;
    let server = lab.host("server")?;
    let address = server.address();
    let mut client = |name: &str, router: Option<Router>| match router {
        None => lab.host(name).map(Place::Host),
        Some(kind) => {
            let mut site = lab.site(&format!("{name}-router"), kind, Families::V4)?;
            lab.client(&mut site, name).map(Place::Host)
        }
    };
    let (listener, connector) = (client("bob", left)?, client("alice", right)?);
    Ok(Network { name, server: Place::Host(server), address, listener, connector, bind: None, _lab: Some(lab) })
}

/// What it takes to agree on a key with a peer's public key.
fn key_agreement(rounds: usize) -> Times {
    let (own, peer) = (StaticSecret::from([7; 32]), PublicKey::from(&StaticSecret::from([9; 32])));
    Times::of((0..rounds).map(|_| {
        let start = Instant::now();
        black_box(black_box(&own).diffie_hellman(black_box(&peer)));
        start.elapsed()
    }))
}

/// What one connect took.
struct Connect {
    call: Duration,
    /// Since the introduction: the listener, then the connector.
    punch: [Duration; 2],
    round_trip: Duration,
}

fn measure(network: &Network, rounds: usize) {
    let server = network.server.within(|| Rendezvous::start(&network.address.to_string()));
    let endpoint = |place: &Place| {
        place.within(|| {
            let builder = Endpoint::builder().server(&server.address);
            let builder = match network.bind {
                Some(address) => builder.bind(address.parse().expect("an address")),
                None => builder,
            };
            builder.build().expect("an endpoint")
        })
    };
    let (here, there) = (endpoint(&network.listener), endpoint(&network.connector));
    let listener = network.listener.within(|| here.listen(Some("bob"), PATIENCE.into()).expect("a listener"));
    let exchange = Exchange::start(&network.server, network.address, [&network.listener, &network.connector]);
    let echo = Exchange::echo(&network.server, network.address);
    let (mut connects, mut raws, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (call, near) = network.connector.within(|| {
            let start = Instant::now();
            let connection = there.connect_datagram("bob", &ConnectOptions::default()).expect("a connection");
            (start.elapsed(), connection)
        });
        let far = network.listener.within(|| listener.accept_datagram(Wait::at_most(PATIENCE)).expect("a connection"));
        connects.push(Connect {
            call,
            punch: [&far, &near].map(|connection: &Connection| connection.path().since_introduction),
            round_trip: near.path().rtt,
        });
        drop((near, far));
        raws.push(exchange.run());
        echoes.push(network.connector.within(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect(echo).expect("a route");
            let start = Instant::now();
            for _ in 0..3 {
                socket.send(&[b'x'; 100]).expect("a request");
                socket.recv(&mut [0; 100]).expect("its echo");
            }
            start.elapsed()
        }));
    }
    report(network.name, &connects, &raws, &echoes);
}

fn report(name: &str, connects: &[Connect], raws: &[[Duration; 2]], echoes: &[Duration]) {
    let later = |times: &[Duration; 2]| times[0].max(times[1]);
    let column = |part: &dyn Fn(&Connect) -> Duration| Times::of(connects.iter().map(part));
    let (both, raw) = (column(&|connect| later(&connect.punch)), Times::of(raws.iter().map(later)));
    let round_trip = column(&|connect| connect.round_trip);
    let (call, echo) = (column(&|connect| connect.call), Times::of(echoes.iter().copied()));
    println!("{name}");
    println!("  introduction to connected, listener     {}", column(&|connect| connect.punch[0]));
    println!("  introduction to connected, connector    {}", column(&|connect| connect.punch[1]));
    println!("  the later of the two                    {both}");
    println!("  raw: one check and answer, the later    {raw}");
    println!("  round trip, as the connector's check saw it  {round_trip}");
    println!("  the connect call                        {call}");
    println!("  raw: three round trips                  {echo}");
    println!(
        "  ratios of p50: connected : raw {:.2}   connected : round trip {:.2}   call : three round trips {:.2}\n",
        both.ratio(&raw),
        both.ratio(&round_trip),
        call.ratio(&echo)
    );
}

/// Times in order.
struct Times(Vec<Duration>);

impl Times {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<_> = times.collect();
        times.sort();
        Self(times)
    }

    fn quantile(&self, q: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * q).round() as usize].as_secs_f64()
    }

    fn ratio(&self, other: &Self) -> f64 {
        self.quantile(0.5) / other.quantile(0.5)
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p95, worst] = [0.5, 0.95, 1.0].map(|q| self.quantile(q) * 1e3);
        write!(f, "{p50:>7.3} / {p95:>7.3} / {worst:>7.3}")
    }
}
