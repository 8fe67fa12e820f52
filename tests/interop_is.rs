//! Our ICE agent meets another implementation, the agent of `is` (str0m's), in virtual time: as both roles, with loss,
//! when both claim the same role, and for as long as consent has to be renewed.

use holepunch::{
    config::{Checks, Consent},
    machine::{Instant, SocketId},
    punch::{Agent, AgentEvent, Candidate, CandidateKind, Provenance, Received, Role, SelectedPair},
    wire::stun::Credentials,
};
use is::{IceAgent, IceAgentEvent, IceCreds, Protocol, stun::StunMessage, stun::StunPacket};
use netsim::Random;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// From one side to the other.
const DELAY: Duration = Duration::from_millis(20);
/// How long the two live together: consent is renewed a dozen times.
const LIFE: Duration = Duration::from_secs(60);
const SOCKETS: [SocketId; 2] = [SocketId(0), SocketId(1)];
const OURS: [&str; 2] = ["192.0.2.1:5000", "[2001:db8::1]:5000"];
const OUR_PASSWORD: &str = "our password, 22 long..";
const THEIR_PASSWORD: &str = "their password, 22 long";
const THEIRS: [&str; 2] = ["192.0.2.2:6000", "[2001:db8::2]:6000"];

/// What is asked of a meeting.
#[derive(Clone, Copy, Debug)]
struct Setting {
    seed: u64,
    ours: Role,
    theirs: Role,
    /// Their tie-breaker; ours is drawn, and neither 0 nor the greatest.
    tie_breaker: u64,
    loss: f64,
}

impl Setting {
    fn new(ours: Role, theirs: Role) -> Self {
        Self { seed: 1, ours, theirs, tie_breaker: 0, loss: 0.0 }
    }
}

#[derive(Debug)]
struct Datagram {
    source: SocketAddr,
    destination: SocketAddr,
    payload: Vec<u8>,
}

/// Both agents, and what is under way between them.
struct Meeting {
    setting: Setting,
    now: Instant,
    epoch: std::time::Instant,
    ours: Agent,
    theirs: IceAgent,
    random: Random,
    /// By the time of arrival and a number.
    flights: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    is_cut: bool,
    /// Our path, since when, and how many datagrams we had sent then.
    selected: Vec<(Instant, u32, SelectedPair)>,
    /// Their paths (their own address and ours), and since when. The last one holds: unlike the RFC's agents, they
    /// choose again when a better pair turns out to work.
    nominated: Vec<(Instant, SocketAddr, SocketAddr)>,
    events: Vec<AgentEvent>,
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Meeting {
    fn new(setting: Setting) -> Self {
        Self::with_passwords(setting, OUR_PASSWORD, THEIR_PASSWORD)
    }

    /// Both know the other's credentials, but perhaps the passwords, as the other side takes them to be.
    fn with_passwords(setting: Setting, ours_told: &str, theirs_told: &str) -> Self {
        let credentials = |ufrag: &str, password: &str| Credentials { ufrag: ufrag.into(), password: password.into() };
        let creds = |ufrag: &str, pass: &str| IceCreds { ufrag: ufrag.into(), pass: pass.into() };
        let now = Instant::default();
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&setting.seed.to_le_bytes());
        let mut ours = Agent::new(
            Checks::default(),
            Consent::default(),
            setting.ours,
            credentials("ours", OUR_PASSWORD),
            credentials("theirs", theirs_told),
            seed,
        );
        let mut theirs = IceAgent::new(creds("theirs", THEIR_PASSWORD));
        theirs.set_remote_credentials(creds("ours", ours_told));
        theirs.set_controlling(setting.theirs == Role::Controlling);
        theirs.set_control_tie_breaker(setting.tie_breaker);
        for index in 0..2 {
            let (own, other) = (address(OURS[index]), address(THEIRS[index]));
            ours.add_socket(now, SOCKETS[index], own);
            ours.add_remote(now, Candidate::new(CandidateKind::Host, other, Provenance::Observed));
            theirs.add_local_candidate(is::Candidate::host(other, "udp").unwrap());
            theirs.add_remote_candidate(is::Candidate::host(own, "udp").unwrap());
        }
        let epoch = std::time::Instant::now();
        theirs.handle_timeout(epoch);
        Self {
            setting,
            now,
            epoch,
            ours,
            theirs,
            random: Random::new(setting.seed),
            flights: BTreeMap::new(),
            sent: 0,
            is_cut: false,
            selected: Vec::new(),
            nominated: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The time as they count it.
    fn their_now(&self) -> std::time::Instant {
        self.epoch + self.now.saturating_since(Instant::default())
    }

    fn send(&mut self, datagram: Datagram) {
        if !self.is_cut && !self.random.chance(self.setting.loss) {
            self.sent += 1;
            self.flights.insert((self.now + DELAY, self.sent), datagram);
        }
    }

    /// Takes everything out of both agents.
    fn drain(&mut self) {
        while let Some(transmit) = self.ours.poll_transmit() {
            let source = address(OURS[transmit.socket.0 as usize]);
            self.send(Datagram { source, destination: transmit.destination, payload: transmit.payload });
        }
        while let Some(event) = self.ours.poll_event() {
            match event {
                AgentEvent::Selected(pair) => self.selected.push((self.now, self.ours.packets_sent(), pair)),
                other => self.events.push(other),
            }
        }
        while let Some(transmit) = self.theirs.poll_transmit() {
            let (source, destination) = (transmit.source, transmit.destination);
            self.send(Datagram { source, destination, payload: transmit.contents.to_vec() });
        }
        while let Some(event) = self.theirs.poll_event() {
            if let IceAgentEvent::NominatedSend { source, destination, .. } = event {
                self.nominated.push((self.now, source, destination));
            }
        }
    }

    fn deliver(&mut self, datagram: &Datagram) {
        let Datagram { source, destination, payload } = datagram;
        if let Some(index) = OURS.iter().position(|own| address(own) == *destination) {
            let received = self.ours.handle_datagram(self.now, SOCKETS[index], *destination, *source, payload);
            assert_eq!(received, Received::Message);
        } else {
            let message = StunMessage::parse(payload).expect("they read all that we send");
            let (proto, source, destination) = (Protocol::Udp, *source, *destination);
            self.theirs.handle_packet(self.their_now(), StunPacket { proto, source, destination, message });
        }
    }

    /// Lets both live until then, or until something has happened.
    fn run(&mut self, until: Instant, is_done: impl Fn(&Self) -> bool) -> bool {
        loop {
            self.drain();
            if is_done(self) {
                return true;
            }
            let theirs = self.theirs.poll_timeout().map(|time| {
                Instant::from_nanos(time.saturating_duration_since(self.epoch).as_nanos().try_into().unwrap())
            });
            let arrival = self.flights.first_key_value().map(|((time, _), _)| *time);
            let next = [self.ours.next_timeout(), theirs, arrival].into_iter().flatten().min().unwrap();
            if next > until {
                self.now = until;
                return false;
            }
            self.now = next.max(self.now);
            while let Some(entry) = self.flights.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let datagram = entry.remove();
                self.deliver(&datagram);
            }
            if self.ours.next_timeout().is_some_and(|time| time <= self.now) {
                self.ours.handle_timeout(self.now);
            }
            if theirs.is_some_and(|time| time <= self.now) {
                self.theirs.handle_timeout(self.their_now());
            }
        }
    }

    fn is_complete(&self) -> bool {
        !self.selected.is_empty() && !self.nominated.is_empty()
    }

    /// Both come to a pair in opposite roles, and keep it for a minute.
    fn completes(mut self, within: Duration) -> Self {
        let setting = self.setting;
        assert!(self.run(Instant::default() + within, Self::is_complete), "{setting:?}");
        let completed = self.now;
        self.run(completed + LIFE, |_| false);
        assert_eq!(self.events, [], "{setting:?}");
        assert_eq!(self.ours.role() == Role::Controlling, !self.theirs.controlling(), "{setting:?}");
        assert!(self.theirs.state().is_connected(), "{setting:?}");
        let [(_, _, pair)] = self.selected[..] else { panic!("{setting:?} {:?}", self.selected) };
        let our_own = address(OURS[pair.socket.0 as usize]);
        assert_eq!(pair.local, our_own.ip(), "{setting:?}");
        let is_theirs = |(_, own, remote): &(_, _, _)| (*own, *remote) == (pair.remote, our_own);
        let is_chosen_twice = (setting.ours, setting.theirs) == (CONTROLLED, CONTROLLED);
        assert!(is_chosen_twice || self.nominated.iter().any(is_theirs), "{setting:?} {pair:?} {:?}", self.nominated);
        // Whichever they are on now: what comes that way is data, and our pair is kept alive by their answers.
        let (_, remote, local) = *self.nominated.last().unwrap();
        let socket = SOCKETS[OURS.iter().position(|own| address(own) == local).unwrap()];
        assert_eq!(self.ours.handle_datagram(self.now, socket, local, remote, b"data"), Received::Data, "{setting:?}");
        self
    }

    /// When we were done, when they were, and with how many datagrams of ours.
    fn figures(&self) -> (u128, u128, u32) {
        let (ours, packets, _) = self.selected[0];
        let (theirs, ..) = self.nominated[0];
        (millis(ours), millis(theirs), packets)
    }
}

const CONTROLLING: Role = Role::Controlling;
const CONTROLLED: Role = Role::Controlled;
const SEEDS: u64 = 100;

fn millis(time: Instant) -> u128 {
    time.saturating_since(Instant::default()).as_millis()
}

#[test]
fn we_control() {
    let meeting = Meeting::new(Setting::new(CONTROLLING, CONTROLLED)).completes(Duration::from_secs(1));
    assert_eq!(meeting.figures(), (40, 50, 10));
}

#[test]
fn they_control() {
    let meeting = Meeting::new(Setting::new(CONTROLLED, CONTROLLING)).completes(Duration::from_secs(1));
    assert_eq!(meeting.figures(), (70, 40, 11));
}

#[test]
fn both_claim_to_control() {
    for (tie_breaker, role, figures) in [(0, CONTROLLING, (40, 290, 10)), (u64::MAX, CONTROLLED, (70, 40, 13))] {
        let setting = Setting { tie_breaker, ..Setting::new(CONTROLLING, CONTROLLING) };
        let meeting = Meeting::new(setting).completes(Duration::from_secs(1));
        assert_eq!((meeting.ours.role(), meeting.figures()), (role, figures));
    }
}

/// Where both are controlled, they let the side with the smaller tie-breaker change, and the RFC the other one: both
/// change, and the conflict of two who claim to control settles it. Meanwhile both may have chosen.
#[test]
fn both_claim_to_be_controlled() {
    for (tie_breaker, role, figures) in [(0, CONTROLLING, (40, 40, 10)), (u64::MAX, CONTROLLED, (120, 90, 15))] {
        let setting = Setting { tie_breaker, ..Setting::new(CONTROLLED, CONTROLLED) };
        let meeting = Meeting::new(setting).completes(Duration::from_secs(1));
        assert_eq!((meeting.ours.role(), meeting.figures()), (role, figures));
    }
}

#[test]
fn one_datagram_in_ten_is_lost() {
    for (ours, theirs) in
        [(CONTROLLING, CONTROLLED), (CONTROLLED, CONTROLLING), (CONTROLLING, CONTROLLING), (CONTROLLED, CONTROLLED)]
    {
        for seed in 1..=SEEDS {
            for tie_breaker in [0, u64::MAX] {
                let setting = Setting { seed, tie_breaker, loss: 0.1, ..Setting::new(ours, theirs) };
                Meeting::new(setting).completes(Duration::from_secs(5));
            }
        }
    }
}

#[test]
fn a_wrong_password_is_reported_once() {
    let setting = Setting::new(CONTROLLED, CONTROLLING);
    let mut meeting = Meeting::with_passwords(setting, "another password, too", "and another one, as well");
    assert!(!meeting.run(Instant::default() + Duration::from_secs(5), Meeting::is_complete));
    assert_eq!(meeting.events, [AgentEvent::WrongSecret]);
}

#[test]
fn a_peer_that_vanishes_is_noticed_after_thirty_seconds() {
    for (ours, theirs) in [(CONTROLLING, CONTROLLED), (CONTROLLED, CONTROLLING)] {
        let mut meeting = Meeting::new(Setting::new(ours, theirs)).completes(Duration::from_secs(1));
        meeting.is_cut = true;
        let cut = meeting.now;
        let expired = |meeting: &Meeting| meeting.events == [AgentEvent::ConsentExpired];
        assert!(meeting.run(cut + Duration::from_secs(60), expired));
        // 30 s after the last answer, which came at most 6 s before.
        let after = meeting.now.saturating_since(cut);
        assert!(after > Duration::from_secs(24) && after <= Duration::from_secs(30) + DELAY, "{after:?}");
        assert_eq!(meeting.ours.next_timeout(), None);
    }
}
