//! Payloads that can be checked: every byte follows from a seed and its offset.

/// The byte stream of one seed, by offset, in either direction.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn block(self, index: u64) -> [u8; 8] {
        mix(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
    }

    /// Writes the bytes that belong at `offset`.
    pub fn fill(self, offset: u64, into: &mut [u8]) {
        self.walk(offset, into.len(), |at, wanted| into[at] = wanted);
    }

    /// True when `bytes` are what belongs at `offset`.
    pub fn matches(self, offset: u64, bytes: &[u8]) -> bool {
        let mut same = true;
        self.walk(offset, bytes.len(), |at, wanted| same &= bytes[at] == wanted);
        same
    }

    fn walk(self, offset: u64, length: usize, mut visit: impl FnMut(usize, u8)) {
        let mut block = self.block(offset / 8);
        for at in 0..length {
            let position = offset + at as u64;
            if at > 0 && position.is_multiple_of(8) {
                block = self.block(position / 8);
            }
            visit(at, block[(position % 8) as usize]);
        }
    }
}

/// splitmix64: a good mixer in five operations.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_stream_are_the_stream() {
        let pattern = Pattern::new(7);
        let mut whole = [0; 100];
        pattern.fill(3, &mut whole);
        let mut rest = [0; 59];
        pattern.fill(44, &mut rest);
        assert_eq!(&whole[41..], &rest);
        assert!(pattern.matches(44, &rest));
        rest[58] ^= 1;
        assert!(!pattern.matches(44, &rest));
        assert!(!Pattern::new(8).matches(3, &whole));
    }
}
