//! Gossip: how every router comes to hold the same signed records of every router it can reach.
//!
//! * **Records** ([`crate::wire::record`]) are signed by their origin, numbered by (incarnation, sequence), immutable, shared,
//!   and verified once. What a store keeps is a join-semilattice: merging is commutative, associative and
//!   idempotent. A newer incarnation voids all older records of its origin; LEFT voids the others of its incarnation.
//!   A bad record is refused and counted, nothing else happens.
//! * **Push.** What a router says of itself goes at once to all its neighbours; what it hears from others, to those of them that have
//!   chosen it as one of their two sources (`push`).
//! * **Agreement** repairs what push missed. Heartbeats carry the root of a hash tree: being in step costs eight bytes at
//!   any size. Where roots differ that should not (`agree`), the router with the lower name starts; the two walk down TREE messages to the few
//!   nodes that differ, tell each other the editions they have there (KEYS), ask for (WANT) and send (RECORDS) what
//!   is missing. A node whose list fits one datagram is listed instead of descended. Attempts that change nothing back off.
//! * **What is agreed on** is only the records of origins to which the links in the store lead. That is a pure function of the
//!   records, so two neighbours that hold the same ones also hash the same ones, and no clock is part of it. Records of an
//!   origin that cannot be reached are kept silently, neither hashed nor offered, so they cannot wander back
//!   and forth; after [`Limits::forget_after`] they are dropped. Should the origin return, it is reachable for somebody, and
//!   comes back whole with the next agreement. So no tombstones are needed.
//! * **Our own records.** Hearing a record of our own that we did not say (state was lost) means that we must pass
//!   it: [`Change::OwnIncarnation`] asks the caller to persist a higher incarnation and then to call [`Store::adopt_incarnation`].
//! * **Bounds**: routers, records per origin and bytes in all (`room`), and how much of each origin and neighbour is looked at per second (`pace`).
//!   Merge laws hold as long as no bound is hit.
//!
//! The certificate in a NODE record is not checked here: the record is signed by the same key, and the handshake checks.

mod agree;
mod chunks;
mod graph;
mod origins;
mod pace;
mod publish;
mod push;
mod reach;
mod revoked;
mod room;
mod shared;
mod store;
mod table;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::counters;
use crate::crypto::{Identity, PublicIdentity, PublicKey, Signatures};
use crate::wire::{Address, PeerName};

pub use shared::{Alone, Workshop};
pub use store::Store;

/// What a store is made of.
pub struct Config {
    /// This router's keys.
    pub identity: Arc<Identity>,
    /// How records are signed and checked.
    pub signatures: Arc<dyn Signatures>,
    /// Name of the network: records of another one do not verify.
    pub network: String,
    /// Keys of members; empty where any may be one. Records of others are carried, so that all hash the same ones, and not used.
    pub allow: BTreeSet<PublicKey>,
    /// Counts starts of this router; persisted before it is used.
    pub incarnation: u64,
    /// Largest message in bytes. At least 1153, so that every record fits.
    pub max_message: usize,
    /// What is kept at most.
    pub limits: Limits,
}

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Routers of the mesh, half as many again as of the largest that is simulated.
    pub routers: usize,
    /// Records of one origin.
    pub records_per_origin: usize,
    /// Bytes of all records.
    pub bytes: usize,
    /// How long a router that cannot be reached is remembered.
    pub forget_after: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { routers: 8192, records_per_origin: 256, bytes: 128 << 20, forget_after: Duration::from_secs(600) }
    }
}

/// Largest message that fits every IPv6 path inside clear header, tag and control record: 1280 − 48 − 32 − 8.
pub const DEFAULT_MAX_MESSAGE: usize = 1192;

/// Something that records changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Who this router is, or where.
    Node(PeerName),
    /// Its links.
    Links(PeerName),
    /// The MACs on its bridge.
    Macs(PeerName),
    /// A record of a kind that only parts of the program above the mesh understand; its body is [`Store::app_record`].
    App(PeerName, u8, u16),
    /// It started anew: sessions with its former incarnation are void.
    Incarnation(PeerName, u64),
    /// It said goodbye.
    Left(PeerName),
    /// It could not be reached for long and is forgotten.
    Forgotten(PeerName),
    /// A record of our own was heard that we did not say: persist this incarnation, then call
    /// [`Store::adopt_incarnation`] with it.
    OwnIncarnation(u64),
}

/// What a call to the store asks for.
#[derive(Debug, Default)]
pub struct Output {
    /// Messages for one neighbour each.
    pub to_neighbour: Vec<(PeerName, Vec<u8>)>,
    /// Messages for all neighbours, but for the one named.
    pub to_all_but: Vec<(Option<PeerName>, Vec<u8>)>,
    /// What changed, in order.
    pub changes: Vec<Change>,
    /// Sentences for the operator.
    pub warnings: Vec<String>,
}

/// What NODE records say of a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView<'a> {
    /// Its name.
    pub name: PeerName,
    /// Its keys; the certificate is unchecked.
    pub identity: PublicIdentity,
    /// Its incarnation.
    pub incarnation: u64,
    /// What its operator calls it.
    pub nickname: &'a str,
    /// Version of its software.
    pub version: &'a str,
    /// Bits of optional abilities.
    pub features: u32,
    /// Its underlay addresses.
    pub addresses: &'a [Address],
    /// True while the links in the store lead there, as of the last call that was told the time and looked at the tree
    /// ([`Store::root`], [`Store::on_root`], [`Store::handle_timeout`]); [`crate::mesh::routes::Routes`] knows it at any time.
    pub reachable: bool,
}

counters! {
    /// What gossip accepted, refused and repaired.
    pub struct GossipCounters {
        /// Gossip messages that could not be parsed.
        message_malformed,
        /// Gossip messages of a type this version does not know.
        message_unknown,
        /// Gossip messages from a router that is not a neighbour.
        message_stranger,
        /// Gossip records that could not be parsed.
        record_malformed,
        /// Gossip records whose signature does not hold.
        record_forged,
        /// Gossip records refused because another key has the same name.
        record_clash,
        /// Gossip records refused because a bound of the store was reached.
        record_refused_full,
        /// Gossip records passed over because their origin says more than any has to, or too many origins are new.
        record_over_pace,
        /// Gossip messages not sent in answer to a neighbour that asks for more than any has to.
        answers_over_pace,
        /// Gossip records that were known already.
        record_duplicate,
        /// Gossip records older than what is known.
        record_stale,
        /// Gossip records accepted.
        record_accepted,
        /// Entries of our own that found no room in our records.
        own_not_told,
        /// Root hashes of neighbours that matched ours.
        agreement_in_step,
        /// Root hashes of neighbours that differed from ours.
        agreement_differs,
        /// Comparisons with a neighbour that were started.
        agreement_started,
        /// Routers forgotten after they could not be reached for long, or to make room.
        router_forgotten,
    }
}

/// Feeds arbitrary bytes to a store as messages of a neighbour (body of the fuzz target); each message is preceded by its length in two bytes.
pub fn fuzz_gossip(data: &[u8]) {
    let config = Config {
        identity: Arc::new(Identity::from_seed(&[1; 32])),
        signatures: Arc::new(crate::crypto::SimulatedSignatures),
        network: "weave".to_string(),
        allow: BTreeSet::new(),
        incarnation: 1,
        max_message: DEFAULT_MAX_MESSAGE,
        limits: Limits { routers: 8, records_per_origin: 8, bytes: 16 << 10, ..Limits::default() },
    };
    let mut store = Store::new(config);
    let neighbour = Identity::from_seed(&[2; 32]).name();
    let now = crate::time::Time::ZERO;
    let mut out = Output::default();
    store.link_up(now, neighbour, &mut out);
    store.publish_links(now, &[], &mut out);
    let mut rest = data;
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let (message, after) = after.split_at(usize::from(u16::from_be_bytes(*len)).min(after.len()));
        store.receive(now, neighbour, message, &mut out);
        rest = after;
    }
    assert!(out.to_neighbour.iter().all(|(_, message)| message.len() <= DEFAULT_MAX_MESSAGE));
    assert!(store.stored_bytes() <= 16 << 10, "the bound of the store holds");
}
