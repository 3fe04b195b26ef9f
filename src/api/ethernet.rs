//! What `status` says of loops, of MACs that several hosts have, and of multicast groups.

use serde::{Deserialize, Serialize};

use crate::mesh::snapshot;
use crate::wire::PeerName;

/// A bridge that is joined to this host's outside the mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loop {
    /// Name of the router whose bridge it is; this router's own where the bridge is joined to itself.
    pub peer: String,
    /// Its nickname.
    pub nickname: String,
    /// True where this router floods nothing from or to its bridge, so that nothing goes round.
    pub silent: bool,
}

/// A MAC that several hosts have: it is frozen where it was first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrozenMac {
    /// VLAN id, 0 for untagged.
    pub vlan: u16,
    /// The MAC.
    pub mac: String,
    /// Name of the router that had it first.
    pub holder: String,
    /// Its nickname.
    pub holder_nickname: String,
    /// Name of the other router, of several the last.
    pub rival: String,
    /// Its nickname.
    pub rival_nickname: String,
    /// Seconds since it was frozen.
    pub since_s: u64,
}

impl From<&snapshot::LoopState> for Loop {
    fn from(l: &snapshot::LoopState) -> Loop {
        Loop { peer: l.peer.to_string(), nickname: l.nickname.clone(), silent: l.silent }
    }
}

impl From<&snapshot::FrozenMac> for FrozenMac {
    fn from(f: &snapshot::FrozenMac) -> FrozenMac {
        let [holder_nickname, rival_nickname] = f.nicknames.clone();
        FrozenMac {
            vlan: f.vlan,
            // A MAC is printed as a peer name is.
            mac: PeerName(f.mac).to_string(),
            holder: f.holder.to_string(),
            holder_nickname,
            rival: f.rival.to_string(),
            rival_nickname,
            since_s: f.since.as_secs(),
        }
    }
}

/// Groups that are named on the page for people.
const SHOWN: usize = 4;

/// The groups with members here, for people.
pub fn groups(all: &[String]) -> String {
    let named = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(" ");
    let more = all.len().saturating_sub(SHOWN);
    let others = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("members of {named}{others}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_groups_are_named() {
        let all: Vec<String> = (1..=6).map(|n| format!("239.0.0.{n}")).collect();
        assert_eq!(groups(&all[..2]), "members of 239.0.0.1 239.0.0.2");
        assert_eq!(groups(&all), "members of 239.0.0.1 239.0.0.2 239.0.0.3 239.0.0.4 and 2 more");
    }
}
