//! Where every remote MAC is, as entries of the kernel's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::RouteType;
use rtnetlink::Handle;

use super::super::HostError;
use super::device::Family;
use crate::mesh::fastdp::PlanPeer;
use crate::wire::PeerName;

/// A MAC that a port of this host took over, but that a peer announces, is the peer's again when no frame came from it for so long: longer than
/// a look and what it takes to hear of a container that has come.
const GONE: Duration = Duration::from_secs(5);

/// Requests under way at once: a peer that fails has all its MACs moved within a moment.
const AT_ONCE: usize = 64;

/// A MAC, with its VLAN as the bridge's table has it: 0 where the bridge does not tell VLANs apart.
pub type Key = (u16, [u8; 6]);

/// A VXLAN device elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remote {
    /// Its host's address.
    pub ip: IpAddr,
    /// Its UDP port.
    pub port: u16,
}

/// Behind which of our ports a MAC is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The TAP: the router carries its frames.
    Tap,
    /// The VXLAN device of the remote's family.
    Vxlan(Remote),
}

/// Who has a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// This host.
    Here,
    /// A peer, which announces it.
    Announced(PeerName),
    /// Some peer, or so its frames look. Nobody vouches for it, so the router, which looks anew with each frame, carries them.
    Heard,
}

/// A MAC as the router knows it: VLAN (0 for untagged), address, who has it.
pub type Known = (u16, [u8; 6], Holder);

/// The interfaces involved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The bridge.
    pub bridge: u32,
    /// The TAP.
    pub tap: u32,
    /// The VXLAN device for IPv4.
    pub vxlan: u32,
    /// The one for IPv6, where there is one.
    pub vxlan6: Option<u32>,
    /// Their UDP port.
    pub udp: u16,
}

impl Ports {
    /// The VXLAN device of a family; that of IPv4 where the host has no other, which is told of no IPv6 peer.
    fn of(&self, family: Family) -> u32 {
        match family {
            Family::V4 => self.vxlan,
            Family::V6 => self.vxlan6.unwrap_or(self.vxlan),
        }
    }

    /// The VXLAN devices.
    pub fn devices(&self) -> impl Iterator<Item = (Family, u32)> + use<> {
        [Some((Family::V4, self.vxlan)), self.vxlan6.map(|index| (Family::V6, index))].into_iter().flatten()
    }

    /// The family of a VXLAN device of ours.
    fn family(&self, port: u32) -> Option<Family> {
        Family::ALL.into_iter().find(|family| self.of(*family) == port)
    }

    fn port(&self, place: Place) -> u32 {
        match place {
            Place::Tap => self.tap,
            Place::Vxlan(remote) => self.of(Family::of(remote.ip)),
        }
    }
}

/// Where every remote MAC belongs.
///
/// A bridge that does not filter VLANs has one entry per MAC, whatever its VLAN: a MAC that several peers own in different VLANs stays with
/// the router, which tells them apart; one that is also on this host is left to what the bridge learns. On a bridge that does filter, only
/// untagged frames take VXLAN: its port is in no other VLAN.
pub fn wanted(macs: &[Known], plan: &[PlanPeer], pvid: Option<u16>) -> BTreeMap<Key, Place> {
    let remotes: BTreeMap<PeerName, Remote> =
        plan.iter().filter(|peer| peer.in_use).map(|peer| (peer.name, Remote { ip: peer.address, port: peer.port })).collect();
    let mut holders: BTreeMap<Key, BTreeSet<Holder>> = BTreeMap::new();
    for (vlan, mac, holder) in macs {
        let vid = match (pvid, *vlan) {
            (None, _) => 0,
            (Some(pvid), 0) => pvid,
            (Some(_), vlan) => vlan,
        };
        holders.entry((vid, *mac)).or_default().insert(*holder);
    }
    let mut places = BTreeMap::new();
    for (key, holders) in holders {
        if holders.contains(&Holder::Here) || key.1[0] & 1 == 1 {
            continue;
        }
        let only = holders.first().filter(|_| holders.len() == 1);
        let untagged = pvid.is_none_or(|pvid| pvid == key.0);
        let remote = only.filter(|_| untagged).and_then(|holder| match holder {
            Holder::Announced(peer) => remotes.get(peer),
            Holder::Here | Holder::Heard => None,
        });
        places.insert(key, remote.map_or(Place::Tap, |remote| Place::Vxlan(*remote)));
    }
    places
}

/// What of it is in the kernel, as far as we know.
#[derive(Debug)]
pub struct Entries {
    handle: Handle,
    ports: Ports,
    bridge: BTreeMap<Key, Place>,
    vxlan: BTreeMap<Target, Remote>,
}

/// An entry of a VXLAN device: of which, and for which MAC.
type Target = (Family, [u8; 6]);

impl Entries {
    /// Nothing is in the kernel; [`Entries::look`] finds out.
    pub fn new(handle: Handle, ports: Ports) -> Entries {
        Entries { handle, ports, bridge: BTreeMap::new(), vxlan: BTreeMap::new() }
    }

    /// The interfaces that it is about.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Brings the kernel to `places`; `devices` are the VXLAN devices of peers, for heartbeats. What could not be done is tried again the
    /// next time; answers with the first failure.
    pub async fn program(&mut self, places: &BTreeMap<Key, Place>, devices: &BTreeMap<[u8; 6], Remote>) -> Result<(), HostError> {
        let containers = places.iter().filter_map(|((_, mac), place)| match place {
            Place::Vxlan(remote) => Some((mac, remote)),
            Place::Tap => None,
        });
        let all = devices.iter().chain(containers);
        let targets: BTreeMap<Target, Remote> = all.map(|(mac, remote)| ((Family::of(remote.ip), *mac), *remote)).collect();
        // A frame must never find a bridge entry that leads to a VXLAN device which knows no target.
        let fresh = targets.iter().filter(|(target, remote)| self.vxlan.get(*target) != Some(*remote));
        let added: Vec<_> = fresh.map(|(target, remote)| (*target, *remote)).collect();
        let mut failure = None;
        let done = self.ask(Ask::Put, &added, |(target, remote)| self.target(*target, Some(*remote)), &mut failure).await;
        self.vxlan.extend(done);
        let fresh = places.iter().filter(|(key, place)| self.bridge.get(*key) != Some(*place));
        let ready = |place: &Place, mac: &[u8; 6]| match place {
            Place::Tap => true,
            Place::Vxlan(remote) => self.vxlan.contains_key(&(Family::of(remote.ip), *mac)),
        };
        let moved: Vec<_> = fresh.filter(|(key, place)| ready(place, &key.1)).map(|(key, place)| (*key, *place)).collect();
        let done = self.ask(Ask::Put, &moved, |(key, place)| self.entry(*key, *place), &mut failure).await;
        self.bridge.extend(done);
        let old: Vec<_> = self.bridge.iter().filter(|(key, _)| !places.contains_key(*key)).map(|(key, place)| (*key, *place)).collect();
        for (key, _) in self.ask(Ask::Remove, &old, |(key, place)| self.entry(*key, *place), &mut failure).await {
            self.bridge.remove(&key);
        }
        let old: Vec<_> = self.vxlan.keys().filter(|target| !targets.contains_key(*target)).copied().collect();
        for target in self.ask(Ask::Remove, &old, |target| self.target(*target, None), &mut failure).await {
            self.vxlan.remove(&target);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Compares with what the kernel has: what somebody removed or moved to a wrong port of ours is forgotten, so that it is put back the next
    /// time, and what is not ours to have is known, so that it is removed. What a container took over is left to it while it sends.
    /// Answers with the MACs to which frames went by VXLAN within `lately`.
    pub async fn look(&mut self, lately: Duration) -> Result<BTreeSet<Key>, HostError> {
        let (mut bridge, mut vxlan) = (BTreeMap::new(), BTreeMap::new());
        for found in list(&self.handle).await?.iter().filter_map(|message| Found::read(message, &self.ports)) {
            match found {
                Found::Bridge(key, entry) => drop(bridge.insert(key, entry)),
                Found::Target(target, remote) => drop(vxlan.insert(target, remote)),
            }
        }
        self.take_in(&bridge, vxlan);
        let by_vxlan = |entry: &Entry| self.ports.family(entry.port).is_some() && entry.taught && entry.used < lately;
        Ok(bridge.iter().filter(|(_, entry)| by_vxlan(entry)).map(|(key, _)| *key).collect())
    }

    fn take_in(&mut self, bridge: &BTreeMap<Key, Entry>, vxlan: BTreeMap<Target, Remote>) {
        let ports = self.ports;
        let is_ours = |port: u32| port == ports.tap || ports.family(port).is_some();
        self.bridge.retain(|key, place| match bridge.get(key) {
            None => false,
            Some(entry) if is_ours(entry.port) => entry.taught && ports.port(*place) == entry.port,
            Some(entry) => entry.heard < GONE,
        });
        for (key, entry) in bridge {
            let place = match ports.family(entry.port) {
                None if entry.port == ports.tap => Place::Tap,
                None => continue,
                Some(Family::V4) => Place::Vxlan(Remote { ip: Ipv4Addr::UNSPECIFIED.into(), port: 0 }),
                Some(Family::V6) => Place::Vxlan(Remote { ip: Ipv6Addr::UNSPECIFIED.into(), port: 0 }),
            };
            if entry.taught {
                // Wanted elsewhere it differs from what is wanted, wanted nowhere it goes.
                self.bridge.entry(*key).or_insert(place);
            }
        }
        self.vxlan = vxlan;
    }

    fn entry(&self, (vid, mac): Key, place: Place) -> NeighbourMessage {
        let mut message = blank(self.ports.port(place), mac, NeighbourFlags::Controller | NeighbourFlags::ExtLearned);
        message.header.state = NeighbourState::Reachable;
        if vid != 0 {
            message.attributes.push(NeighbourAttribute::Vlan(vid));
        }
        message
    }

    fn target(&self, (family, mac): Target, remote: Option<Remote>) -> NeighbourMessage {
        let mut message = blank(self.ports.of(family), mac, NeighbourFlags::Own | NeighbourFlags::ExtLearned);
        message.header.state = NeighbourState::Permanent;
        if let Some(remote) = remote {
            let ip = match remote.ip {
                IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
                IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
            };
            message.attributes.extend([NeighbourAttribute::Destination(ip), NeighbourAttribute::Port(remote.port)]);
        }
        message
    }

    /// Does a request for each, several at once; answers with those that were granted.
    async fn ask<T: Copy>(
        &self,
        ask: Ask,
        items: &[T],
        message: impl Fn(&T) -> NeighbourMessage,
        failure: &mut Option<HostError>,
    ) -> Vec<T> {
        let requests: Vec<_> = items.iter().map(|item| ask.put(self.handle.clone(), message(item))).collect();
        let answers: Vec<Result<(), HostError>> = futures::stream::iter(requests).buffered(AT_ONCE).collect().await;
        let mut done = Vec::with_capacity(answers.len());
        for (item, answer) in items.iter().zip(answers) {
            match answer {
                Ok(()) => done.push(*item),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        done
    }
}

/// What is asked of the kernel for an entry.
#[derive(Clone, Copy)]
enum Ask {
    Put,
    Remove,
}

impl Ask {
    async fn put(self, handle: Handle, message: NeighbourMessage) -> Result<(), HostError> {
        match self {
            Ask::Put => {
                let mut request = handle.neighbours().add_bridge(message.header.ifindex, &[]).replace();
                *request.message_mut() = message;
                request.execute().await.map_err(|e| HostError::netlink("put an entry into the bridge's forwarding table", e))
            }
            Ask::Remove => {
                let done = handle.neighbours().del(message).execute().await;
                match done.map_err(|e| HostError::netlink("remove an entry of the bridge's forwarding table", e)) {
                    // It has gone, or a container has taken it over.
                    Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
                    other => other,
                }
            }
        }
    }
}

fn blank(port: u32, mac: [u8; 6], flags: NeighbourFlags) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.flags = flags;
    message.header.kind = RouteType::Unspec;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}

/// The forwarding tables of all bridges and VXLAN devices.
async fn list(handle: &Handle) -> Result<Vec<NeighbourMessage>, HostError> {
    let request = handle.neighbours().get().set_address_family(AddressFamily::Bridge);
    request.execute().try_collect().await.map_err(|e| HostError::netlink("read the bridge's forwarding table", e))
}

/// Removes what was taught behind one port of the bridge, whoever of us taught it.
pub async fn sweep(handle: &Handle, bridge: u32, port: u32) -> Result<(), HostError> {
    let ports = Ports { bridge, tap: port, vxlan: 0, vxlan6: None, udp: 0 };
    for message in list(handle).await? {
        if let Some(Found::Bridge((vid, mac), Entry { port: behind, taught: true, .. })) = Found::read(&message, &ports)
            && behind == port
        {
            let mut entry = blank(port, mac, NeighbourFlags::Controller);
            entry.attributes.extend((vid != 0).then_some(NeighbourAttribute::Vlan(vid)));
            Ask::Remove.put(handle.clone(), entry).await?;
        }
    }
    Ok(())
}

/// An entry of the bridge's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// The port behind which the MAC is.
    port: u32,
    /// True where it was taught and not learned.
    taught: bool,
    /// Since a frame last came from the MAC.
    heard: Duration,
    /// Since a frame last went there.
    used: Duration,
}

/// An entry that the kernel has.
enum Found {
    /// Of the bridge.
    Bridge(Key, Entry),
    /// Of a VXLAN device.
    Target(Target, Remote),
}

impl Found {
    fn read(message: &NeighbourMessage, ports: &Ports) -> Option<Found> {
        let (mut master, mut vid, mut mac, mut ip, mut port) = (None, 0, None, None, ports.udp);
        let (mut heard, mut used) = (Duration::ZERO, Duration::MAX);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Controller(index) => master = Some(*index),
                NeighbourAttribute::Vlan(vlan) => vid = *vlan,
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(*v6)),
                NeighbourAttribute::Port(other) => port = *other,
                NeighbourAttribute::CacheInfo(info) => (heard, used) = (ticks(info.updated), ticks(info.used)),
                _ => {}
            }
        }
        let (mac, index, flags) = (mac?, message.header.ifindex, message.header.flags);
        if let Some(ip) = ip {
            let family = Family::of(ip);
            return (index == ports.of(family)).then_some(Found::Target((family, mac), Remote { ip, port }));
        }
        let learned = master == Some(ports.bridge) && message.header.state != NeighbourState::Permanent;
        let entry = Entry { port: index, taught: flags.contains(NeighbourFlags::ExtLearned), heard, used };
        learned.then_some(Found::Bridge((vid, mac), entry))
    }
}

/// Hundredths of a second, in which the kernel tells times (`USER_HZ`).
fn ticks(hundredths: u32) -> Duration {
    Duration::from_millis(u64::from(hundredths) * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerName = PeerName([2, 0, 0, 0, 0, 0xa]);
    const B: PeerName = PeerName([2, 0, 0, 0, 0, 0xb]);
    const MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

    fn peer(name: PeerName, last: u8, in_use: bool) -> PlanPeer {
        PlanPeer { name, address: [10, 0, 0, last].into(), port: 6784, mac: [6, 0, 0, 0, 0, last], in_use }
    }

    fn at(last: u8) -> Place {
        Place::Vxlan(Remote { ip: [10, 0, 0, last].into(), port: 6784 })
    }

    fn place(macs: &[Known], pvid: Option<u16>) -> Vec<(Key, Place)> {
        wanted(macs, &[peer(A, 1, true), peer(B, 2, true)], pvid).into_iter().collect()
    }

    #[test]
    fn macs_go_where_their_owner_is() {
        let macs = [
            (0, MAC, Holder::Announced(A)),
            (0, [2; 6], Holder::Announced(B)),
            (0, [4; 6], Holder::Here),
            (0, [1; 6], Holder::Announced(A)),
        ];
        let places = wanted(&macs, &[peer(A, 1, true), peer(B, 2, false)], None);
        assert_eq!(places.into_iter().collect::<Vec<_>>(), [((0, MAC), at(1)), ((0, [2; 6]), Place::Tap)]);
        assert_eq!(wanted(&macs, &[], None).len(), 2, "all behind the TAP");
    }

    #[test]
    fn a_mac_of_two_owners_in_different_vlans_stays_with_the_router() {
        assert_eq!(place(&[(0, MAC, Holder::Announced(A)), (5, MAC, Holder::Announced(A))], None), [((0, MAC), at(1))]);
        assert_eq!(place(&[(0, MAC, Holder::Announced(A)), (5, MAC, Holder::Announced(B))], None), [((0, MAC), Place::Tap)]);
        assert_eq!(place(&[(0, MAC, Holder::Here), (5, MAC, Holder::Announced(B))], None), []);
        let filtered = place(&[(0, MAC, Holder::Announced(A)), (5, MAC, Holder::Announced(B))], Some(1));
        assert_eq!(filtered, [((1, MAC), at(1)), ((5, MAC), Place::Tap)]);
    }

    #[test]
    fn a_mac_that_nobody_announces_stays_with_the_router() {
        assert_eq!(place(&[(0, MAC, Holder::Heard)], None), [((0, MAC), Place::Tap)]);
        assert_eq!(place(&[(0, MAC, Holder::Heard), (5, MAC, Holder::Announced(A))], None), [((0, MAC), Place::Tap)]);
    }

    #[tokio::test]
    async fn what_the_kernel_has_is_taken_in() {
        let (_, handle, _) = rtnetlink::new_connection().expect("a netlink socket");
        let mut entries = Entries::new(handle, Ports { bridge: 1, tap: 2, vxlan: 3, vxlan6: Some(4), udp: 6784 });
        let keys: Vec<Key> = (1..=7).map(|n| (0, [2, 0, 0, 0, 0, n])).collect();
        entries.bridge = BTreeMap::from([
            (keys[0], at(1)),
            (keys[1], at(1)),
            (keys[2], at(1)),
            (keys[3], Place::Tap),
            (keys[4], at(1)),
            (keys[6], at(1)),
        ]);
        let entry = |port, taught, heard| Entry { port, taught, heard: Duration::from_secs(heard), used: Duration::ZERO };
        let kernel = BTreeMap::from([
            (keys[0], entry(3, true, 99)),
            // Somebody removed the second; the third was learned by a container's port, the fourth behind the wrong one of ours.
            (keys[2], entry(9, false, 1)),
            (keys[3], entry(3, true, 0)),
            // Learned behind the TAP, before that was switched off; and one that nobody here knows.
            (keys[4], entry(2, false, 0)),
            (keys[5], entry(2, true, 0)),
            // A container's port had it for a moment.
            (keys[6], entry(9, false, 6)),
        ]);
        entries.take_in(&kernel, BTreeMap::new());
        let known: Vec<Key> = entries.bridge.keys().copied().collect();
        assert_eq!(known, [keys[0], keys[2], keys[3], keys[5]]);
        assert_ne!(entries.bridge[&keys[3]], Place::Tap, "so it is moved");
        assert_eq!(entries.bridge[&keys[0]], at(1));
    }
}
