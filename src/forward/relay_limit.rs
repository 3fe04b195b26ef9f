//! What one neighbour may have this router pass on for others (`--relay-limit`).

use std::str::FromStr;

use super::forwarder::DEFAULT_RELAY_BUDGET;

/// Less than this hardly carries a conversation; who wants less passes nothing on.
const LEAST_BITS: u64 = 64_000;

/// A rate for each neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayLimit {
    /// None but [`DEFAULT_RELAY_BUDGET`], which only a neighbour gone mad meets.
    Off,
    /// So many bits of datagrams per second.
    BitsPerSecond(u64),
}

impl RelayLimit {
    /// Bytes per second for each neighbour on one of so many packet threads. Threads share nothing that they would write to for every datagram, so
    /// each has its part of the limit, which so holds for the router as a whole.
    pub fn per_thread(self, threads: usize) -> u64 {
        match self {
            RelayLimit::Off => DEFAULT_RELAY_BUDGET,
            RelayLimit::BitsPerSecond(bits) => bits / 8 / u64::try_from(threads.max(1)).unwrap_or(u64::MAX),
        }
    }
}

impl FromStr for RelayLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<RelayLimit, String> {
        let wrong = || format!("'{text}' is no rate: write a whole number and a unit, as 500kbit, 100mbit or 1gbit, or off");
        let lower = text.to_ascii_lowercase();
        // An empty variable says nothing.
        if lower.is_empty() || lower == "off" {
            return Ok(RelayLimit::Off);
        }
        let (number, unit) = lower.split_at(lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len()));
        let factor = match unit {
            "bit" => 1,
            "kbit" => 1_000,
            "mbit" => 1_000_000,
            "gbit" => 1_000_000_000,
            "tbit" => 1_000_000_000_000,
            // A number alone might be meant in any of these, and what others call bps is bytes in one tool and bits in the next.
            _ => return Err(wrong()),
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
            None => Err(wrong()),
            Some(bits) if bits < LEAST_BITS => {
                Err(format!("'{text}' is too little: give at least {}kbit, or pass nothing on by --allow-forwarding=no", LEAST_BITS / 1000))
            }
            Some(bits) => Ok(RelayLimit::BitsPerSecond(bits)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_as_tools_write_them() {
        for (text, bits) in [("500kbit", 500_000), ("100mbit", 100_000_000), ("1Gbit", 1_000_000_000), ("64000bit", 64_000)] {
            assert_eq!(text.parse(), Ok(RelayLimit::BitsPerSecond(bits)), "{text}");
        }
        assert_eq!(["off", "OFF", ""].map(str::parse), [Ok(RelayLimit::Off), Ok(RelayLimit::Off), Ok(RelayLimit::Off)]);
        for bad in ["100", "mbit", "1.5gbit", "-1mbit", "100 mbit", "100mbps", "on", "99999999tbit", "1mbit1", "1µbit"] {
            assert!(bad.parse::<RelayLimit>().is_err_and(|why| why.contains("100mbit")), "{bad}");
        }
        for little in ["0gbit", "63kbit", "1bit"] {
            assert!(little.parse::<RelayLimit>().is_err_and(|why| why.contains("--allow-forwarding=no")), "{little}");
        }
    }

    #[test]
    fn threads_share_the_limit() {
        let limit = RelayLimit::BitsPerSecond(100_000_000);
        assert_eq!([1, 4, 0].map(|threads| limit.per_thread(threads)), [12_500_000, 3_125_000, 12_500_000]);
        assert_eq!([1, 15].map(|threads| RelayLimit::Off.per_thread(threads)), [DEFAULT_RELAY_BUDGET; 2]);
    }
}
