//! Kernel offloads: what is wanted, and what came of it. They are probed by trying, given up on failure, and can be switched off, all
//! together or one by one.

use std::fmt;
use std::str::FromStr;

/// One offload that can be switched off by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Partial checksums, from the TAP and to it; without them the router finishes each. The TAP's super frames need them.
    Csum,
    /// TCP super frames, from the TAP and to it.
    Tso,
    /// TCP super frames that carry CWR; they need [`Kind::Tso`].
    Ecn,
    /// UDP super frames, from the TAP and to it.
    Uso,
    /// `UDP_SEGMENT`: many datagrams of the underlay in one send.
    Gso,
    /// `UDP_GRO`: many datagrams of the underlay in one receive.
    Gro,
}

impl Kind {
    /// All of them, in the order in which they are listed for people.
    pub const ALL: [Kind; 6] = [Kind::Csum, Kind::Tso, Kind::Ecn, Kind::Uso, Kind::Gso, Kind::Gro];

    /// The word that switches it off.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Csum => "no-csum",
            Kind::Tso => "no-tso",
            Kind::Ecn => "no-ecn",
            Kind::Uso => "no-uso",
            Kind::Gso => "no-gso",
            Kind::Gro => "no-gro",
        }
    }

    /// What it does not work without.
    fn needs(self) -> &'static [Kind] {
        match self {
            Kind::Tso | Kind::Uso => &[Kind::Csum],
            Kind::Ecn => &[Kind::Tso, Kind::Csum],
            Kind::Csum | Kind::Gso | Kind::Gro => &[],
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Some of the offloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Kinds(u8);

impl Kinds {
    /// True where this one is among them.
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<T: IntoIterator<Item = Kind>>(kinds: T) -> Kinds {
        Kinds(kinds.into_iter().fold(0, |bits, kind| bits | kind.bit()))
    }
}

/// Which offloads to use (`--offload`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OffloadPolicy {
    /// All that the kernel takes.
    #[default]
    Auto,
    /// None, for kernels and network cards that get them wrong.
    Off,
    /// All that the kernel takes but these, and what needs these.
    Without(Kinds),
}

impl OffloadPolicy {
    /// True where this offload is to be tried.
    pub fn wants(self, kind: Kind) -> bool {
        self.forbids(kind).is_none()
    }

    /// Why an offload is not to be tried; `None` where it is.
    pub(super) fn forbids(self, kind: Kind) -> Option<Offload> {
        let off = match self {
            OffloadPolicy::Auto => return None,
            OffloadPolicy::Off => return Some(Offload::Off("switched off by --offload off".to_owned())),
            OffloadPolicy::Without(off) => off,
        };
        let missing = std::iter::once(&kind).chain(kind.needs()).find(|needed| off.contains(**needed))?;
        Some(Offload::Off(match *missing == kind {
            true => format!("switched off by --offload {}", missing.word()),
            false => format!("needs what is switched off by --offload {}", missing.word()),
        }))
    }
}

impl FromStr for OffloadPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<OffloadPolicy, String> {
        let kind = |word: &str| {
            let words = Kind::ALL.map(Kind::word).join(", ");
            let wrong = || format!("'{word}' switches nothing off: write auto, off, or some of {words} with commas between");
            Kind::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(wrong)
        };
        match text {
            "auto" => Ok(OffloadPolicy::Auto),
            "off" => Ok(OffloadPolicy::Off),
            // As every list, it may have blanks instead of commas in an environment variable.
            list => {
                let words = list.split([',', ' ']).filter(|word| !word.is_empty());
                let kinds: Kinds = words.map(kind).collect::<Result<_, _>>()?;
                if kinds == Kinds::default() { kind("").map(|_| OffloadPolicy::Auto) } else { Ok(OffloadPolicy::Without(kinds)) }
            }
        }
    }
}

impl fmt::Display for OffloadPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OffloadPolicy::Auto => f.write_str("auto"),
            OffloadPolicy::Off => f.write_str("off"),
            OffloadPolicy::Without(off) => {
                let words = Kind::ALL.into_iter().filter(|kind| off.contains(*kind)).map(Kind::word);
                f.write_str(&words.collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// One offload's state, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offload {
    /// In use.
    On,
    /// Not in use, and why.
    Off(String),
}

impl Offload {
    /// True while in use.
    pub fn is_on(&self) -> bool {
        *self == Offload::On
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Offload::On => f.write_str("on"),
            Offload::Off(reason) => write!(f, "off ({reason})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> OffloadPolicy {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn wanted(text: &str) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| policy(text).wants(*kind)).collect()
    }

    #[test]
    fn what_is_left_of_each_list() {
        assert_eq!(wanted("auto"), Kind::ALL);
        assert_eq!(wanted("off"), []);
        assert_eq!(wanted("no-csum"), [Kind::Gso, Kind::Gro]);
        assert_eq!(wanted("no-tso"), [Kind::Csum, Kind::Uso, Kind::Gso, Kind::Gro]);
        assert_eq!(wanted("no-ecn,no-uso"), [Kind::Csum, Kind::Tso, Kind::Gso, Kind::Gro]);
        assert_eq!(wanted(" no-gro , no-gso"), [Kind::Csum, Kind::Tso, Kind::Ecn, Kind::Uso]);
        for text in ["auto", "off", "no-ecn", "no-csum,no-tso,no-ecn,no-uso,no-gso,no-gro"] {
            assert_eq!(policy(text).to_string(), text);
        }
    }

    #[test]
    fn the_reason_names_the_word() {
        let reason = |text: &str, kind| policy(text).forbids(kind).map(|offload| offload.to_string());
        assert_eq!(reason("no-gro", Kind::Gso), None);
        assert_eq!(reason("no-gro", Kind::Gro).as_deref(), Some("off (switched off by --offload no-gro)"));
        assert_eq!(reason("no-csum", Kind::Ecn).as_deref(), Some("off (needs what is switched off by --offload no-csum)"));
        assert_eq!(reason("no-tso", Kind::Ecn).as_deref(), Some("off (needs what is switched off by --offload no-tso)"));
        assert_eq!(reason("off", Kind::Uso).as_deref(), Some("off (switched off by --offload off)"));
    }

    #[test]
    fn what_is_no_list_is_told_the_words() {
        for bad in ["", ",", "on", "no-tos", "auto,no-tso", "no-tso off", "tso"] {
            let error = bad.parse::<OffloadPolicy>().expect_err(bad);
            assert!(Kind::ALL.iter().all(|kind| error.contains(kind.word())) && error.contains("auto, off"), "{bad}: {error}");
        }
    }
}
