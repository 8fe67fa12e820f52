//! A meeting drawn from a seed: where the two peers are, how they are to meet, and what the oracle expects of it.

use netsim::{
    Filtering, Firewall, Link, Mapping, Nat, PortAllocation, Random, UnsolicitedSyn,
    oracle::{NatKind, is_punched},
};
use std::time::Duration;

/// One border: a NAT of IPv4, and maybe a firewall before the hosts within.
#[derive(Clone, Debug)]
pub(crate) struct Border {
    pub(crate) kind: NatKind,
    pub(crate) nat: Nat,
    pub(crate) firewall: Option<Firewall>,
    pub(crate) link: Link,
}

/// Where one of the peers is.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// From the innermost to the outermost; none: on the backbone.
    pub(crate) borders: Vec<Border>,
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
    /// The last number of its private address.
    pub(crate) number: u8,
    /// The link of its host.
    pub(crate) link: Link,
}

/// How the two are placed to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Nothing in common.
    Apart,
    /// Behind the same outermost border.
    SharedCarrier,
    /// On one LAN.
    Lan,
}

/// What is expected of a meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Both are connected.
    Connected,
    /// Connected or not: the only way is to an address that no server has seen the peer at, which is tried twice, and whose
    /// firewall refuses what comes too early.
    Either,
    /// Both give up, unless prediction or luck finds what plain punching does not.
    Timeout,
    /// The connector is told that there is no common family.
    NoPath,
}

/// A meeting of two peers, the listener first.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) layout: Layout,
    pub(crate) sides: [Side; 2],
    /// Somebody else on each side's LAN has the other's private address.
    pub(crate) strangers: bool,
    pub(crate) tcp: bool,
    pub(crate) by_name: bool,
    /// The connector begins so much after the listener, or before.
    pub(crate) listener_at: Duration,
    pub(crate) connector_at: Duration,
}

impl Scenario {
    /// Draws a meeting.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6d65_6574);
        let layout = match random.below(10) {
            0..6 => Layout::Apart,
            6..8 => Layout::SharedCarrier,
            _ => Layout::Lan,
        };
        // Half of the networks lose nothing, so that what is slow there is a fault.
        let is_lossy = random.chance(0.5);
        let mut sides = [0, 1].map(|_| side(&mut random, layout, is_lossy));
        let same_number = random.chance(0.4);
        let [first, second] = &mut sides;
        match layout {
            Layout::Apart => second.number = if same_number { first.number } else { 3 },
            Layout::SharedCarrier => {
                second.number = if same_number { first.number } else { 3 };
                *second.borders.last_mut().expect("a carrier") = first.borders.last().expect("a carrier").clone();
            }
            Layout::Lan => {
                second.number = 3;
                second.borders.clone_from(&first.borders);
            }
        }
        let (listener_at, connector_at) = match random.below(3) {
            0 => (millis(&mut random, 5000), Duration::ZERO),
            1 => (Duration::ZERO, millis(&mut random, 400)),
            _ => (Duration::ZERO, millis(&mut random, 90_000)),
        };
        Self {
            seed,
            layout,
            sides,
            strangers: layout != Layout::Lan && !same_number && random.chance(0.3),
            tcp: random.chance(0.4),
            by_name: random.chance(0.6),
            listener_at,
            connector_at,
        }
    }

    /// What is to come of it, by the definitions of RFC 4787.
    pub(crate) fn expected(&self) -> Expected {
        let [a, b] = &self.sides;
        let (both_4, both_6) = (a.ipv4 && b.ipv4, a.ipv6 && b.ipv6);
        if !both_4 && !both_6 {
            return Expected::NoPath;
        }
        let hairpins = self.layout != Layout::SharedCarrier || a.borders.last().is_some_and(|it| it.nat.hairpin);
        // Where the way from one filter to the other takes no time, SYNs cannot cross: a refusal closes what a SYN has
        // opened before the peer's can come.
        let refuses = self.tcp
            && self.layout == Layout::SharedCarrier
            && a.borders.last().is_some_and(|it| {
                it.nat.unsolicited_syn == UnsolicitedSyn::Reset
                    && it.kind.filtering == Filtering::AddressAndPortDependent
            });
        let by_4 = both_4 && hairpins && !refuses && is_punched(&a.kinds(), &b.kinds());
        let by_6 = both_6 && is_punched(&a.firewalls(), &b.firewalls());
        // A server sees a peer of two families by one of them first.
        let is_claimed = self.tcp && (a.ipv4 && a.ipv6 || b.ipv4 && b.ipv6);
        let is_refused = [a, b].into_iter().flat_map(|side| &side.borders).any(|border| {
            border.firewall.as_ref().is_some_and(|firewall| firewall.unsolicited_syn == UnsolicitedSyn::Reset)
        });
        match (self.layout, by_4, by_6) {
            (Layout::Lan, ..) | (_, true, _) => Expected::Connected,
            (_, false, true) if is_claimed && is_refused => Expected::Either,
            (_, false, true) => Expected::Connected,
            (_, false, false) => Expected::Timeout,
        }
    }

    /// The links that take time, or lose.
    fn links(&self, side: usize) -> impl Iterator<Item = &Link> {
        let Side { borders, link, .. } = &self.sides[side];
        borders.iter().map(|border| &border.link).chain([link])
    }

    pub(crate) fn is_lossy(&self) -> bool {
        (0..2).any(|side| self.links(side).any(|link| link.loss > 0.0))
    }

    /// Whether nothing is lost, nor overtakes what was sent before it.
    pub(crate) fn is_steady(&self) -> bool {
        !self.is_lossy() && (0..2).all(|side| self.links(side).all(|link| link.jitter.is_zero()))
    }

    /// The longest round trip of the two, by way of the backbone.
    pub(crate) fn round_trip(&self) -> Duration {
        (0..2).flat_map(|side| self.links(side)).map(|link| (link.delay + link.jitter) * 2).sum()
    }
}

impl Side {
    /// What IPv4 has to pass.
    fn kinds(&self) -> Vec<NatKind> {
        let of = |border: &Border| border.firewall.as_ref().map(|_| FIREWALL).into_iter().chain([border.kind]);
        self.borders.iter().flat_map(of).collect()
    }

    /// What IPv6 has to pass.
    fn firewalls(&self) -> Vec<NatKind> {
        self.borders.iter().filter_map(|border| border.firewall.as_ref().map(|_| FIREWALL)).collect()
    }
}

/// A stateful firewall, in the words of NATs.
const FIREWALL: NatKind = NatKind {
    mapping: Mapping::EndpointIndependent,
    filtering: Filtering::AddressAndPortDependent,
    ports: PortAllocation::Preserving,
};

fn millis(random: &mut Random, below: u64) -> Duration {
    Duration::from_micros(random.below(below * 1000))
}

fn side(random: &mut Random, layout: Layout, is_lossy: bool) -> Side {
    let depth = match layout {
        Layout::Apart => [0, 1, 1, 1, 2][random.below(5) as usize],
        Layout::SharedCarrier => 2,
        Layout::Lan => 1 + random.below(2),
    };
    let borders = (0..depth).map(|level| border(random, level + 1 == depth, is_lossy)).collect();
    let (ipv4, ipv6) =
        [(true, false), (true, false), (true, false), (false, true), (true, true)][random.below(5) as usize];
    // Where nothing takes time, SYNs cannot cross.
    let delay = Duration::from_micros(100) + millis(random, 3);
    Side { borders, ipv4, ipv6, number: 2, link: Link { delay, ..Link::PERFECT } }
}

fn border(random: &mut Random, is_outermost: bool, is_lossy: bool) -> Border {
    let kinds = NatKind::all();
    // Half of all NATs map endpoint-independently; in the world most do.
    let among = if random.chance(0.25) { 9 } else { 27 };
    let kind = kinds[random.below(among) as usize];
    let answer = if random.chance(0.5) { UnsolicitedSyn::Drop } else { UnsolicitedSyn::Reset };
    let lifetime = Duration::from_secs([60, 120, 300][random.below(3) as usize]);
    let nat = Nat { hairpin: random.chance(0.5), unsolicited_syn: answer, lifetime, ..kind.nat() };
    let firewall = Firewall { unsolicited_syn: answer, ..Firewall::default() };
    let mut link = Link { delay: millis(random, if is_outermost { 150 } else { 5 }), ..Link::PERFECT };
    if is_outermost && random.chance(0.5) {
        link.jitter = millis(random, 20);
    }
    if is_outermost && is_lossy {
        link.loss = 0.1 * random.unit();
    }
    // The firewall is the innermost border's, so that a carrier has none.
    Border { kind, nat, firewall: (!is_outermost || random.chance(0.3)).then_some(firewall), link }
}
