//! What goes into an address book and what comes out.

use ipnet::IpNet;
use std::net::IpAddr;

use crate::wire::PeerName;
use crate::wire::ipam::Range;

/// The container that stands for the address itself: what it is given is the address of a container of that name, written as the address.
pub const NO_CONTAINER: &str = "_";

/// How a mesh begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// By the agreement of more than half of so many routers.
    Consensus(u16),
    /// By a list of routers, the same everywhere.
    Seed(Vec<PeerName>),
    /// By others.
    Observer,
}

/// What an address book is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the network.
    pub network: String,
    /// What there is to give, ascending: at most one range of IPv4 and one of IPv6.
    pub ranges: Vec<Range>,
    /// The subnets that are meant where none is said: the first is the default.
    pub subnets: Vec<IpNet>,
    /// How a mesh begins.
    pub init: Init,
    /// What this router is called in the status.
    pub nickname: String,
}

/// A table of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The ring and votes.
    Ring,
    /// Containers' addresses.
    Addresses,
}

/// A key and its value, as the disk has it.
pub type Pair = (String, Vec<u8>);

/// A change of the disk; `None` removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// The key.
    pub key: String,
    /// The new value.
    pub value: Option<Vec<u8>>,
}

/// What is wanted of an address book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// An address of a subnet (the default subnet if `None`): the one that the container has there, else a fresh one.
    Allocate {
        /// The container.
        ident: String,
        /// The subnet.
        subnet: Option<IpNet>,
    },
    /// This very address.
    Claim {
        /// The container.
        ident: String,
        /// The address and its prefix.
        address: IpNet,
    },
    /// An address back, or all of a container's.
    Free {
        /// The container.
        ident: String,
        /// The address.
        address: Option<IpAddr>,
    },
    /// The container is dead.
    Released {
        /// The container.
        ident: String,
    },
    /// An answer as soon as there is a ring.
    Prime,
    /// These addresses are in use on this host, whatever is known of them: they are given to nobody else. An address book that awaits this
    /// ([`super::Ipam::await_survey`]) gives nothing before.
    Reserve {
        /// Running containers with the addresses they were found with, which are to become theirs.
        held: Vec<(String, IpNet)>,
        /// The addresses of the bridge.
        host: Vec<IpNet>,
    },
    /// A router is gone for good: its space goes to us.
    Remove {
        /// The router.
        dead: PeerName,
        /// True to do without the others.
        force: bool,
    },
    /// All of our space goes to another router.
    Reset {
        /// True to go even where nobody can take it.
        force: bool,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The address.
    Address(IpNet),
    /// So many addresses went to this router.
    Taken(u128, PeerName),
}

/// What kind of no it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request makes no sense here.
    Bad,
    /// Somebody else has it.
    Conflict,
    /// It may work later.
    Unavailable,
    /// The file system of the state directory is full.
    Disk,
}

/// Why not, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sorry {
    /// What kind of no it is.
    pub kind: Kind,
    /// The sentence.
    pub text: String,
}

impl Sorry {
    /// A no with its reason.
    pub fn new(kind: Kind, text: impl Into<String>) -> Sorry {
        Sorry { kind, text: text.into() }
    }
}

/// What is to be done for an address book, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write all of this or nothing, durably, and say so to [`super::Ipam::persisted`].
    Persist {
        /// Names the changes.
        token: u64,
        /// The changes.
        changes: Vec<Change>,
    },
    /// Send a message, best effort.
    Tell {
        /// To whom.
        to: PeerName,
        /// What.
        body: Vec<u8>,
    },
    /// Publish this as our record.
    Publish(Vec<u8>),
    /// A request's answer.
    Answer {
        /// The caller's number of the request.
        request: u64,
        /// The answer.
        result: Result<Answer, Sorry>,
    },
    /// A sentence for the log.
    Report(String),
}
