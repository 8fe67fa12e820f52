//! A small TCP: what a host's stack does with segments, as far as hole punching can tell (RFC 9293).
//!
//! It has ports that a listener and any number of connections share (`SO_REUSEPORT`), the three-way handshake, simultaneous
//! open, refusal, ordered and reliable data, both halves of the close, and the challenge that a SYN out of place is answered
//! with (RFC 5961). It has no windows, no options and no congestion control: no test here sends enough to need them.
//!
//! A stack makes segments and events, and has a next timeout; the [`Network`](crate::Network) carries the segments, calls at
//! the timeout and hands out the events.

use crate::network::HostId;
use crate::random::scatter;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A SYN, or the answer to one, is repeated after this; each later time after twice as long (RFC 6298 section 2).
const FIRST_SYN: Duration = Duration::from_secs(1);
/// So many times, as Linux does (`tcp_syn_retries`).
const SYN_RETRIES: u32 = 6;
/// Data and FIN are repeated after this; each later time after twice as long. The minimum of Linux.
const FIRST_DATA: Duration = Duration::from_millis(200);
/// So many times.
const DATA_RETRIES: u32 = 12;
/// The longest time between repetitions.
const LONGEST: Duration = Duration::from_secs(120);
/// A pair of endpoints rests this long after both halves were closed, and a half-closed orphan waits as long, as in Linux.
const TIME_WAIT: Duration = Duration::from_secs(60);
/// Most bytes of a segment.
const SEGMENT: usize = 1200;
/// The first port given where none is asked for (RFC 6335).
const FIRST_EPHEMERAL: u16 = 49_152;

/// The header of a segment, but for its ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpHeader {
    /// Begins a connection.
    pub syn: bool,
    /// The acknowledgement counts.
    pub ack: bool,
    /// Ends a connection at once.
    pub rst: bool,
    /// Ends what the sender has to say.
    pub fin: bool,
    /// The number of the first byte.
    pub sequence: u32,
    /// The number of the next byte that is expected.
    pub acknowledgement: u32,
}

impl TcpHeader {
    /// Whether it asks for a connection.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        self.syn && !self.ack
    }

    /// The refusal of a connection request.
    pub(crate) const fn refusal(&self) -> Self {
        Self { rst: true, ack: true, acknowledgement: self.sequence.wrapping_add(1), ..NO_FLAGS }
    }

    pub(crate) const fn is_refusal(&self) -> bool {
        self.rst && self.ack && self.sequence == 0
    }
}

const NO_FLAGS: TcpHeader =
    TcpHeader { syn: false, ack: false, rst: false, fin: false, sequence: 0, acknowledgement: 0 };

impl fmt::Display for TcpHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [(self.syn, "SYN"), (self.rst, "RST"), (self.fin, "FIN"), (self.ack, "ACK")];
        for (_, name) in flags.iter().filter(|(set, _)| *set) {
            write!(f, "{name} ")?;
        }
        write!(f, "seq {} ack {}", self.sequence, self.acknowledgement)
    }
}

/// A segment between two endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) header: TcpHeader,
    pub(crate) payload: Vec<u8>,
}

/// A reserved port of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpPort {
    pub(crate) host: HostId,
    number: u32,
}

/// A connection of one host, or an attempt at one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpConnection {
    pub(crate) host: HostId,
    number: u32,
}

/// Why a connection did not come about, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpFailure {
    /// The answer to the SYN was a RST.
    Refused,
    /// A RST came.
    Reset,
    /// Nothing was acknowledged for long.
    TimedOut,
}

/// What a stack tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpEvent {
    /// Somebody has connected to a port that is listened on.
    Accepted {
        /// The port.
        port: TcpPort,
        /// The connection.
        connection: TcpConnection,
        /// Our endpoint.
        local: SocketAddr,
        /// The other's.
        remote: SocketAddr,
    },
    /// A connect has succeeded.
    Connected {
        /// The connection.
        connection: TcpConnection,
        /// Our endpoint.
        local: SocketAddr,
    },
    /// A connection did not come about, or is over; nothing follows.
    Failed {
        /// The connection.
        connection: TcpConnection,
        /// Why.
        why: TcpFailure,
    },
    /// Bytes have arrived.
    Data {
        /// The connection.
        connection: TcpConnection,
        /// The bytes, in order.
        bytes: Vec<u8>,
    },
    /// The other side has nothing more to say.
    Ended {
        /// The connection.
        connection: TcpConnection,
    },
}

/// Why a call did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpError {
    /// The port, or the pair of endpoints, is in use.
    InUse,
    /// The host has no address to send from.
    NoAddress,
    /// The port was released.
    Released,
}

#[derive(Debug)]
struct Port {
    local: SocketAddr,
    listens: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SynSent,
    SynReceived,
    Established,
    /// Both halves are closed; the pair of endpoints rests.
    TimeWait,
}

/// One connection. Sequence numbers are kept as offsets from the initial ones: the SYN is 0, the first byte 1.
#[derive(Debug)]
struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    state: State,
    /// The port that a connection was accepted at; none for one of ours.
    accepted_at: Option<u32>,
    initial: u32,
    /// What is not acknowledged yet, from offset `acknowledged` on.
    unacknowledged: VecDeque<u8>,
    acknowledged: u32,
    initial_theirs: u32,
    /// The next offset expected.
    expected: u32,
    early: BTreeMap<u32, Vec<u8>>,
    their_fin: Option<u32>,
    ended: bool,
    /// The application has closed it: a FIN follows the data, and nobody hears what comes.
    closed: bool,
    /// ... after the other side has.
    closed_last: bool,
    fin_acknowledged: bool,
    timeout: Option<Time>,
    interval: Duration,
    tries: u32,
}

/// The TCP of one host.
#[derive(Debug)]
pub(crate) struct Stack {
    host: HostId,
    ports: BTreeMap<u32, Port>,
    connections: BTreeMap<u32, Connection>,
    by_pair: BTreeMap<(SocketAddr, SocketAddr), u32>,
    next: u32,
    next_ephemeral: u16,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) events: VecDeque<TcpEvent>,
}

impl Stack {
    pub(crate) const fn new(host: HostId) -> Self {
        Self {
            host,
            ports: BTreeMap::new(),
            connections: BTreeMap::new(),
            by_pair: BTreeMap::new(),
            next: 0,
            next_ephemeral: FIRST_EPHEMERAL,
            segments: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    const fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    const fn handle(&self, number: u32) -> TcpConnection {
        TcpConnection { host: self.host, number }
    }

    pub(crate) fn bind(&mut self, mut local: SocketAddr) -> Result<(TcpPort, SocketAddr), TcpError> {
        let taken: BTreeSet<_> =
            self.ports.values().filter(|port| overlap(port.local, local)).map(|port| port.local.port()).collect();
        if local.port() == 0 {
            while taken.contains(&self.next_ephemeral) {
                self.next_ephemeral = self.next_ephemeral.checked_add(1).ok_or(TcpError::InUse)?;
            }
            local.set_port(self.next_ephemeral);
            self.next_ephemeral = self.next_ephemeral.checked_add(1).unwrap_or(FIRST_EPHEMERAL);
        } else if taken.contains(&local.port()) {
            return Err(TcpError::InUse);
        }
        let number = self.number();
        self.ports.insert(number, Port { local, listens: false });
        Ok((TcpPort { host: self.host, number }, local))
    }

    pub(crate) fn listen(&mut self, port: TcpPort) {
        if let Some(port) = self.ports.get_mut(&port.number) {
            port.listens = true;
        }
    }

    pub(crate) fn release(&mut self, port: TcpPort) {
        self.ports.remove(&port.number);
    }

    /// Begins to connect from a port; `own` are the host's addresses.
    pub(crate) fn connect(
        &mut self,
        now: Time,
        port: TcpPort,
        remote: SocketAddr,
        own: &[IpAddr],
    ) -> Result<TcpConnection, TcpError> {
        let port = self.ports.get(&port.number).ok_or(TcpError::Released)?.local;
        let same_family = || own.iter().find(|ip| ip.is_ipv6() == remote.is_ipv6()).copied();
        let to_itself = Some(remote.ip()).filter(|ip| own.contains(ip));
        let bound = Some(port.ip()).filter(|ip| !ip.is_unspecified());
        let ip = bound.or(to_itself).or_else(same_family).ok_or(TcpError::NoAddress)?;
        let local = SocketAddr::new(ip, port.port());
        if self.by_pair.contains_key(&(local, remote)) {
            return Err(TcpError::InUse);
        }
        let number = self.open(now, local, remote, State::SynSent, None);
        self.transmit(number);
        Ok(self.handle(number))
    }

    fn open(
        &mut self,
        now: Time,
        local: SocketAddr,
        remote: SocketAddr,
        state: State,
        accepted_at: Option<u32>,
    ) -> u32 {
        let number = self.number();
        let initial = scatter(u64::from(self.host.0) << 32 | u64::from(number)) as u32;
        let connection = Connection {
            local,
            remote,
            state,
            accepted_at,
            initial,
            unacknowledged: VecDeque::new(),
            acknowledged: 0,
            initial_theirs: 0,
            expected: 1,
            early: BTreeMap::new(),
            their_fin: None,
            ended: false,
            closed: false,
            closed_last: false,
            fin_acknowledged: false,
            timeout: Some(now + FIRST_SYN),
            interval: FIRST_SYN,
            tries: 0,
        };
        self.connections.insert(number, connection);
        self.by_pair.insert((local, remote), number);
        number
    }

    /// Sends bytes, now or when the connection is there.
    pub(crate) fn send(&mut self, now: Time, connection: TcpConnection, bytes: &[u8]) {
        let Some(it) = self.connections.get_mut(&connection.number).filter(|it| !it.closed) else { return };
        let from = it.unacknowledged.len();
        it.unacknowledged.extend(bytes);
        if it.state == State::Established {
            it.arm(now);
            self.transmit_data(connection.number, from);
        }
    }

    /// Closes a connection: what was sent still arrives. An attempt ends in silence, or with a RST once the other side's
    /// SYN was heard, as with a linger time of zero.
    pub(crate) fn close(&mut self, now: Time, connection: TcpConnection) {
        let number = connection.number;
        let Some(it) = self.connections.get_mut(&number).filter(|it| !it.closed) else { return };
        match it.state {
            State::SynSent => self.remove(number),
            State::SynReceived => self.abort(connection),
            State::TimeWait => {}
            State::Established => {
                it.closed = true;
                it.closed_last = it.ended;
                it.arm(now);
                let from = it.unacknowledged.len();
                self.transmit_data(number, from);
                self.settle(now, number);
            }
        }
    }

    /// Ends a connection with a RST.
    pub(crate) fn abort(&mut self, connection: TcpConnection) {
        let Some(it) = self.connections.get(&connection.number) else { return };
        if matches!(it.state, State::SynReceived | State::Established) {
            let syn = usize::from(it.state == State::SynReceived);
            let header = TcpHeader { rst: true, ..it.header(it.unacknowledged.len() * (1 - syn) + syn) };
            self.push(connection.number, header, Vec::new());
        }
        self.remove(connection.number);
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.values().filter(|it| it.state != State::TimeWait).count()
    }

    pub(crate) fn ports(&self) -> usize {
        self.ports.len()
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.connections.values().filter_map(|it| it.timeout).min()
    }

    /// Repeats what was not acknowledged, and gives up what was repeated often enough.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        let due = self.connections.iter().filter(|(_, it)| it.timeout.is_some_and(|time| time <= now));
        let due: Vec<_> = due.map(|(number, _)| *number).collect();
        for number in due {
            let Some(it) = self.connections.get_mut(&number) else { continue };
            let retries = match it.state {
                State::SynSent | State::SynReceived => SYN_RETRIES,
                State::Established if it.is_idle() => 0,
                State::Established => DATA_RETRIES,
                State::TimeWait => 0,
            };
            it.tries += 1;
            if it.tries > retries {
                let is_news = !it.closed && (it.accepted_at.is_none() || it.state == State::Established);
                if is_news {
                    let connection = self.handle(number);
                    self.events.push_back(TcpEvent::Failed { connection, why: TcpFailure::TimedOut });
                }
                self.remove(number);
                continue;
            }
            it.interval = (it.interval * 2).min(LONGEST);
            it.timeout = Some(now + it.interval);
            self.transmit(number);
        }
    }

    fn remove(&mut self, number: u32) {
        if let Some(gone) = self.connections.remove(&number) {
            self.by_pair.remove(&(gone.local, gone.remote));
        }
    }

    fn push(&mut self, number: u32, header: TcpHeader, payload: Vec<u8>) {
        let Some(it) = self.connections.get(&number) else { return };
        self.segments.push_back(Segment { source: it.local, destination: it.remote, header, payload });
    }

    /// Sends what the state has to say, from the first that is not acknowledged.
    fn transmit(&mut self, number: u32) {
        let Some(it) = self.connections.get(&number) else { return };
        match it.state {
            State::SynSent => {
                let header = TcpHeader { syn: true, sequence: it.initial, ..NO_FLAGS };
                self.push(number, header, Vec::new());
            }
            State::SynReceived => {
                let header = TcpHeader { syn: true, sequence: it.initial, ..it.header(0) };
                self.push(number, header, Vec::new());
            }
            State::Established => self.transmit_data(number, 0),
            State::TimeWait => {}
        }
    }

    /// Sends what is not acknowledged, but for the first bytes of it, and the FIN behind it.
    fn transmit_data(&mut self, number: u32, from: usize) {
        let Some(it) = self.connections.get(&number) else { return };
        let bytes: Vec<u8> = it.unacknowledged.iter().skip(from).copied().collect();
        let (fin, end) = (it.closed && !it.fin_acknowledged, it.unacknowledged.len());
        let mut segments: Vec<_> = bytes
            .chunks(SEGMENT)
            .enumerate()
            .map(|(index, chunk)| (it.header(from + index * SEGMENT), chunk.to_vec()))
            .collect();
        if fin {
            match segments.last_mut() {
                Some((header, _)) => header.fin = true,
                None => segments.push((TcpHeader { fin: true, ..it.header(end) }, Vec::new())),
            }
        }
        for (header, payload) in segments {
            self.push(number, header, payload);
        }
    }

    /// Acknowledges what has arrived.
    fn acknowledge(&mut self, number: u32) {
        let Some(it) = self.connections.get(&number) else { return };
        self.push(number, it.header(it.unacknowledged.len() + usize::from(it.fin_acknowledged)), Vec::new());
    }

    /// Takes a segment in that has come to this host.
    pub(crate) fn handle_segment(&mut self, now: Time, segment: &Segment) {
        let pair = (segment.destination, segment.source);
        let Some(number) = self.by_pair.get(&pair).copied() else { return self.handle_stranger(now, segment) };
        let Some(it) = self.connections.get_mut(&number) else { return };
        let header = segment.header;
        let ours = header.acknowledgement.wrapping_sub(it.initial);
        match it.state {
            State::SynSent => {
                let acknowledges = header.ack && ours == 1;
                if header.rst {
                    if acknowledges {
                        self.fail(number, TcpFailure::Refused);
                    }
                } else if header.ack && !acknowledges {
                    self.refuse(segment);
                } else if header.syn {
                    it.initial_theirs = header.sequence;
                    if header.ack {
                        self.establish(now, number);
                        self.acknowledge(number);
                    } else {
                        it.state = State::SynReceived;
                        it.tries = 0;
                        it.interval = FIRST_SYN;
                        it.timeout = Some(now + FIRST_SYN);
                        self.transmit(number);
                    }
                }
            }
            State::SynReceived => {
                let theirs = header.sequence.wrapping_sub(it.initial_theirs);
                if header.rst {
                    if theirs == it.expected {
                        self.fail(number, TcpFailure::Refused);
                    }
                } else if header.syn && theirs != 0 {
                    self.acknowledge(number);
                } else if header.is_request() {
                    self.transmit(number);
                } else if header.ack && ours == 1 {
                    self.establish(now, number);
                    if !header.syn {
                        self.take_in(now, number, segment);
                    }
                } else if header.ack {
                    self.refuse(segment);
                }
            }
            State::Established => {
                let theirs = header.sequence.wrapping_sub(it.initial_theirs);
                if header.rst {
                    // Bytes before it may have been lost; it stands within what could be a window.
                    if theirs.wrapping_sub(it.expected) < 1 << 16 {
                        self.fail(number, TcpFailure::Reset);
                    }
                } else if header.syn {
                    self.acknowledge(number);
                } else {
                    self.take_in(now, number, segment);
                }
            }
            State::TimeWait => {
                if header.fin {
                    self.acknowledge(number);
                }
            }
        }
    }

    /// A segment of no connection: it may begin one.
    fn handle_stranger(&mut self, now: Time, segment: &Segment) {
        if segment.header.rst {
            return;
        }
        let is_there = |port: &Port| {
            port.listens && port.local.port() == segment.destination.port() && overlap(port.local, segment.destination)
        };
        match self.ports.iter().find(|(_, port)| is_there(port)) {
            Some((port, _)) if segment.header.is_request() => {
                let port = *port;
                let number = self.open(now, segment.destination, segment.source, State::SynReceived, Some(port));
                if let Some(it) = self.connections.get_mut(&number) {
                    it.initial_theirs = segment.header.sequence;
                }
                self.transmit(number);
            }
            _ => self.refuse(segment),
        }
    }

    /// Answers a segment that nobody wants.
    fn refuse(&mut self, segment: &Segment) {
        if segment.header.rst {
            return;
        }
        let header = if segment.header.ack {
            TcpHeader { rst: true, sequence: segment.header.acknowledgement, ..NO_FLAGS }
        } else {
            segment.header.refusal()
        };
        let (source, destination) = (segment.destination, segment.source);
        self.segments.push_back(Segment { source, destination, header, payload: Vec::new() });
    }

    fn fail(&mut self, number: u32, why: TcpFailure) {
        let Some(it) = self.connections.get(&number) else { return };
        // What was never accepted, or is closed, nobody waits for.
        if !it.closed && (it.accepted_at.is_none() || it.state == State::Established) {
            let connection = self.handle(number);
            self.events.push_back(TcpEvent::Failed { connection, why });
        }
        self.remove(number);
    }

    fn establish(&mut self, now: Time, number: u32) {
        let connection = self.handle(number);
        let Some(it) = self.connections.get_mut(&number) else { return };
        it.state = State::Established;
        it.acknowledged = 1;
        it.timeout = None;
        it.tries = 0;
        let (local, remote) = (it.local, it.remote);
        match it.accepted_at {
            _ if it.closed => {}
            None => self.events.push_back(TcpEvent::Connected { connection, local }),
            Some(port) if self.ports.contains_key(&port) => {
                let port = TcpPort { host: self.host, number: port };
                self.events.push_back(TcpEvent::Accepted { port, connection, local, remote });
            }
            // The listener has gone in the meantime.
            Some(_) => return self.abort(connection),
        }
        if !it.unacknowledged.is_empty() || it.closed {
            it.arm(now);
            self.transmit_data(number, 0);
        }
    }

    /// Takes in acknowledgement, data and FIN of an established connection.
    fn take_in(&mut self, now: Time, number: u32, segment: &Segment) {
        let connection = self.handle(number);
        let Some(it) = self.connections.get_mut(&number) else { return };
        let header = segment.header;
        if header.ack {
            it.handle_acknowledgement(now, header.acknowledgement.wrapping_sub(it.initial));
        }
        let offset = header.sequence.wrapping_sub(it.initial_theirs);
        let length = u32::try_from(segment.payload.len()).unwrap_or(u32::MAX);
        if length > 0 && it.closed {
            // Nobody is there to hear it.
            return self.abort(connection);
        }
        if header.fin {
            it.their_fin = Some(offset.wrapping_add(length));
        }
        if length > 0 && offset < 1 << 31 && offset + length > it.expected {
            it.early.insert(offset, segment.payload.clone());
        }
        let bytes = it.in_order();
        let ends = !it.ended && it.their_fin == Some(it.expected);
        if ends {
            it.ended = true;
            it.expected += 1;
        }
        let is_closed = it.closed;
        if !bytes.is_empty() {
            self.events.push_back(TcpEvent::Data { connection, bytes });
        }
        if ends && !is_closed {
            self.events.push_back(TcpEvent::Ended { connection });
        }
        if length > 0 || header.fin {
            self.acknowledge(number);
        }
        self.settle(now, number);
    }

    /// Lets a connection go when both halves are closed.
    fn settle(&mut self, now: Time, number: u32) {
        let Some(it) = self.connections.get_mut(&number) else { return };
        match (it.fin_acknowledged, it.ended) {
            (true, true) if it.closed_last => self.remove(number),
            (true, true) => {
                it.state = State::TimeWait;
                it.timeout = Some(now + TIME_WAIT);
                it.tries = 0;
            }
            (true, false) if it.timeout.is_none() => it.timeout = Some(now + TIME_WAIT),
            _ => {}
        }
    }
}

impl Connection {
    /// A header that sends from the `ahead`th byte that is not acknowledged, and acknowledges what has come.
    fn header(&self, ahead: usize) -> TcpHeader {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        let sequence = self.initial.wrapping_add(self.acknowledged).wrapping_add(ahead);
        TcpHeader { ack: true, sequence, acknowledgement: self.initial_theirs.wrapping_add(self.expected), ..NO_FLAGS }
    }

    fn is_idle(&self) -> bool {
        self.unacknowledged.is_empty() && (!self.closed || self.fin_acknowledged)
    }

    /// Starts to wait for an acknowledgement, unless it is waited for already.
    fn arm(&mut self, now: Time) {
        if self.timeout.is_none() {
            self.interval = FIRST_DATA;
            self.tries = 0;
            self.timeout = Some(now + FIRST_DATA);
        }
    }

    fn handle_acknowledgement(&mut self, now: Time, offset: u32) {
        let length = u32::try_from(self.unacknowledged.len()).unwrap_or(u32::MAX);
        let advance = offset.wrapping_sub(self.acknowledged);
        let fin = u32::from(self.closed && !self.fin_acknowledged);
        if advance == 0 || advance > length + fin {
            return;
        }
        self.fin_acknowledged |= advance > length;
        self.unacknowledged.drain(..advance.min(length) as usize);
        self.acknowledged += advance.min(length);
        self.timeout = None;
        if !self.is_idle() {
            self.arm(now);
        }
    }

    /// Takes out what follows what was taken before.
    fn in_order(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some((offset, early)) = self.early.pop_first() {
            if offset > self.expected {
                self.early.insert(offset, early);
                break;
            }
            let known = (self.expected - offset) as usize;
            let fresh = early.get(known..).unwrap_or_default();
            self.expected += u32::try_from(fresh.len()).unwrap_or(u32::MAX);
            bytes.extend(fresh);
        }
        bytes
    }
}

/// Whether two bound addresses are of one family and one could be the other's; their ports are not looked at.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.is_ipv6() == other.is_ipv6()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}
