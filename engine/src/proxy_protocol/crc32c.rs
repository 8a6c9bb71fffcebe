//! The checksum of a header: CRC-32C (Castagnoli; RFC 4960 appendix B).

/// The polynomial, its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ if value & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

/// Of the parts, one behind the other.
pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ TABLE[usize::from(sum as u8 ^ *byte)];
    !parts.iter().copied().flatten().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn pinned_vectors() {
        // RFC 3720 appendix B.4, and the check value of the CRC catalogue.
        let counted: Vec<u8> = (0..32).collect();
        let reversed: Vec<u8> = (0..32).rev().collect();
        for (bytes, sum) in [
            (&[][..], 0),
            (b"123456789", 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&counted, 0x46dd_794e),
            (&reversed, 0x113f_db5c),
        ] {
            assert_eq!(crc32c(&[bytes]), sum, "{bytes:?}");
            let (head, tail) = bytes.split_at(bytes.len() / 3);
            assert_eq!(crc32c(&[head, &[], tail]), sum, "{bytes:?} in parts");
        }
    }
}
