//! An interface's own offloads, as `ethtool -K` switches them, in the calling thread's network namespace.

use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use super::{check, link};

/// An offload of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Checksums of what is sent (`tx`). Without it the kernel finishes them, and cuts super frames, before the interface sees them.
    TxChecksum,
    /// Checksums of what is received (`rx`).
    RxChecksum,
    /// TCP super frames (`tso`).
    Tso,
    /// Late cutting of super frames in software (`gso`).
    Gso,
    /// Joining of what is received (`gro`).
    Gro,
    /// UDP super frames (`tx-udp-segmentation`).
    Uso,
}

/// How a feature is read and set.
enum Way {
    /// Commands of its own.
    Commands { get: u32, set: u32 },
    /// A bit among all, found by its name.
    Named(&'static [u8]),
}

/// From `linux/ethtool.h`, which the libc crate does not carry.
const GET_NAMES: u32 = 0x1b;
const GET_NAME_COUNT: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;
const NAMES_OF_FEATURES: u32 = 4;
/// Bytes of a name.
const NAME: usize = 32;
/// A kernel has 60-odd features; more than this many are not believed.
const MOST_NAMES: usize = 1024;

impl Feature {
    fn way(self) -> Way {
        match self {
            Feature::RxChecksum => Way::Commands { get: 0x14, set: 0x15 },
            Feature::TxChecksum => Way::Commands { get: 0x16, set: 0x17 },
            Feature::Tso => Way::Commands { get: 0x1e, set: 0x1f },
            Feature::Gso => Way::Commands { get: 0x23, set: 0x24 },
            Feature::Gro => Way::Commands { get: 0x2b, set: 0x2c },
            Feature::Uso => Way::Named(b"tx-udp-segmentation"),
        }
    }
}

/// Switches a feature of an interface on or off; an error where the interface keeps it as it was. What needs a feature goes with it: no
/// super frames without checksums.
pub fn set_feature(interface: &str, feature: Feature, on: bool) -> io::Result<()> {
    match feature.way() {
        Way::Commands { set, .. } => command(interface, &mut [set, u32::from(on)])?,
        Way::Named(name) => {
            let names = names(interface)?;
            let bit = index_of(&names, name)?;
            let blocks = names.len().div_ceil(32);
            let mut request = vec![0; 2 + 2 * blocks];
            request[0] = SET_FEATURES;
            request[1] = blocks as u32;
            let (valid, wanted) = (2 + 2 * (bit / 32), 3 + 2 * (bit / 32));
            request[valid] = 1 << (bit % 32);
            request[wanted] = u32::from(on) << (bit % 32);
            command(interface, &mut request)?;
        }
    }
    let kept = || io::Error::other(format!("{interface} does not let {feature:?} be switched {}", if on { "on" } else { "off" }));
    if has_feature(interface, feature)? == on { Ok(()) } else { Err(kept()) }
}

/// True where a feature of an interface is on.
pub fn has_feature(interface: &str, feature: Feature) -> io::Result<bool> {
    match feature.way() {
        Way::Commands { get, .. } => {
            let mut request = [get, 0];
            command(interface, &mut request)?;
            Ok(request[1] != 0)
        }
        Way::Named(name) => {
            let names = names(interface)?;
            let bit = index_of(&names, name)?;
            let blocks = names.len().div_ceil(32);
            let mut request = vec![0; 2 + 4 * blocks];
            request[0] = GET_FEATURES;
            request[1] = blocks as u32;
            command(interface, &mut request)?;
            // Four words each: available, requested, active, never changed.
            Ok(request[2 + 4 * (bit / 32) + 2] & 1 << (bit % 32) != 0)
        }
    }
}

fn index_of(names: &[Vec<u8>], name: &[u8]) -> io::Result<usize> {
    names.iter().position(|n| n == name).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// The names of all features, in the order of their bits.
fn names(interface: &str) -> io::Result<Vec<Vec<u8>>> {
    // Command, reserved, a mask of 64 bits, one count. The mask's halves lie as the machine's byte order has them.
    let mut request = [GET_NAME_COUNT, 0, 0, 0, 0];
    let [low, high] = split(1 << NAMES_OF_FEATURES);
    (request[2], request[3]) = (low, high);
    command(interface, &mut request)?;
    let count = request[4] as usize;
    if count > MOST_NAMES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut request = vec![0u32; 3 + count * NAME / 4];
    (request[0], request[1], request[2]) = (GET_NAMES, NAMES_OF_FEATURES, count as u32);
    command(interface, &mut request)?;
    let bytes: Vec<u8> = request[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(bytes.chunks(NAME).map(|name| name.iter().copied().take_while(|b| *b != 0).collect()).collect())
}

fn split(mask: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = mask.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// Runs one command; `data` begins with its number and is as long as the command says (see its callers).
fn command(interface: &str, data: &mut [u32]) -> io::Result<()> {
    let mut request = link::request(interface)?;
    request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: SIOCETHTOOL reads one ifreq and reads and writes the memory that it points to, which is `data` and lives through the call.
    // Every command used here states in `data` how much follows, or is two words long, and no caller passes less.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, std::ptr::from_mut(&mut request)) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::testing::in_own_namespace;

    fn all(interface: &str) -> Vec<(Feature, bool)> {
        let all = [Feature::TxChecksum, Feature::RxChecksum, Feature::Tso, Feature::Gso, Feature::Gro, Feature::Uso];
        all.map(|feature| (feature, has_feature(interface, feature).expect("read"))).to_vec()
    }

    #[test]
    fn features_of_a_cable_are_switched() {
        in_own_namespace("ethtool", || {
            let add = ["link", "add", "a0", "type", "veth", "peer", "name", "b0"];
            assert!(std::process::Command::new("ip").args(add).status().expect("iproute2").success());
            let before = all("a0");
            for feature in [Feature::Uso, Feature::Gso, Feature::Gro, Feature::Tso] {
                for on in [false, true, false] {
                    set_feature("a0", feature, on).expect("switched");
                    assert_eq!(has_feature("a0", feature).expect("read"), on, "{feature:?}");
                }
            }
            assert_eq!(all("b0"), before, "the other end is as it was");
            set_feature("b0", Feature::TxChecksum, false).expect("switched");
            assert!(!has_feature("b0", Feature::Tso).expect("read"), "no super frames without checksums");
            assert!(set_feature("lo", Feature::TxChecksum, false).is_err(), "loopback keeps its checksums");
            assert!(has_feature("nothing", Feature::Tso).is_err());
        });
    }
}
