//! The wire format: everything that routers say to each other, as bytes.

pub mod address;
pub mod beat;
pub mod bindings;
pub mod body;
pub mod bundle;
pub mod control;
pub mod flood;
pub mod fuzz;
pub mod gossip;
pub mod groups;
pub mod handshake;
pub mod header;
pub mod ipam;
pub mod name;
pub mod names;
pub mod probe;
pub mod record;
pub mod subnet;
pub mod subnets;
pub mod vnet;

pub use address::Address;
pub use header::{HEADER_LEN, Header, Kind, TAG_LEN};
pub use name::PeerName;
pub use subnet::Subnet;
pub use vnet::VnetHeader;
