//! Frames of groups go where members are, and reports are heard.

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::forward::groups::Groups;
use crate::forward::membership::questions;
use crate::mesh::command::Membership;

const PLAIN: VnetHeader = VnetHeader { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };
const GROUP: [u8; 4] = [239, 1, 2, 3];

/// A frame of container 1 to a group, of this protocol.
fn packet(to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [_, b, c, d] = to;
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    let head = [1, 0, 0x5e, b & 0x7f, c, d];
    [&head[..], &mac(1), &[8, 0, 0x45, 0, high, low, 0, 1, 0, 0, 1, protocol, 0, 0, 10, 0, 0, 1], &to, payload].concat()
}

fn udp(to: [u8; 4], length: usize) -> Vec<u8> {
    packet(to, 17, &vec![7; length])
}

fn joins() -> Vec<u8> {
    packet(GROUP, 2, &[[0x16, 0, 0, 0], GROUP].concat())
}

/// Four routers in a line, of which these want the group; `routers` says which have a multicast router.
fn four(members: &[usize], routers: &[usize]) -> Mesh {
    let mut mesh = Mesh::line(Wiring { routers: 4, ..Wiring::default() });
    for n in 0..4 {
        let mut fib = mesh.fib(n, true);
        let mut groups = Groups::none(4, Some(n), 5);
        members.iter().for_each(|member| groups.want(*member, IpAddr::from(GROUP)));
        routers.iter().for_each(|router| groups.want_everything(*router));
        groups.router_here = routers.contains(&n);
        fib.groups = Some(Arc::new(groups.complete()));
        mesh.set_fib(n, fib);
    }
    mesh
}

/// Sends a frame from one router's bridge; who gave it to his bridge, and between whom it was sent.
fn send(mesh: &mut Mesh, from: usize, frame: &[u8]) -> (Vec<usize>, Vec<(usize, usize)>) {
    mesh.sent.clear();
    mesh.send(from, &PLAIN, frame);
    mesh.settle();
    let got = |n: &usize, mesh: &mut Mesh| mesh.nodes[*n].tap.take().iter().any(|bytes| bytes == frame);
    let arrived = (0..4).filter(|n| got(n, mesh)).collect();
    let number = |to: &Address| (0..4).find(|m| address(*m) == *to).expect("a router");
    (arrived, mesh.sent.iter().map(|(n, to, ..)| (*n, number(to))).collect())
}

#[test]
fn a_group_goes_where_members_are_and_no_further() {
    let mut mesh = four(&[2], &[]);
    assert_eq!(send(&mut mesh, 0, &udp(GROUP, 100)), (vec![2], vec![(0, 1), (1, 2)]));
    assert_eq!(mesh.counters(0).multicast_to_members.get(), 1);
    assert_eq!((mesh.counters(1).drop_no_member.get(), mesh.counters(3).drop_no_member.get()), (1, 0));
    assert_eq!(send(&mut mesh, 3, &udp(GROUP, 100)), (vec![2], vec![(3, 2)]));
    // Its only members are where it comes from.
    assert_eq!(send(&mut mesh, 2, &udp(GROUP, 100)), (vec![], vec![]));
    assert_eq!((mesh.counters(2).multicast_kept_home.get(), mesh.counters(2).flooded_multicast.get()), (1, 0));
    let mut mesh = four(&[0, 3], &[]);
    assert_eq!(send(&mut mesh, 1, &udp(GROUP, 100)), (vec![0, 3], vec![(1, 0), (1, 2), (2, 3)]));
}

#[test]
fn what_nobody_joined_what_is_of_one_link_and_what_is_no_ip_goes_to_everybody() {
    let mut mesh = four(&[2], &[]);
    let everybody = (vec![1, 2, 3], vec![(0, 1), (1, 2), (2, 3)]);
    let mut experiment = udp(GROUP, 100);
    experiment[12..14].copy_from_slice(&[0x88, 0xb5]);
    let mut tagged = udp(GROUP, 100);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    for frame in [udp([239, 1, 2, 4], 100), udp([224, 0, 0, 251], 100), experiment, tagged] {
        assert_eq!(send(&mut mesh, 0, &frame), everybody);
    }
    for n in 0..4 {
        let fib = mesh.fib(n, true);
        mesh.set_fib(n, fib);
    }
    assert_eq!(send(&mut mesh, 0, &udp(GROUP, 100)), everybody, "nobody snoops");
}

#[test]
fn fragments_go_to_everybody_behind_the_first_router_and_are_given_to_members() {
    let mut mesh = four(&[2], &[]);
    let frame = udp(GROUP, 3000);
    let (arrived, sent) = send(&mut mesh, 0, &frame);
    assert!(arrived == [2] && sent.contains(&(2, 3)));
    assert_eq!((mesh.counters(1).drop_no_member.get(), mesh.counters(3).drop_no_member.get()), (1, 1));
    assert_eq!(send(&mut mesh, 2, &frame), (vec![], vec![]));
}

#[test]
fn multicast_routers_get_all_known_groups_and_reports() {
    let mut mesh = four(&[0], &[3]);
    assert_eq!(send(&mut mesh, 1, &udp(GROUP, 100)), (vec![0, 3], vec![(1, 0), (1, 2), (2, 3)]));
    let (arrived, _) = send(&mut mesh, 0, &joins());
    assert_eq!(arrived, [3], "others would not answer for themselves any more");
    assert_eq!([1, 2, 3].map(|n| mesh.counters(n).drop_no_multicast_router.get()), [1, 1, 0]);
}

#[test]
fn what_stations_say_is_told_and_bounded() {
    let mut mesh = four(&[], &[]);
    let punts = |mesh: &mut Mesh, frame: &[u8]| {
        mesh.send(0, &PLAIN, frame);
        mesh.settle();
        std::mem::take(&mut mesh.nodes[0].outbox.punts)
    };
    let told = Punt::Members(vec![Membership { group: GROUP.into(), joined: true }]);
    assert!(punts(&mut mesh, &joins()).contains(&told));
    let link_local = packet([224, 0, 0, 251], 2, &[0x16, 0, 0, 0, 224, 0, 0, 251]);
    assert!(punts(&mut mesh, &link_local).is_empty());
    mesh.sent.clear();
    let mut question = questions(None).remove(0);
    assert!(punts(&mut mesh, &question).is_empty() && mesh.sent.is_empty(), "another router asks on its own bridge");
    assert_eq!(mesh.counters(0).drop_question.get(), 1);
    question[6..12].copy_from_slice(&mac(1));
    assert!(punts(&mut mesh, &question).is_empty(), "a switch that snoops asks");
    question[14 + 12..14 + 16].copy_from_slice(&[10, 0, 0, 1]);
    assert_eq!(punts(&mut mesh, &question), [Punt::MulticastRouter]);
    // A station that tells of thousands.
    let records: Vec<u8> = (0..300u16).flat_map(|n| [&[4, 0, 0, 0, 239, 9][..], &n.to_be_bytes()].concat()).collect();
    let crowd = packet([224, 0, 0, 22], 2, &[&[0x22, 0, 0, 0, 0, 0, 1, 44][..], &records].concat());
    assert_eq!(punts(&mut mesh, &crowd), [Punt::TooManyMembers]);
    let many = packet([224, 0, 0, 22], 2, &[&[0x22, 0, 0, 0, 0, 0, 0, 200][..], &records[..1600]].concat());
    let told: Vec<Punt> = (0..100).flat_map(|_| punts(&mut mesh, &many)).collect();
    let members = told.iter().filter(|punt| matches!(punt, Punt::Members(_))).count();
    assert!(members == 9 && told.contains(&Punt::TooManyMembers), "{members}");
    assert_eq!(mesh.counters(0).memberships_over_rate.get(), 300 + 91 * 200);
}
