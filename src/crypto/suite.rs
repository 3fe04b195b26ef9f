//! The AEADs that a session can use, and how two ends agree on one.

use std::fmt;
use std::str::FromStr;

/// An AEAD with 32-byte keys, 12-byte nonces and 16-byte tags. Ties in the choice go to the lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Suite {
    /// AES-256 in Galois/Counter Mode (NIST SP 800-38D). Needs the build feature `aws-lc` or `ring`.
    Aes256Gcm = 1,
    /// ChaCha20 and Poly1305 (RFC 8439).
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// The suites of this build.
    pub fn available() -> &'static [Suite] {
        if cfg!(any(feature = "aws-lc", feature = "ring")) {
            &[Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
        } else {
            &[Suite::ChaCha20Poly1305]
        }
    }

    /// The suite with this number on the wire.
    pub fn from_id(id: u8) -> Option<Suite> {
        [Suite::Aes256Gcm, Suite::ChaCha20Poly1305].into_iter().find(|suite| *suite as u8 == id)
    }

    /// The name that options, status and metrics use.
    pub fn label(self) -> &'static str {
        match self {
            Suite::Aes256Gcm => "aes256gcm",
            Suite::ChaCha20Poly1305 => "chacha20poly1305",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Why a text names no suite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a cipher: use aes256gcm or chacha20poly1305")]
pub struct BadSuite(String);

impl FromStr for Suite {
    type Err = BadSuite;

    fn from_str(text: &str) -> Result<Suite, BadSuite> {
        [Suite::Aes256Gcm, Suite::ChaCha20Poly1305].into_iter().find(|suite| suite.label() == text).ok_or_else(|| BadSuite(text.into()))
    }
}

/// A suite that one end offers, with what it costs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuiteTiming {
    /// The suite.
    pub suite: Suite,
    /// Nanoseconds to seal a full datagram, as measured at start.
    pub nanoseconds: u32,
}

/// The suite with the smallest sum of both ends' timings; ties go to AES. `None` where the offers have none in common.
pub fn choose(ours: &[SuiteTiming], theirs: &[SuiteTiming]) -> Option<Suite> {
    ours.iter()
        .filter_map(|our| {
            let their = theirs.iter().find(|their| their.suite == our.suite)?;
            Some((u64::from(our.nanoseconds) + u64::from(their.nanoseconds), our.suite))
        })
        .min()
        .map(|(_, suite)| suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(suite: Suite, nanoseconds: u32) -> SuiteTiming {
        SuiteTiming { suite, nanoseconds }
    }

    #[test]
    fn smaller_sum_wins_and_ties_go_to_aes() {
        let aes = |ns| timing(Suite::Aes256Gcm, ns);
        let chacha = |ns| timing(Suite::ChaCha20Poly1305, ns);
        assert_eq!(choose(&[aes(188), chacha(768)], &[chacha(700), aes(3000)]), Some(Suite::ChaCha20Poly1305));
        assert_eq!(choose(&[aes(188), chacha(768)], &[chacha(700), aes(200)]), Some(Suite::Aes256Gcm));
        assert_eq!(choose(&[chacha(5), aes(5)], &[chacha(5), aes(5)]), Some(Suite::Aes256Gcm));
        assert_eq!(choose(&[aes(1), chacha(9)], &[chacha(9)]), Some(Suite::ChaCha20Poly1305));
        assert_eq!(choose(&[aes(u32::MAX)], &[aes(u32::MAX)]), Some(Suite::Aes256Gcm));
        assert_eq!(choose(&[aes(1)], &[chacha(1)]), None);
    }

    #[test]
    fn names_round_trip() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            assert_eq!(suite.to_string().parse(), Ok(suite));
            assert_eq!(Suite::from_id(suite as u8), Some(suite));
        }
        assert!("aes".parse::<Suite>().is_err());
        assert_eq!(Suite::from_id(0), None);
    }
}
