//! Everything the router does to its host besides packets: the bridge, the firewall exception, the underlay's addresses,
//! the service unit, and a laboratory of hosts in network namespaces.
//!
//! Links, addresses and the forwarding table are spoken to by rtnetlink; only tables which belong to other programs are
//! changed through the programs that own them (`iptables`, `nft`).

pub mod bridge;
pub mod changes;
pub mod container;
mod error;
pub mod fastdp;
pub mod firewall;
pub mod lab;
pub mod link;
pub mod macs;
pub mod nameserver;
pub mod routes;
pub mod rules;
pub mod service;
pub mod underlay;
pub mod vanished;
pub mod watch;

pub use bridge::{Bridge, Released};
pub use error::HostError;
pub use firewall::Firewall;
pub use macs::{LocalMacs, local_macs};
pub use watch::{HostEvent, Watch};

/// Opens a connection to the kernel's routing netlink in the network namespace of the calling thread.
///
/// It is served by a task on the current tokio runtime, which must therefore exist and be driven.
pub fn connect() -> Result<rtnetlink::Handle, HostError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| HostError::io("open a netlink socket", e))?;
    tokio::spawn(connection);
    Ok(handle)
}
