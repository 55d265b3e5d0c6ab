//! Decides nothing: streams of chance that do not disturb each other. Each is named, so that one more draw
//! in one of them leaves all others as they were.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// A stream of pseudo-random numbers: PCG XSL-RR 128/64 (MCG).
#[derive(Clone, Debug)]
pub struct Stream(Pcg64Mcg);

impl Stream {
    /// The stream `name` of a seed.
    pub fn new(seed: u64, name: &str) -> Self {
        // FNV-1a of the name, mixed with the seed by SplitMix64's finaliser.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(Pcg64Mcg::seed_from_u64(mixed(seed ^ mixed(hash))))
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 to `bound - 1`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound.max(1)
    }

    /// Uniform over (0, 1): never an end.
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) * (1.0 / (1_u64 << 52) as f64)
    }

    /// The logarithm of a uniform draw: minus it is exponential with mean 1. The same bits on every build.
    pub fn ln_uniform(&mut self) -> f64 {
        libm::log(self.uniform())
    }

    /// A standard normal (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * self.ln_uniform());
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Whether a thing that happens every `mean` on average happens within `span`; never when `mean` is 0.
    pub fn happens(&mut self, span: f64, mean: f64) -> bool {
        let draw = self.uniform();
        mean > 0.0 && draw < 1.0 - (-span / mean).exp()
    }
}

fn mixed(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
