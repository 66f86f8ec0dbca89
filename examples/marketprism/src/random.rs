//! Numbers that follow from a seed: `SplitMix64`. Not for secrets.

/// A stream of numbers; the same seed gives the same stream on every machine.
pub(crate) struct Random(u64);

impl Random {
    /// A stream of its own for each combination of parts, so that adding one series does not change the others.
    pub(crate) fn of(seed: u64, parts: &[&str]) -> Self {
        let mut state = seed ^ 0xCBF2_9CE4_8422_2325;
        for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        Self(state)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// From 0 up to, not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Near enough to a normal distribution: mean 0, deviation 1, and never beyond 4.2, so that noise is no anomaly.
    pub(crate) fn noise(&mut self) -> f64 {
        let sum: f64 = (0..6).map(|_| self.unit()).sum();
        (sum - 3.0) * 2.0_f64.sqrt()
    }
}
