//! Containers on the bridge: a veth pair each, one end in the container's network namespace as `ethwe`, the other a port of the bridge.
//!
//! * [`address`]: what `attach` and `expose` take for an address.
//! * [`mod@attach`]: makes the pair and its addresses, all or nothing, and takes them away again.
//! * [`found`]: the attachments that are there, read from the kernel alone. The end on the host carries the container's ident in its alias
//!   (`ip link show` prints it) and has a name derived from it, so that a router that starts anew knows all its containers.
//! * [`announce`]: tells the neighbours where an address is now.
//! * [`expose`]: an address for the host itself, on the bridge.
//! * [`join`]: another Linux bridge of the host, joined by a pair of the same sort.
//!
//! A namespace belongs to a thread. What blocks here may be called on any thread but a packet thread's; it returns to where it came from.

pub mod address;
pub mod announce;
pub mod attach;
pub mod expose;
pub mod found;
pub mod join;
mod knobs;
mod namespace;

pub use address::AddressSpec;
pub use attach::{Attached, BridgeEnd, Order, Removal, attach, detach, resize};
pub use found::{Attachment, End};

/// The name of the interface in a container unless told otherwise.
pub const INTERFACE: &str = "ethwe";

/// Longest ident, in bytes: it stands in an interface's alias, which holds 255.
pub const MAX_IDENT: usize = 200;

#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
