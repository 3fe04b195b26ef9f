//! Kernel offloads: what is wanted, and what came of it. They are probed by trying, given up on failure, and can be switched off, all
//! together or one by one. What a kernel does wrong without saying so cannot be found by trying: that is known by the kernel's version.

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

/// Major, minor and patch number of a kernel.
type Version = (u32, u32, u32);

/// Kernels from this one on mangle headers and checksums of a send whose last datagram is as long as the others: on a real network card
/// most of it is lost, and no error is seen.
const MANGLES_SENDS: Version = (7, 0, 0);
/// The first kernel after [`MANGLES_SENDS`] that does not.
const SENDS_WELL: Version = (7, 1, 5);
/// `UDP_GRO` came in 5.0, and cannot be relied on before this kernel.
const JOINS_WELL: Version = (5, 12, 0);

/// Why an offload is not to be tried on the kernel of this release (`uname -r`), which would take it; `None` where nothing is known against it.
/// A distribution that has mended an old kernel keeps its number, so it may be thought worse of than it is.
pub(super) fn flaw(kind: Kind, release: &str) -> Option<Offload> {
    let version = version(release)?;
    let what = match kind {
        Kind::Gso if (MANGLES_SENDS..SENDS_WELL).contains(&version) => {
            "mangles sends whose last datagram is as long as the others, fixed in 7.1.5"
        }
        Kind::Gro if version < JOINS_WELL => "joins received datagrams unreliably, trusted from 5.12 on",
        Kind::Gso | Kind::Gro | Kind::Csum | Kind::Tso | Kind::Ecn | Kind::Uso => return None,
    };
    Some(Offload::Off(format!("this kernel ({release}) {what}")))
}

/// The version that a release begins with, whatever the distribution has appended; `None` where it begins with none.
fn version(release: &str) -> Option<Version> {
    let numbers = release.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut numbers = numbers.split('.').map(|number| number.parse().ok());
    // A release candidate has no third number: 7.1-rc5.
    Some((numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
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
    fn what_a_kernel_does_wrong_is_known_by_its_release() {
        for (release, gso, gro) in [
            ("4.18.0-553.el8_10.x86_64", true, false),
            ("5.4.0-216-generic", true, false),
            ("5.11.22", true, false),
            ("5.12-rc1", true, true),
            ("5.12.0", true, true),
            ("6.1.0-18-amd64", true, true),
            ("6.18.44-foo7.0.1", true, true),
            ("6.99.7", true, true),
            ("7.0-rc1", false, true),
            ("7.0.0-12-generic", false, true),
            ("7.0.3-foo", false, true),
            ("7.0.14-pve", false, true),
            ("7.0.9.fc44.x86_64", false, true),
            ("7.0+", false, true),
            ("7.1-rc5.2", false, true),
            ("7.1.4", false, true),
            ("7.1.5", true, true),
            ("7.1.5-rc1", true, true),
            ("7.1.10-foo", true, true),
            ("7.2-rc1", true, true),
            ("7.10.0", true, true),
            ("10.0.3", true, true),
            ("", true, true),
            ("7", true, true),
            ("7.x", true, true),
            ("seven.0.1", true, true),
            ("99999999999.0.1", true, true),
        ] {
            assert_eq!((flaw(Kind::Gso, release).is_none(), flaw(Kind::Gro, release).is_none()), (gso, gro), "{release}");
            assert!([Kind::Csum, Kind::Tso, Kind::Ecn, Kind::Uso].into_iter().all(|kind| flaw(kind, release).is_none()), "{release}");
        }
        let reason = flaw(Kind::Gso, "7.0.3-foo").map(|offload| offload.to_string());
        let expected = "off (this kernel (7.0.3-foo) mangles sends whose last datagram is as long as the others, fixed in 7.1.5)";
        assert_eq!(reason.as_deref(), Some(expected));
    }

    #[test]
    fn what_is_no_list_is_told_the_words() {
        for bad in ["", ",", "on", "no-tos", "auto,no-tso", "no-tso off", "tso"] {
            let error = bad.parse::<OffloadPolicy>().expect_err(bad);
            assert!(Kind::ALL.iter().all(|kind| error.contains(kind.word())) && error.contains("auto, off"), "{bad}: {error}");
        }
    }
}
