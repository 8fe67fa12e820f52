//! What strangers send to a server from addresses that are not theirs, and what one does who can receive.
//!
//! Each batch goes to one family's socket and ends with a Binding request; its answer says that the server has taken
//! the batch in, for a socket is read in its order. So the flood is as fast as the server reads, and nothing of it is
//! lost in a full buffer: what was sent was received, as the namespace's own counters confirm.

use holepunch::wire::stun::{
    AttributeType, Builder, CandidateKind, CandidateTransport, ChangeRequest, Class, Message, Method, Name,
    RegistrationId, SessionId, TransactionId, Transports, WireCandidate,
};
use natlab::{Host, Strangers};
use netsim::Random;
use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// More than a server needs for a batch on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Datagrams of a batch, the last of which is answered; two of them fit the smallest receive buffer that Linux gives.
const BATCH: u64 = 64;
/// Messages that are drawn from; one is made anew for each batch.
const MESSAGES: usize = 4096;
/// Exchanges at a time of those who can receive.
const WINDOW: usize = 32;

pub(crate) const NAME: &str = "bob";
const KEY: [u8; 32] = [5; 32];

/// Every stranger there is, and the server that they know.
pub(crate) struct Flood {
    pub(crate) strangers: Strangers,
    /// The server's addresses, IPv4 first.
    pub(crate) server: [SocketAddr; 2],
    pub(crate) random: Random,
    /// A session's id and the cookie that one stranger got for it; the others try it too.
    stolen: (SessionId, Vec<u8>),
    batches: u64,
    /// Whether the last request of the last batch is still to be answered.
    is_open: bool,
    pub(crate) counts: Counts,
}

/// Datagrams and their bytes, without headers of UDP and IP.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) answers: u64,
    pub(crate) answer_bytes: u64,
}

impl Flood {
    /// Puts strangers behind the host of a server.
    pub(crate) fn new(host: &Host, port: u16, seed: u64) -> io::Result<Self> {
        let address = |is_ipv4| host.addresses.iter().find(|ip: &&IpAddr| ip.is_ipv4() == is_ipv4).copied();
        let server = [true, false].map(|is_ipv4| SocketAddr::new(address(is_ipv4).expect("both families"), port));
        Ok(Self {
            strangers: host.strangers()?,
            server,
            random: Random::new(seed),
            stolen: (SessionId([9; 16]), Vec::new()),
            batches: 0,
            is_open: false,
            counts: Counts::default(),
        })
    }

    /// Sends at least so many datagrams of every kind, from any address.
    pub(crate) fn mixed(&mut self, count: u64) -> io::Result<()> {
        if self.stolen.1.is_empty() {
            let source = Strangers::any(&mut self.random, true);
            let request = connect(&mut self.random, self.stolen.0, None, Some(NAME));
            let challenge = self.ask(&[(source, request)])?.remove(0);
            self.stolen.1 = cookie(&challenge);
        }
        let mut messages: Vec<_> = (0..MESSAGES).map(|_| self.message()).collect();
        let until = self.counts.sent + count;
        while self.counts.sent < until {
            let chosen = self.random.below(MESSAGES as u64) as usize;
            messages[chosen] = self.message();
            self.batch(|random| &messages[random.below(MESSAGES as u64) as usize])?;
        }
        self.settle()
    }

    /// A batch for the one family while the server may still read the other's.
    pub(crate) fn batch<'a>(&mut self, mut draw: impl FnMut(&mut Random) -> &'a Vec<u8>) -> io::Result<()> {
        let server = self.server[self.batches as usize % 2];
        for _ in 1..BATCH {
            let message = draw(&mut self.random);
            self.send(server, message)?;
        }
        self.settle()?;
        self.batches += 1;
        self.is_open = true;
        let last = Builder::new(Class::Request, Method::BINDING, self.last_of_batch()).finish();
        self.send(server, &last)
    }

    fn last_of_batch(&self) -> TransactionId {
        let mut id = [0xbb; 12];
        id[4..].copy_from_slice(&self.batches.to_be_bytes());
        TransactionId(id)
    }

    /// One datagram from any address of the server's family.
    pub(crate) fn send(&mut self, server: SocketAddr, payload: &[u8]) -> io::Result<()> {
        self.counts.sent += 1;
        self.counts.sent_bytes += payload.len() as u64;
        self.strangers.send(Strangers::any(&mut self.random, server.is_ipv4()), server, payload)
    }

    /// Reads until the last request of the last batch is answered.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        while self.is_open {
            let answer = self.next(PATIENCE)?.ok_or_else(|| io::Error::other("the server answers no more"))?.1;
            self.is_open = answer.get(8..20) != Some(&self.last_of_batch().0);
        }
        Ok(())
    }

    /// The next datagram for a stranger, and for whom; none within this time.
    pub(crate) fn next(&mut self, patience: Duration) -> io::Result<Option<(SocketAddr, std::sync::Arc<[u8]>)>> {
        let until = Instant::now() + patience;
        loop {
            match self.strangers.receive()? {
                Some(packet) if packet.tcp.is_none() && !packet.is_error => {
                    self.counts.answers += 1;
                    self.counts.answer_bytes += packet.payload.len() as u64;
                    return Ok(Some((packet.destination, packet.payload)));
                }
                Some(_) => {}
                None => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() || !self.strangers.wait(left)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Asks from addresses that answers are read at, at once; the answers in the order of the requests.
    pub(crate) fn ask(&mut self, requests: &[(SocketAddr, Vec<u8>)]) -> io::Result<Vec<Vec<u8>>> {
        let mut missing: HashMap<SocketAddr, usize> = HashMap::new();
        for (number, (source, request)) in requests.iter().enumerate() {
            missing.insert(*source, number);
            self.strangers.send(*source, self.server[usize::from(source.is_ipv6())], request)?;
        }
        let mut answers = vec![Vec::new(); requests.len()];
        while !missing.is_empty() {
            let (to, answer) =
                self.next(PATIENCE)?.ok_or_else(|| io::Error::other(format!("no answer for {missing:?}")))?;
            if let Some(number) = missing.remove(&to) {
                answers[number] = answer.to_vec();
            }
        }
        Ok(answers)
    }

    /// Registers listeners, each from its own address and with the cookie that it got; the codes that refused some.
    pub(crate) fn register(&mut self, listeners: &[(SocketAddr, Option<String>)]) -> io::Result<Vec<u16>> {
        let mut codes = Vec::new();
        for window in listeners.chunks(WINDOW) {
            let ids: Vec<_> = window.iter().map(|_| RegistrationId(bytes(&mut self.random))).collect();
            let request = |random: &mut Random, number: usize, cookie: Option<&[u8]>| {
                let (source, name) = &window[number];
                (*source, register(random, ids[number], cookie, name.as_deref()))
            };
            let first: Vec<_> = (0..window.len()).map(|number| request(&mut self.random, number, None)).collect();
            let cookies: Vec<_> = self.ask(&first)?.iter().map(|challenge| cookie(challenge)).collect();
            let second: Vec<_> =
                (0..).zip(&cookies).map(|(number, cookie)| request(&mut self.random, number, Some(cookie))).collect();
            codes.extend(self.ask(&second)?.iter().map(|answer| code(answer)).filter(|code| *code != 0));
        }
        Ok(codes)
    }

    /// A message as a stranger could send it. None of these has a cookie that is good where it comes from.
    fn message(&mut self) -> Vec<u8> {
        let (session, stolen) = self.stolen.clone();
        let random = &mut self.random;
        let kind = random.below(16);
        let broken = matches!(kind, 12..=14);
        // What is broken was one of the others before.
        let mut message = match if broken { random.below(12) } else { kind } {
            0 => binding(random).finish(),
            1 => binding(random).fingerprint().finish(),
            2 => {
                let change = ChangeRequest { change_ip: false, change_port: true };
                binding(random).u32(AttributeType::CHANGE_REQUEST, change.to_bits()).padding_to(300, 0).finish()
            }
            // RFC 3489: no cookie.
            3 => [&[0, 1, 0, 0][..], &bytes::<16>(random)].concat(),
            4 => {
                let length = random.below(1400);
                (0..length).map(|_| random.next_u64() as u8).collect()
            }
            5 => {
                [&b"<"[..], b">192.0.2.1\n", b"*('192.0.2.1', 20001)", b"<>0.0.0.0"][random.below(4) as usize].to_vec()
            }
            6 => {
                let (id, name) = (RegistrationId(bytes(random)), format!("name{:08x}", random.next_u64() as u32));
                let name = [None, Some(NAME), Some(&*name)][random.below(3) as usize];
                register(random, id, None, name)
            }
            7 => {
                let id = RegistrationId(bytes(random));
                let cookie: [u8; 20] = bytes(random);
                register(random, id, Some(&cookie), Some(NAME))
            }
            8 => Builder::new(Class::Request, Method::REGISTER, TransactionId(bytes(random)))
                .version()
                .registration_id(RegistrationId(bytes(random)))
                .keepalive(random.below(2) as u32)
                .padding_to(200, 44)
                .integrity_sha256(&KEY)
                .fingerprint()
                .finish(),
            9 => {
                let session = SessionId(bytes(random));
                let name = [None, Some(NAME), Some("nobody")][random.below(3) as usize];
                connect(random, session, None, name)
            }
            10 => connect(random, session, Some(&stolen), Some(NAME)),
            11 => Builder::new(Class::Request, Method::TRICKLE, TransactionId(bytes(random)))
                .session_id(SessionId(bytes(random)))
                .attribute(AttributeType::ROUTE, &bytes::<44>(random))
                .integrity_sha256(&KEY)
                .fingerprint()
                .finish(),
            // The other classes of a method, and methods that a server is never asked for.
            _ => {
                let class = [Class::Indication, Class::Success, Class::Error][random.below(3) as usize];
                let method = [Method::BINDING, Method::REGISTER, Method::INTRODUCE][random.below(3) as usize];
                Builder::new(class, method, TransactionId(bytes(random))).fingerprint().finish()
            }
        };
        match kind {
            12 => message.truncate(random.below(message.len() as u64 + 1) as usize),
            13 if message.len() >= 4 => {
                let length = (random.next_u64() as u16).to_be_bytes();
                message[2..4].copy_from_slice(&length);
            }
            14 if !message.is_empty() => {
                let at = random.below(message.len() as u64) as usize;
                message[at] ^= 1 << random.below(8);
            }
            _ => {}
        }
        message
    }
}

fn bytes<const N: usize>(random: &mut Random) -> [u8; N] {
    std::array::from_fn(|_| random.next_u64() as u8)
}

pub(crate) fn binding(random: &mut Random) -> Builder {
    Builder::new(Class::Request, Method::BINDING, TransactionId(bytes(random)))
}

/// What a host with both families has to offer.
fn candidates() -> [WireCandidate; 2] {
    ["192.168.1.20:40000", "[2001:db8::20]:40000"].map(|address| WireCandidate {
        kind: CandidateKind::Host,
        transport: CandidateTransport::Udp,
        priority: 0x7eff_feff,
        address: address.parse().expect("an address"),
    })
}

const BOTH: Transports = Transports { udp: true, tcp: true };

/// By name, or without one by where it is.
pub(crate) fn register(random: &mut Random, id: RegistrationId, cookie: Option<&[u8]>, name: Option<&str>) -> Vec<u8> {
    let mut builder = Builder::new(Class::Request, Method::REGISTER, TransactionId(bytes(random)))
        .version()
        .registration_id(id)
        .registration_key(&KEY)
        .public_key(&[6; 32])
        .transports(BOTH);
    if let Some(cookie) = cookie {
        builder = builder.attribute(AttributeType::NONCE, cookie);
    }
    if let Some(name) = name {
        builder = builder.name(&Name::new(name).expect("a name"));
    }
    builder.candidates(&candidates()).integrity_sha256(&KEY).fingerprint().finish()
}

/// By name, or without one by an address.
pub(crate) fn connect(random: &mut Random, session: SessionId, cookie: Option<&[u8]>, name: Option<&str>) -> Vec<u8> {
    let mut builder = Builder::new(Class::Request, Method::CONNECT, TransactionId(bytes(random)))
        .version()
        .session_id(session)
        .public_key(&[8; 32])
        .transports(BOTH);
    if let Some(cookie) = cookie {
        builder = builder.attribute(AttributeType::NONCE, cookie);
    }
    builder = match name {
        Some(name) => builder.name(&Name::new(name).expect("a name")),
        None => builder.target_address([198, 51, 100, 7].into()),
    };
    builder.candidates(&candidates()).fingerprint().finish()
}

/// The cookie of a challenge; nothing where there is none.
pub(crate) fn cookie(challenge: &[u8]) -> Vec<u8> {
    Message::parse(challenge).ok().and_then(|message| message.nonce().map(<[u8]>::to_vec)).unwrap_or_default()
}

/// The code of an error; 0 of a success.
pub(crate) fn code(answer: &[u8]) -> u16 {
    Message::parse(answer).ok().and_then(|message| message.error_code()).map_or(0, |error| error.code)
}

/// What a process has in memory, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Of its own: heap and stacks.
    pub(crate) anonymous: u64,
    /// With the pages of its program that it has touched.
    pub(crate) resident: u64,
}

impl Memory {
    pub(crate) fn of(process: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).ok_or(io::ErrorKind::InvalidData)
        };
        Ok(Self { anonymous: field("RssAnon:")?, resident: field("VmRSS:")? })
    }
}

/// What the sockets of a host were given, and what was lost before it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) datagrams: u64,
    pub(crate) lost: u64,
}

impl Received {
    /// Datagrams count as received when a program has taken them.
    pub(crate) fn by(host: &Host) -> io::Result<Self> {
        host.within(|| {
            let (v4, v6) =
                (fs::read_to_string("/proc/thread-self/net/snmp")?, fs::read_to_string("/proc/thread-self/net/snmp6")?);
            // A line of names, and below it one of numbers.
            let mut lines = v4.lines().filter(|line| line.starts_with("Udp: ")).map(|line| line.split(' '));
            let (names, numbers) = lines.next().zip(lines.next()).ok_or(io::ErrorKind::InvalidData)?;
            let v4: Vec<_> = names.zip(numbers).collect();
            let count = |name: &str| {
                let old = v4.iter().find(|(known, _)| *known == name).and_then(|(_, number)| number.parse().ok());
                let new = v6.lines().find_map(|line| line.strip_prefix(&format!("Udp6{name} "))?.trim().parse().ok());
                old.unwrap_or(0) + new.unwrap_or(0_u64)
            };
            Ok(Self { datagrams: count("InDatagrams"), lost: count("InErrors") + count("RcvbufErrors") })
        })?
    }
}
