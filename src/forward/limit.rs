//! Rate limits: a token bucket that is told the time.

use crate::time::Time;

/// So many events per second, with a burst.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    per_second: u64,
    burst: u64,
    /// Tokens in billionths, so that no refill is lost to rounding.
    nano_tokens: u64,
    at: Time,
}

const NANOS: u64 = 1_000_000_000;

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_second: u64, burst: u64) -> TokenBucket {
        TokenBucket { per_second, burst, nano_tokens: burst.saturating_mul(NANOS), at: Time::ZERO }
    }

    /// Takes `n` tokens; false (and takes none) where there are fewer.
    pub fn take(&mut self, now: Time, n: u64) -> bool {
        let passed = now.0.saturating_sub(self.at.0);
        if passed > 0 {
            self.at = now;
            let refilled = self.nano_tokens.saturating_add(passed.saturating_mul(self.per_second));
            self.nano_tokens = refilled.min(self.burst.saturating_mul(NANOS));
        }
        let cost = n.saturating_mul(NANOS);
        let enough = self.nano_tokens >= cost;
        if enough {
            self.nano_tokens -= cost;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let mut bucket = TokenBucket::new(10, 2);
        assert!(bucket.take(Time(5), 1) && bucket.take(Time(5), 1) && !bucket.take(Time(5), 1));
        assert!(!bucket.take(Time(99_000_000), 1));
        assert!(bucket.take(Time(105_000_000), 1) && !bucket.take(Time(105_000_000), 1));
        assert!(!bucket.take(Time(u64::MAX), 3) && bucket.take(Time(u64::MAX), 2));
    }
}
