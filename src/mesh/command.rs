//! What the rest of the program tells the mesh plane, and what it answers besides datagrams.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::apps::{AppEvent, Channel};
use super::fastdp::{Device, Plan};
use super::trace::Trace;
use crate::crypto::PublicKey;
use crate::wire::bindings::Place;
use crate::wire::{Address, PeerName};

/// A host that was named by a person: `[tcp://]HOST[:PORT]`, IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Host name or address, without brackets.
    pub host: String,
    /// UDP port, or TCP's; `None` is the default port.
    pub port: Option<u16>,
    /// True for a host that is called by TCP, for networks that let no UDP through.
    pub tcp: bool,
}

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a peer: {why}; write HOST, HOST:PORT, or [IPV6]:PORT, behind tcp:// for TCP")]
pub struct BadTarget {
    text: String,
    why: &'static str,
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Target, BadTarget> {
        let bad = |why| BadTarget { text: text.to_string(), why };
        let (text, tcp) = text.strip_prefix("tcp://").map_or((text, false), |rest| (rest, true));
        let port = |p: &str| match p.parse::<u16>() {
            Ok(0) | Err(_) => Err(bad("the port is not a number from 1 to 65535")),
            Ok(port) => Ok(Some(port)),
        };
        if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or_else(|| bad("the bracket is not closed"))?;
            host.split('%')
                .next()
                .unwrap_or("")
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| bad("no IPv6 address stands in the brackets"))?;
            let port = match after.strip_prefix(':') {
                Some(p) => port(p)?,
                None if after.is_empty() => None,
                None => return Err(bad("only :PORT may follow the bracket")),
            };
            return Ok(Target { host: host.to_string(), port, tcp });
        }
        let (host, port) = match text.split_once(':') {
            Some((_, p)) if p.contains(':') => match text.parse::<std::net::Ipv6Addr>() {
                Ok(_) => (text, None),
                Err(_) => return Err(bad("it holds more than one colon")),
            },
            Some((host, p)) => (host, port(p)?),
            None => (text, None),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        if host.is_empty() || host.starts_with('-') || !host.chars().all(legal) {
            return Err(bad("that is no host name"));
        }
        Ok(Target { host: host.to_string(), port, tcp })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tcp {
            f.write_str("tcp://")?;
        }
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (_, None) => f.write_str(&self.host),
        }
    }
}

/// A command to the mesh plane. All are idempotent.
#[derive(Clone, Debug)]
pub enum Command {
    /// Keep trying to have a link to each of these hosts.
    Connect(Vec<Target>),
    /// Stop trying; live links stay.
    Forget(Vec<Target>),
    /// The answer to [`Event::Resolve`]: addresses, or a sentence that says why there are none.
    Resolved(Target, Result<Vec<Address>, String>),
    /// Our own underlay addresses, which gossip tells the others; sent at start and on every change.
    LocalAddresses(Vec<Address>),
    /// MACs seen on this host's bridge: (VLAN, MAC) and whether it is there now or gone.
    LocalMacs(Vec<LocalMac>),
    /// The answer to [`Event::Persist`]: this incarnation is on disk.
    Persisted(u64),
    /// The device of the fast datapath, or a sentence that says why there is none.
    Fastdp(Result<Device, String>),
    /// The kernel carried frames to these peers since this was last said.
    FastdpUsed(Vec<PeerName>),
    /// A heartbeat that came through that device.
    Beat(Vec<u8>),
    /// Send a message to the same part of the program on another router; see [`super::apps`].
    Tell {
        /// The router.
        to: PeerName,
        /// The part.
        channel: Channel,
        /// The message, at most [`super::apps::MAX_MESSAGE`] bytes.
        body: Vec<u8>,
    },
    /// Say this to everybody, in place of what was said of this kind before; see [`super::apps`].
    Publish {
        /// Which kind of record.
        kind: u8,
        /// Its chunks, each at most [`crate::wire::record::MAX_BODY`] bytes.
        chunks: Vec<Vec<u8>>,
    },
    /// Take this key for no member's any more: for everybody, with an administrator's signature, else for this router alone.
    Revoke {
        /// The key.
        key: PublicKey,
        /// The signature of a [`Revocation`](crate::crypto::Revocation).
        signature: Option<[u8; 64]>,
    },
    /// Say every record and peer again as [`Event::App`].
    Refresh,
    /// Somebody relies on these routers: for the next two seconds the links on the way there are watched as if they carried frames. Where
    /// this router is among them, all of its links are.
    Watch(Vec<PeerName>),
    /// Find out which routers frames to another pass, and how long each takes to answer; answered by [`Event::Traced`] with this ticket.
    Trace {
        /// Names the request.
        ticket: u64,
        /// The other router: its name or nickname.
        whom: String,
    },
    /// Tell the peers that this router is going down.
    Leave,
}

/// One MAC that appeared on, or vanished from, this host's bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalMac {
    /// VLAN id, 0 for untagged.
    pub vlan: u16,
    /// The MAC.
    pub mac: [u8; 6],
    /// True where it is here, false where it has gone.
    pub present: bool,
    /// The router that frames from it came from last, where that is another: it may not have said yet that it has it.
    pub came_from: Option<PeerName>,
}

/// A frame that says where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The address, in its VLAN.
    pub place: Place,
    /// The MAC that it is said to be at.
    pub mac: [u8; 6],
    /// True where that station on this host's bridge says so of itself; false where it only contradicts what was known.
    pub here: bool,
}

/// What a station on this host's bridge says of a multicast group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: IpAddr,
    /// True where it is a member, false where it is no more.
    pub joined: bool,
}

/// What the mesh plane says besides datagrams and Fibs.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Please resolve this host and answer with [`Command::Resolved`].
    Resolve(Target),
    /// A link came up.
    LinkUp {
        /// The neighbour.
        peer: PeerName,
        /// Its nickname.
        nickname: String,
        /// Its address.
        address: Address,
    },
    /// A link went down, with a sentence that says why.
    LinkDown {
        /// The neighbour.
        peer: PeerName,
        /// Its nickname.
        nickname: String,
        /// Why.
        reason: String,
    },
    /// An attempt failed; said at most once per target and reason until it changes.
    Refused {
        /// Who or where.
        whom: String,
        /// Why, for the log and for `status connections`.
        reason: String,
    },
    /// MAC ownership heard from the mesh: (VLAN, MAC) is at this peer, or no longer.
    MacAnnounced {
        /// VLAN id.
        vlan: u16,
        /// The MAC.
        mac: [u8; 6],
        /// Where it is; `None` where it was withdrawn.
        owner: Option<PeerName>,
        /// True where it stays there, wherever else it is seen: several hosts have it.
        frozen: bool,
    },
    /// Please store this incarnation as ours, and answer with [`Command::Persisted`] once it is on disk: the mesh
    /// remembers a later one than we did.
    Persist(u64),
    /// With which peers the fast datapath is agreed, and with which it is used: all of them, now and then repeated.
    Fastdp(Plan),
    /// Please send this frame through the device of the fast datapath.
    Beat {
        /// Where the peer's VXLAN device is: of its family is the device that takes the frame.
        to: std::net::IpAddr,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Please put this frame on the bridge.
    ToBridge(Vec<u8>),
    /// A key was revoked: please remember it over a restart.
    Revoked {
        /// The key.
        key: PublicKey,
        /// The name of the router that has it.
        name: PeerName,
        /// Its nickname, where known.
        nickname: String,
        /// The administrator's signature; none where this router alone did it.
        signature: Option<Box<[u8; 64]>>,
    },
    /// For a part of the program above the mesh.
    App(AppEvent),
    /// The answer to [`Command::Trace`]; an error is a sentence.
    Traced {
        /// Names the request.
        ticket: u64,
        /// What was found out.
        trace: Result<Trace, String>,
    },
    /// Something an operator should know, at warning level.
    Warning(String),
    /// Something an operator may like to know.
    Notice(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_parse_and_print() {
        for (text, host, port, tcp) in [
            ("192.168.7.235", "192.168.7.235", None, false),
            ("h2.example:7000", "h2.example", Some(7000), false),
            ("[fd00::2]:6783", "fd00::2", Some(6783), false),
            ("[fd00::2]", "fd00::2", None, false),
            ("fd00::2", "fd00::2", None, false),
            ("tcp://h2.example:443", "h2.example", Some(443), true),
            ("tcp://[fd00::2]:443", "fd00::2", Some(443), true),
            ("tcp://10.0.0.1", "10.0.0.1", None, true),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!((target.host.as_str(), target.port, target.tcp), (host, port, tcp), "{text}");
            assert_eq!(target.to_string().parse::<Target>().as_ref(), Ok(&target));
        }
        for bad in
            ["", ":1", "h:0", "h:65536", "h:x", "[::1", "[x]:1", "[::1]1", "a:b:c", "-h", "a b", "tcp://", "udp://a:1", "tcp://tcp://a"]
        {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
