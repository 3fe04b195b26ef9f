//! Fuzz bodies: from arbitrary bytes to everything of this module that outsiders' bytes reach. Nothing may panic.

use zerocopy::FromBytes;

use crate::time::Time;
use crate::wire::bundle::Cursor;
use crate::wire::flood::FloodHeader;
use crate::wire::header::TAG_LEN;
use crate::wire::{HEADER_LEN, Header, Kind, PeerName, VnetHeader};

use super::frame::{Frame, macs};
use super::mac_table::Source;
use super::membership::{self, Talk};
use super::testkit::{Mesh, Wiring, address, kernel, mac, name};

/// Bundle and flood header parsers: what they yield lies inside what they were given.
pub fn bundle(data: &[u8]) {
    let _ = FloodHeader::parse(data);
    let mut cursor = Cursor::new(0..data.len());
    while let Some(Ok((header, range))) = cursor.next(data) {
        assert_eq!(data.get(range).map(<[u8]>::len), Some(usize::from(header.length)));
    }
}

/// A receive buffer as it came from the network: nothing in it is authentic.
pub fn datagrams(data: &[u8]) {
    let Some((&[hi, lo], bytes)) = data.split_first_chunk() else { return };
    let mut mesh = Mesh::line(Wiring { routers: 3, ..Wiring::default() });
    mesh.receive(1, address(0), bytes, usize::from(u16::from_be_bytes([hi, lo])));
    mesh.settle();
}

/// A peer that holds the keys and says anything: datagrams are opened, re-joined, reassembled and written to the TAP.
pub fn sealed(data: &[u8]) {
    let Some((&[choice, hi, lo], text)) = data.split_first_chunk() else { return };
    let size = 1 + usize::from(u16::from_be_bytes([hi, lo])) % 1500;
    let mut mesh = Mesh::line(Wiring { routers: 3, ..Wiring::default() });
    let tap = &mut mesh.nodes[1].tap;
    (tap.gso, tap.uso, tap.csum, tap.gso6) = (choice & 1 == 0, choice & 2 == 0, choice & 4 == 0, choice & 16 == 0);
    let kind = if choice & 8 == 0 { Kind::DataDirect } else { Kind::Flood };
    let mut buffer = Vec::new();
    for chunk in text.chunks(size) {
        buffer.extend(seal(&mesh, 0, 1, kind, chunk));
    }
    mesh.receive(1, address(0), &buffer, HEADER_LEN + size + TAG_LEN);
    for (vnet, bytes) in &mesh.nodes[1].tap.frames {
        check_written(vnet, bytes);
    }
    mesh.settle();
}

/// A container that sends anything: cut, sealed, opened, re-joined.
pub fn frames(data: &[u8]) {
    let Some((&[choice], rest)) = data.split_first_chunk() else { return };
    let Ok((vnet, bytes)) = VnetHeader::read_from_prefix(rest) else { return };
    let max_datagram = if choice & 1 == 0 { 1472 } else { 300 };
    let mut mesh = Mesh::line(Wiring { max_datagram, ..Wiring::default() });
    let mut bytes = bytes.to_vec();
    if let Some(frame) = Frame::parse(&bytes) {
        membership::group_of(&bytes, &frame);
        if let Some(Talk::Report(report)) = membership::parse(&bytes, &frame) {
            report.for_each(|_, _| ());
        }
    }
    if let (Some(frame), Some((_, source))) = (Frame::parse(&bytes), macs(&bytes))
        && choice & 2 == 0
        && source != mac(2)
    {
        bytes[..6].copy_from_slice(&mac(2));
        mesh.nodes[0].forwarder.shared().macs.learn_remote(frame.vlan, mac(2), name(1), Source::Data, Time(0));
    }
    mesh.send(0, &vnet, &bytes);
    mesh.settle();
    let written = &mesh.nodes[1].tap.frames;
    for (vnet, bytes) in written {
        check_written(vnet, bytes);
    }
    // A good frame arrives as the same packets, unless it was cut smaller to fit.
    let fits = vnet.gso_type == 0 || max_datagram > vnet.gso_size.saturating_add(200);
    if !written.is_empty() && fits && kernel::refusal(&vnet, &bytes).is_none() {
        let arrived = written.iter().flat_map(|(vnet, bytes)| kernel::packets(vnet, bytes)).collect::<Vec<_>>();
        assert_eq!(arrived, kernel::packets(&vnet, &bytes));
    }
}

/// The datagram that router `from` seals for router `to`.
pub fn seal(mesh: &Mesh, from: usize, to: usize, kind: Kind, text: &[u8]) -> Vec<u8> {
    let session = &mesh.sessions[&(from, to)];
    let counter = session.reserve(1, 1).unwrap_or(0);
    let destination: PeerName = name(to);
    let header = Header { kind, hop_limit: 9, lane: 1, label: 0, destination, index: session.remote_index(), counter };
    let mut datagram = header.to_bytes().to_vec();
    datagram.extend_from_slice(text);
    if !kind.is_plain() {
        datagram.extend_from_slice(&[0; TAG_LEN]);
        session.seal(1, counter, &mut datagram);
    }
    datagram
}

/// What the kernel would do with a wrong vnet header is worse than a refusal, so it must never be wrong.
fn check_written(vnet: &VnetHeader, bytes: &[u8]) {
    assert_eq!(kernel::refusal(vnet, bytes), None);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forward::testkit::Recipe;
    use crate::wire::bundle::{Form, FrameHeader};
    use zerocopy::IntoBytes;

    /// A bundle of good frames, so that mutations reach deep.
    fn good_bundle() -> Vec<u8> {
        let mut out = Vec::new();
        for (index, recipe) in [
            Recipe { payload: 40, ..Recipe::default() },
            Recipe { payload: 40, sequence: 0xffff_f000 + 40, id: 0x1235, ..Recipe::default() },
            Recipe { payload: 40, tcp: false, ..Recipe::default() },
            Recipe { payload: 40, tcp: false, v6: true, ..Recipe::default() },
        ]
        .iter()
        .enumerate()
        {
            let frame = recipe.frame();
            let form = if index < 2 { Form::Segment { index: index as u16, last: false, ecn: false } } else { Form::Whole };
            let header = FrameHeader { form, partial: true, length: frame.len() as u16 };
            let at = out.len();
            out.resize(at + header.header_len() + frame.len(), 0);
            header.write(&frame, &mut out[at..]);
        }
        out
    }

    fn mutated(mut bytes: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = *value;
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_bytes_do_no_harm(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            bundle(&data);
            datagrams(&data);
            sealed(&data);
            frames(&data);
        }

        #[test]
        fn nearly_good_bytes_do_no_harm(
            choice in any::<u8>(), size in 100u16..400, changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            recipe in (any::<bool>(), any::<bool>(), 0usize..4000, 1u16..1500),
        ) {
            let text = mutated(good_bundle(), &changes);
            bundle(&text);
            sealed(&[&[choice][..], &size.to_be_bytes(), &text].concat());
            let (tcp, v6, payload, gso) = recipe;
            let recipe = Recipe { tcp, v6, payload, ..Recipe::default() };
            let data = [&[choice][..], recipe.vnet(gso).as_bytes(), &recipe.frame()].concat();
            frames(&mutated(data, &changes.iter().map(|(at, value)| (at % 90, *value)).collect::<Vec<_>>()));
        }
    }
}
