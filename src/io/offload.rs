//! Kernel offloads: what is wanted, and what came of it. They are probed by trying, given up on failure, and can be switched off.

use std::fmt;

/// Which offloads to use (`--offload`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OffloadPolicy {
    /// All that the kernel takes.
    #[default]
    Auto,
    /// None, for kernels and network cards that get them wrong.
    Off,
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
    /// Off because the operator says so.
    pub(super) fn unwanted() -> Offload {
        Offload::Off("switched off by --offload off".to_owned())
    }

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
