//! The simulator's own generator: xoshiro256**, seeded by SplitMix64 (Blackman and Vigna, <https://prng.di.unimi.it/>).
//!
//! Its own, because a trace must not change when a dependency does. It is no cryptographic generator.

/// A small seeded generator, for the simulator and for the tests that drive it.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

/// Returns the SplitMix64 output for one state: a bijection that scatters neighbouring inputs.
pub(crate) const fn scatter(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Returns 53 bits of `word` as a number in `0.0..1.0`.
pub(crate) fn unit(word: u64) -> f64 {
    (word >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

impl Random {
    /// Starts a generator; every seed, zero included, is a good one.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        Self([
            scatter(seed),
            scatter(seed.wrapping_add(GOLDEN)),
            scatter(seed.wrapping_add(GOLDEN.wrapping_mul(2))),
            scatter(seed.wrapping_add(GOLDEN.wrapping_mul(3))),
        ])
    }

    /// Returns the next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Returns a number in `0..bound`, or 0 for a bound of 0. The bias is below `bound` in 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Returns a number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        unit(self.next_u64())
    }

    /// Returns true with the given probability; 0.0 and 1.0 draw nothing, so a clean link leaves the generator alone.
    pub fn chance(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        probability >= 1.0 || self.unit() < probability
    }

    /// Returns how many events of a Poisson process fall into a span in which `mean` are expected.
    ///
    /// It uses the platform's logarithm: traces that need it agree between processes, not necessarily between platforms.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        let mut count = 0;
        let mut sum = -(1.0 - self.unit()).ln();
        while sum < mean {
            count += 1;
            sum -= (1.0 - self.unit()).ln();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_reference_implementation() {
        // The state of the published example, {1, 2, 3, 4}.
        let mut random = Random([1, 2, 3, 4]);
        let first: Vec<u64> = (0..4).map(|_| random.next_u64()).collect();
        assert_eq!(first, [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn draws_are_uniform_enough() {
        let mut random = Random::new(7);
        let hits = (0..10_000).filter(|_| random.chance(0.1)).count();
        assert!((900..1100).contains(&hits), "{hits}");
        let mean = (0..1000).map(|_| random.poisson(5.0)).sum::<u64>();
        assert!((4700..5300).contains(&mean), "{mean}");
        assert!((0..1000).all(|_| random.below(10) < 10));
        assert_eq!(random.below(0), 0);
    }
}
