//! Rates per network, in memory that never grows: a table of token buckets, one of which a network is assigned to by
//! a keyed hash. Networks that share a bucket share its rate; with a secret key nobody can arrange that.
//!
//! A network is an IPv4 /24 or an IPv6 /56: what one customer is given, or can easily take.

use alloc::{vec, vec::Vec};
use core::net::IpAddr;

use crate::machine::Instant;

/// Thousandths of a token, the unit that buckets count in: so a rate of one a second needs no fractions.
const MILLI: u64 = 1000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of a token that are left.
    tokens: u32,
    /// When it was filled last, in milliseconds.
    filled: u32,
}

/// Token buckets for all networks.
pub(super) struct Rates {
    /// Tokens a second, and at most in a bucket; 0 for no limit.
    rate: u32,
    key: [u64; 2],
    buckets: Vec<Bucket>,
}

impl Rates {
    /// `size` is the number of buckets, each of 8 bytes.
    pub(super) fn new(rate: u32, size: usize, key: [u64; 2]) -> Self {
        let rate = rate.min(u32::MAX / 1000);
        let full = Bucket { tokens: rate.saturating_mul(1000), filled: 0 };
        let buckets = if rate == 0 { Vec::new() } else { vec![full; size.max(1)] };
        Self { rate, key, buckets }
    }

    /// Takes a token of the network that an address belongs to; false when there is none left.
    pub(super) fn take(&mut self, now: Instant, ip: IpAddr) -> bool {
        self.take_beyond(now, ip, 0)
    }

    /// The same for what can wait: only of what is left beyond half of the rate. A rate of one has no half to leave.
    pub(super) fn take_surplus(&mut self, now: Instant, ip: IpAddr) -> bool {
        let capacity = u64::from(self.rate) * MILLI;
        self.take_beyond(now, ip, (capacity / 2).min(capacity.saturating_sub(MILLI)))
    }

    /// Takes a token when so many thousandths are left behind.
    fn take_beyond(&mut self, now: Instant, ip: IpAddr, rest: u64) -> bool {
        if self.rate == 0 {
            return true;
        }
        let slot = usize::try_from(self.hash(network(ip)) % self.buckets.len() as u64).unwrap_or_default();
        let Some(bucket) = self.buckets.get_mut(slot) else { return true };
        // The low 32 bits: the difference stays right for 49 days of rest, and a bucket is full after one second.
        let millis = (now.as_nanos() / 1_000_000) as u32;
        let capacity = u64::from(self.rate) * MILLI;
        let gained = u64::from(millis.wrapping_sub(bucket.filled)) * u64::from(self.rate);
        let tokens = capacity.min(u64::from(bucket.tokens) + gained);
        let is_taken = tokens >= rest + MILLI;
        bucket.filled = millis;
        bucket.tokens = u32::try_from(if is_taken { tokens - MILLI } else { tokens }).unwrap_or(u32::MAX);
        is_taken
    }

    /// A keyed tag of an id, for [`Recent`].
    pub(super) fn tag(&self, id: &[u8; 16]) -> u64 {
        let id = u128::from_be_bytes(*id);
        mix(self.hash((id >> 64) as u64) ^ id as u64)
    }

    /// A keyed mixture (two rounds of SplitMix64's finalizer); not a cryptographic hash, and none is needed: what an
    /// attacker could win by finding a collision is the sharing of one bucket.
    fn hash(&self, network: u64) -> u64 {
        let [first, second] = self.key;
        mix(mix(network ^ first).wrapping_add(second))
    }
}

/// How many ids [`Recent`] knows; a network's share of introductions is 100 a second, and repeats are seconds apart.
const RECENT: usize = 4096;

/// Which ids were seen lately, as far as a table of fixed size can tell: an id may be forgotten early.
pub(super) struct Recent(Vec<u64>);

impl Recent {
    pub(super) fn new() -> Self {
        Self(vec![0; RECENT])
    }

    /// Whether an id is known, by its tag.
    pub(super) fn knows(&self, tag: u64) -> bool {
        self.0.get(Self::slot(tag)) == Some(&tag)
    }

    /// Notes an id by its tag.
    pub(super) fn note(&mut self, tag: u64) {
        if let Some(known) = self.0.get_mut(Self::slot(tag)) {
            *known = tag;
        }
    }

    fn slot(tag: u64) -> usize {
        usize::try_from(tag % RECENT as u64).unwrap_or_default()
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The network of an address as a number: the upper 24 or 56 bits, and the family.
pub(super) fn network(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8) | 4 << 56,
        IpAddr::V6(ip) => (ip.to_bits() >> 72) as u64 | 6 << 56,
    }
}

/// The network that many customers' networks are part of, as a number apart from those: the upper 16 or 48 bits.
pub(super) const fn provider(network: u64) -> u64 {
    (network & ((1 << 56) - 1)) >> 8 | ((network >> 56) + 10) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_gets_its_rate_and_no_more() {
        let mut rates = Rates::new(10, 1024, [1, 2]);
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let taken = |rates: &mut Rates, millis, last| {
            (0..100).filter(|_| rates.take(at(millis), IpAddr::from([192, 0, 2, last]))).count()
        };
        assert_eq!(taken(&mut rates, 5000, 1), 10);
        assert_eq!(taken(&mut rates, 5000, 2), 0, "the same /24");
        assert_eq!(taken(&mut rates, 5500, 1), 5);
        assert_eq!(taken(&mut rates, 60_000, 1), 10);
        assert!(rates.take(at(60_000), IpAddr::from([198, 51, 100, 1])));
    }

    #[test]
    fn what_can_wait_leaves_half_to_the_rest() {
        let mut rates = Rates::new(10, 1024, [1, 2]);
        let (now, ip) = (Instant::default(), IpAddr::from([192, 0, 2, 1]));
        assert_eq!((0..100).filter(|_| rates.take_surplus(now, ip)).count(), 5);
        assert_eq!((0..100).filter(|_| rates.take(now, ip)).count(), 5);
        let later = Instant::from_nanos(700_000_000);
        assert_eq!((0..100).filter(|_| rates.take_surplus(later, ip)).count(), 2, "7 are there by now");
        let mut one = Rates::new(1, 1024, [1, 2]);
        assert_eq!(
            [now, now, now + core::time::Duration::from_secs(1)].map(|now| one.take_surplus(now, ip)),
            [true, false, true]
        );
    }

    #[test]
    fn an_id_is_known_until_others_take_its_place() {
        let (rates, mut recent) = (Rates::new(10, 1024, [1, 2]), Recent::new());
        let tag = |number: u64| rates.tag(&(u128::from(number) << 64 | 7).to_be_bytes());
        for number in [1, 2, 1] {
            recent.note(tag(number));
        }
        assert_eq!([1, 2, 3].map(|number| recent.knows(tag(number))), [true, true, false]);
        for number in 10..1_000_000 {
            recent.note(tag(number));
        }
        assert!(!recent.knows(tag(1)));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let mut rates = Rates::new(0, 1024, [1, 2]);
        assert!((0..10_000).all(|_| rates.take(Instant::default(), IpAddr::from([192, 0, 2, 1]))));
    }

    #[test]
    fn a_provider_has_many_networks() {
        let of = |text: &str| provider(network(text.parse().unwrap()));
        assert_eq!(of("192.0.2.1"), of("192.0.255.1"));
        assert_ne!(of("192.0.2.1"), of("192.1.2.1"));
        assert_eq!(of("2001:db8:0:ff::1"), of("2001:db8:0:ffff::1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:1::1"));
        assert_ne!(of("0.0.0.1"), of("::1"), "nor is one a network, or of the other family");
    }

    #[test]
    fn an_ipv6_network_is_a_56() {
        let net = |text: &str| network(text.parse().unwrap());
        assert_eq!(net("2001:db8:0:ff::1"), net("2001:db8:0:1::2"));
        assert_ne!(net("2001:db8:0:100::1"), net("2001:db8:0:1::1"));
    }
}
