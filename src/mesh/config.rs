//! What the mesh plane is told at its start, and what it hands back.

use std::sync::Arc;

use super::command::Event;
use super::fastdp;
use crate::crypto::{Arithmetic, Classic, Identity, Local, Offer, Providers, Psks, PublicKey, SuiteTiming};
use crate::forward::Fib;
use crate::wire::{Address, Subnet};

/// Links a router keeps unless it is told otherwise.
pub const CONN_LIMIT: u16 = 16;

/// Most addresses in [`MeshConfig::advertise`]: a third of what a NODE record holds, so that there is room for what the host sees itself.
pub const MOST_ADVERTISED: usize = 8;

/// What a mesh plane is made of.
#[derive(Clone)]
pub struct MeshConfig {
    /// This router's keys.
    pub identity: Arc<Identity>,
    /// Name of the network.
    pub network: String,
    /// What the operator calls this router.
    pub nickname: String,
    /// Version of the software, for `status` on other routers.
    pub version: String,
    /// The passwords in use, newest first.
    pub psks: Psks,
    /// Allowed suites with what they cost here.
    pub suites: Vec<SuiteTiming>,
    /// Which library computes each suite here.
    pub providers: Providers,
    /// Whether handshakes without post-quantum keys will do.
    pub classic: Classic,
    /// Keys that may join; empty where any may.
    pub allow: Vec<PublicKey>,
    /// Keys of administrators, who may revoke members' keys.
    pub admins: Vec<PublicKey>,
    /// What was revoked in earlier lives, with an administrator's signature or by this router alone.
    pub revoked: Vec<(PublicKey, Option<[u8; 64]>)>,
    /// True to take links from public addresses although nothing authenticates them.
    pub open: bool,
    /// True to dial peers that were learned from others.
    pub discovery: bool,
    /// Most links, apart from those to configured hosts; 0 for no limit.
    pub conn_limit: usize,
    /// False to pass nothing on for others, and to say so.
    pub forwarding: bool,
    /// True to send multicast frames only where members of their groups are, and to tell which are here.
    pub multicast_snooping: bool,
    /// UDP port for targets that name none.
    pub port: u16,
    /// Counts starts of this router; persisted before it is used.
    pub incarnation: u64,
    /// Highest lane, 0 to 15: the number of packet threads.
    pub lanes: u8,
    /// True to run without encryption of data.
    pub no_encryption: bool,
    /// Underlay networks in which unicast frames may go in clear, where the peer says so too.
    pub trusted: Vec<Subnet>,
    /// This host's underlay addresses, with our port.
    pub addresses: Vec<Address>,
    /// Addresses under which others reach this host although no interface has them, at most [`MOST_ADVERTISED`].
    pub advertise: Vec<Address>,
    /// What the fast datapath may be used for; `None` without `--fastdp`.
    pub fastdp: Option<fastdp::Policy>,
}

impl MeshConfig {
    /// True for an address that an interface has, or that the operator says leads here.
    pub(super) fn is_own(&self, address: Address) -> bool {
        self.addresses.contains(&address) || self.advertise.contains(&address)
    }

    /// What we bring to every handshake.
    pub(super) fn local_end(&self) -> Local {
        let offer = Offer {
            version_min: crate::wire::header::VERSION,
            version_max: crate::wire::header::VERSION,
            features: 0,
            suites: self.suites.clone(),
            lanes: self.lanes,
            plain: self.no_encryption,
            nickname: Some(self.nickname.clone()),
        };
        Local {
            identity: Arc::clone(&self.identity),
            network: self.network.clone(),
            psks: self.psks.clone(),
            offer,
            classic: self.classic,
            providers: self.providers,
            arithmetic: Arithmetic::True,
        }
    }
}

/// What a call to the mesh plane asks for.
#[derive(Default)]
pub struct Outbox {
    /// Datagrams to send, in order.
    pub datagrams: Vec<(Address, Vec<u8>)>,
    /// Where genuine DIRECT control came from: peers to be answered from where they were heard.
    pub genuine: Vec<Address>,
    /// A new picture for the packet threads, where something changed.
    pub fib: Option<Arc<Fib>>,
    /// What the rest of the program should know.
    pub events: Vec<Event>,
}
