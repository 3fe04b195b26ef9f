//! Internet checksums (RFC 1071): sums of big-endian 16-bit words.

use super::frame::{Frame, Net};

/// The sum of `bytes`, not yet folded; an odd last byte counts as a high half.
pub fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0u64;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_be_bytes(*word));
    }
    let mut last = [0u8; 4];
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_be_bytes(last))
}

/// Folds a sum to 16 bits with end-around carry.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The folded, uncomplemented pseudo-header sum of a TCP or UDP segment of `length` bytes: what a partial checksum field holds.
pub fn pseudo(bytes: &[u8], frame: &Frame, length: usize) -> u16 {
    let l3 = usize::from(frame.l3);
    let addresses = match frame.net {
        Net::V4 => l3 + 12..l3 + 20,
        Net::V6 => l3 + 8..l3 + 40,
        Net::Other => l3..l3,
    };
    let addresses = bytes.get(addresses).map_or(0, sum);
    fold(addresses + u64::from(frame.protocol) + length as u64)
}

/// The partial checksum `partial` of a segment of `from` bytes, as it is for one of `to` bytes with the same addresses.
pub fn resized(partial: u16, from: usize, to: usize) -> u16 {
    fold(u64::from(partial) + u64::from(!fold(from as u64)) + to as u64)
}

/// Completes a partial checksum that starts at `start` and lies at `start + offset`; false (and unchanged) where that is outside.
pub fn complete(bytes: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(covered) = bytes.get_mut(start..) else { return false };
    if offset + 2 > covered.len() {
        return false;
    }
    // A checksum of zero means "none" in UDP; all ones is the same number.
    let value = match !fold(sum(covered)) {
        0 => 0xffff,
        value => value,
    };
    covered[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
    true
}

/// Writes the checksum of the IPv4 header `header`.
pub fn write_ipv4_header(header: &mut [u8]) {
    if header.len() >= 20 {
        header[10..12].copy_from_slice(&[0, 0]);
        let value = !fold(sum(header));
        header[10..12].copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
        assert_eq!(fold(sum(&bytes[..7])), 0xddf2 - 0xf7);
        assert_eq!(fold(sum(&[])), 0);
    }

    #[test]
    fn completing_stays_inside() {
        let mut bytes = [0u8; 8];
        assert!(complete(&mut bytes, 2, 4));
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        assert!(!complete(&mut bytes, 2, 5));
        assert!(!complete(&mut bytes, 9, 0));
        assert!(!complete(&mut bytes, usize::MAX, 0));
    }
}
