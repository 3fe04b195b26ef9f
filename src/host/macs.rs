//! The MACs that live on this host, read from the bridge's own forwarding table: a datapath in the kernel would hide their frames from
//! us, and a container that only listens is known here first.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::Handle;

use super::{HostError, link};
use crate::mesh::command::LocalMac;

/// The stations on the bridge as (VLAN, MAC), VLAN 0 where frames are untagged: what its ports learnt or were told, and the bridge itself.
/// `ours` are the ports behind which the mesh is (the TAP).
pub async fn local_macs(handle: &Handle, bridge: u32, ours: &[u32]) -> Result<Vec<(u16, [u8; 6])>, HostError> {
    let pvid = link::by_index(handle, bridge).await?.and_then(|l| l.pvid);
    let request = handle.neighbours().get().set_address_family(AddressFamily::Bridge);
    let entries: Result<Vec<NeighbourMessage>, _> = request.execute().try_collect().await;
    let entries = entries.map_err(|e| HostError::netlink("read the bridge's forwarding table", e))?;
    let stations: BTreeSet<(u16, [u8; 6])> = entries.iter().filter_map(|e| station(e, bridge, ours, pvid)).collect();
    Ok(stations.into_iter().collect())
}

fn station(entry: &NeighbourMessage, bridge: u32, ours: &[u32], pvid: Option<u16>) -> Option<(u16, [u8; 6])> {
    let (mut master, mut vlan, mut mac) = (None, 0, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Controller(index) => master = Some(*index),
            NeighbourAttribute::Vlan(vid) => vlan = *vid,
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    let (mac, index) = (mac?, entry.header.ifindex);
    // A permanent entry is the MAC of the port itself: only the bridge's own is a station, a veth's host end is none.
    let own = entry.header.state == NeighbourState::Permanent;
    let taught_by_us = entry.header.flags.contains(NeighbourFlags::ExtLearned);
    let here = if own { index == bridge } else { !ours.contains(&index) && !taught_by_us };
    let on_it = master == Some(bridge);
    let untagged = if pvid == Some(vlan) { 0 } else { vlan };
    (here && on_it && mac[0] & 1 == 0).then_some((untagged, mac))
}

/// Remembers what was last said about local MACs and tells what changed.
#[derive(Debug, Default)]
pub struct LocalMacs {
    known: BTreeSet<(u16, [u8; 6])>,
}

impl LocalMacs {
    /// Takes the present stations, answers with those that came or went since the last call.
    pub fn update(&mut self, now: &[(u16, [u8; 6])]) -> Vec<LocalMac> {
        let now: BTreeSet<(u16, [u8; 6])> = now.iter().copied().collect();
        let came = now.difference(&self.known).map(|&(vlan, mac)| LocalMac { vlan, mac, present: true, came_from: None });
        let went = self.known.difference(&now).map(|&(vlan, mac)| LocalMac { vlan, mac, present: false, came_from: None });
        let changes = went.chain(came).collect();
        self.known = now;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_once() {
        let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut macs = LocalMacs::default();
        assert_eq!(macs.update(&[(0, a)]), [LocalMac { vlan: 0, mac: a, present: true, came_from: None }]);
        assert_eq!(macs.update(&[(0, a)]), []);
        let moved =
            [LocalMac { vlan: 0, mac: a, present: false, came_from: None }, LocalMac { vlan: 5, mac: b, present: true, came_from: None }];
        assert_eq!(macs.update(&[(5, b)]), moved);
    }
}
