//! The packet path against a kernel in plain byte code: whatever containers send, the packets that come out of the far TAP are those
//! that would have left a network card here; whatever a peer sends, nothing is written that a kernel must not be given.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::forwarder::Received;
use super::fuzz::seal;
use super::mac_table::Source;
use super::testkit::kernel::{flow, packets, refusal, tcp, without_free_id};
use super::testkit::{MemoryTap, Mesh, Recipe, Wiring, address, mac, name};
use crate::wire::bundle::{Form, FrameHeader};
use crate::wire::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};
use crate::wire::{Kind, VnetHeader};

/// One conversation.
#[derive(Clone, Debug)]
struct Flow {
    recipe: Recipe,
    /// The outer tag of two is a service tag.
    service_tag: bool,
    /// IPv6 extension headers, by number.
    extensions: Vec<u8>,
    /// Its destination is not known: it is flooded.
    unknown: bool,
}

/// What one conversation sends next.
#[derive(Clone, Debug)]
struct Step {
    flow: usize,
    payload: usize,
    gso_size: u16,
    flags: u8,
    /// What waits is sent.
    flush: bool,
}

/// What the network does to a datagram, from a number.
#[derive(Clone, Copy, Debug)]
struct Weather {
    losses: bool,
    reorders: bool,
    /// Datagrams in one message at most.
    batch: usize,
    seed: u64,
}

impl Weather {
    fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.seed >> 33
    }
}

impl Flow {
    /// The frame with vnet header of one step; the conversation goes on.
    fn frame(&mut self, step: &Step) -> (VnetHeader, Vec<u8>) {
        let recipe = Recipe { payload: step.payload, flags: 0x10 | step.flags, ..self.recipe.clone() };
        let (mut vnet, mut bytes) = (recipe.vnet(step.gso_size), recipe.frame());
        if vnet.gso_type != 0 && recipe.tcp && recipe.flags & 0x80 != 0 {
            vnet.gso_type |= GSO_ECN;
        }
        if self.service_tag && recipe.tags.len() == 2 {
            bytes[12..14].copy_from_slice(&[0x88, 0xa8]);
        }
        if recipe.v6 {
            let l3 = 14 + 4 * recipe.tags.len();
            let mut next = bytes[l3 + 6];
            for &kind in self.extensions.iter().rev() {
                let header = [&[next, if kind == 51 { 2 } else { 1 }], &[1; 14][..]].concat();
                bytes.splice(l3 + 40..l3 + 40, header);
                next = kind;
                vnet.csum_start += 16;
            }
            bytes[l3 + 6] = next;
            let length = (bytes.len() - l3 - 40) as u16;
            bytes[l3 + 4..l3 + 6].copy_from_slice(&length.to_be_bytes());
        }
        self.recipe.sequence = self.recipe.sequence.wrapping_add(if recipe.tcp { step.payload as u32 } else { 1 });
        let count = if step.gso_size == 0 { 1 } else { step.payload.div_ceil(usize::from(step.gso_size)).max(1) };
        self.recipe.id = self.recipe.id.wrapping_add(count as u16);
        (vnet, bytes)
    }
}

fn flows() -> impl Strategy<Value = Vec<Flow>> {
    let shape = (any::<bool>(), 0usize..3, 0usize..4, any::<bool>(), any::<bool>(), 0usize..11);
    let more =
        (any::<bool>(), proptest::collection::vec(prop_oneof![Just(0u8), Just(60), Just(51)], 0..3), 0u8..8, any::<u16>(), any::<u32>());
    let flow = (shape, more).prop_map(
        |((v6, tags, ip_options, dont_fragment, tcp, tcp_options), (service_tag, extensions, unknown, id, sequence))| Flow {
            recipe: Recipe {
                v6,
                tags: [5, 6][..tags].to_vec(),
                ip_options,
                dont_fragment,
                tcp,
                tcp_options,
                id,
                sequence,
                ..Recipe::default()
            },
            service_tag,
            extensions,
            unknown: unknown == 0,
        },
    );
    proptest::collection::vec(flow, 1..5).prop_map(|mut flows| {
        for (n, flow) in flows.iter_mut().enumerate() {
            // Different addresses keep them apart.
            (flow.recipe.source, flow.recipe.destination) = (10 + n as u8, 20 + n as u8);
        }
        flows
    })
}

/// Payloads as they come: empty, small, all sizes, many equal ones in a row, and super frames.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![
        Just((0usize, 0u16)),
        (1usize..1200).prop_map(|n| (n, 0)),
        Just((64, 0)),
        Just((64, 0)),
        Just((1000, 0)),
        (1u16..1200, 2usize..63, 0usize..1200).prop_map(|(gso, count, rest)| ((usize::from(gso) * count + rest).min(60_000), gso))
    ];
    let step = (0usize..4, size, any::<[bool; 4]>(), 0u8..5, 1usize..6);
    let run = step.prop_map(|(flow, (payload, gso_size), [fin, psh, ece, cwr], flush, repeat)| {
        let bit = |on, bit| if on { bit } else { 0 };
        let flags = bit(fin && psh && cwr, 0x01) | bit(psh, 0x08) | bit(ece, 0x40) | bit(cwr && !psh, 0x80);
        // Older kernels take no more than 64 datagrams in one frame.
        let payload = if gso_size > 0 { payload.min(usize::from(gso_size) * 64) } else { payload };
        vec![Step { flow, payload, gso_size, flags, flush: flush == 0 }; repeat]
    });
    proptest::collection::vec(run, 1..12).prop_map(|runs| runs.concat())
}

/// What the far router is to write to.
fn taps() -> impl Strategy<Value = MemoryTap> {
    any::<[bool; 5]>().prop_map(|[gso, gso6, uso, ecn, csum]| MemoryTap { gso, gso6, uso, ecn, csum, frames: Vec::new() })
}

/// Sends all steps through two routers; the packets that went in, those that came out, and how many datagrams were lost.
fn carry(
    flows: &mut [Flow],
    steps: &[Step],
    tap: MemoryTap,
    weather: &mut Weather,
    max_datagram: u16,
) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, usize) {
    let mut mesh = Mesh::line(Wiring { max_datagram, ..Wiring::default() });
    mesh.nodes[1].tap = tap;
    for flow in flows.iter().filter(|flow| !flow.unknown) {
        let vlan = flow.recipe.tags.first().copied().unwrap_or(0);
        mesh.nodes[0].forwarder.shared().macs.learn_remote(vlan, mac(flow.recipe.destination), name(1), Source::Data, mesh.now);
    }
    let (mut sent, mut lost) = (Vec::new(), 0);
    let count = flows.len();
    for (n, step) in steps.iter().enumerate() {
        let (vnet, bytes) = flows[step.flow % count].frame(step);
        assert_eq!(refusal(&vnet, &bytes), None, "the test's own frames are good");
        sent.extend(packets(&vnet, &bytes));
        mesh.send(0, &vnet, &bytes);
        if step.flush || n + 1 == steps.len() {
            lost += deliver(&mut mesh, weather);
        }
    }
    let written = std::mem::take(&mut mesh.nodes[1].tap.frames);
    let tap = &mesh.nodes[1].tap;
    let mut arrived = Vec::new();
    for (vnet, bytes) in written {
        assert_eq!(refusal(&vnet, &bytes), None);
        assert!(tap.csum || vnet.flags == 0, "no partial checksum for who does not want it");
        let allowed = match vnet.gso_kind() {
            GSO_NONE => true,
            GSO_TCPV4 => tap.gso,
            GSO_TCPV6 => tap.gso6,
            kind => kind == GSO_UDP_L4 && tap.uso,
        };
        assert!(allowed && (tap.ecn || vnet.gso_type & GSO_ECN == 0), "no super frame for who does not want it: {vnet:?}");
        arrived.extend(packets(&vnet, &bytes));
    }
    (sent, arrived, lost)
}

/// Carries what waits in the first router's outbox to the second, in one receive batch; how many datagrams were lost.
fn deliver(mesh: &mut Mesh, weather: &mut Weather) -> usize {
    let runs = mesh.nodes[0].outbox.runs();
    let mut datagrams: Vec<Vec<u8>> = runs.flat_map(|(_, bytes, segment)| bytes.chunks(segment).map(<[u8]>::to_vec)).collect();
    mesh.nodes[0].outbox.clear();
    let all = datagrams.len();
    datagrams.retain(|_| !weather.losses || !weather.next().is_multiple_of(10));
    let lost = all - datagrams.len();
    if weather.reorders {
        for at in 1..datagrams.len() {
            if weather.next().is_multiple_of(5) {
                datagrams.swap(at, at - 1);
            }
        }
    }
    let (mut buffer, mut messages) = (Vec::new(), Vec::<Received>::new());
    let (mut room, mut closed) = (0, true);
    for datagram in &datagrams {
        let start = buffer.len();
        buffer.extend_from_slice(datagram);
        match messages.last_mut().filter(|last| !closed && room > 0 && datagram.len() <= last.segment) {
            Some(last) => {
                last.range.end = buffer.len();
                (room, closed) = (room - 1, datagram.len() < last.segment);
            }
            None => {
                messages.push(Received { from: address(0), range: start..buffer.len(), segment: datagram.len() });
                (room, closed) = (weather.next() as usize % weather.batch, false);
            }
        }
    }
    let node = &mut mesh.nodes[1];
    node.forwarder.from_udp_batch(mesh.now, &mut buffer, &messages, &mut node.outbox, &mut node.tap);
    lost
}

fn by_flow(all: Vec<Vec<u8>>) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for packet in all {
        flows.entry(flow(&packet)).or_default().push(without_free_id(packet));
    }
    flows
}

/// The bytes of TCP connections by sequence number, and where FIN, PSH and CWR stand in them.
type Streams = BTreeMap<Vec<u8>, (BTreeMap<u32, u8>, BTreeMap<u32, u8>, BTreeMap<u32, u8>)>;

fn streams(all: &[Vec<u8>]) -> Streams {
    let mut streams = Streams::new();
    for packet in all {
        let Some((sequence, flags, payload)) = tcp(packet) else { continue };
        let (bytes, ends, starts) = streams.entry(flow(packet)).or_default();
        let end = sequence.wrapping_add(payload.len() as u32);
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| (sequence.wrapping_add(at as u32), *byte)));
        if flags & 0x09 != 0 {
            *ends.entry(end).or_default() |= flags & 0x09;
        }
        if flags & 0x80 != 0 {
            starts.insert(sequence, flags & 0x80);
        }
    }
    streams
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_arrive_as_they_would_have_left(mut flows in flows(), steps in steps(), tap in taps(), seed in any::<u64>(), batch in 1usize..64) {
        let mut weather = Weather { losses: false, reorders: false, batch, seed };
        let (sent, arrived, _) = carry(&mut flows, &steps, tap, &mut weather, 1472);
        prop_assert_eq!(by_flow(arrived), by_flow(sent));
    }

    #[test]
    fn a_bad_network_costs_only_what_it_takes(
        mut flows in flows(), steps in steps(), tap in taps(), seed in any::<u64>(), batch in 1usize..64, losses in any::<bool>(),
    ) {
        let mut weather = Weather { losses, reorders: true, batch, seed };
        let (sent, arrived, lost) = carry(&mut flows, &steps, tap, &mut weather, 1472);
        let count = |all: Vec<Vec<u8>>| {
            let mut counted = BTreeMap::<_, usize>::new();
            all.into_iter().for_each(|packet| *counted.entry(without_free_id(packet)).or_default() += 1);
            counted
        };
        let missing = sent.len() as isize - arrived.len() as isize;
        let (sent, arrived) = (count(sent), count(arrived));
        for (packet, times) in &arrived {
            prop_assert!(sent.get(packet).is_some_and(|sent| sent >= times), "a packet that nobody sent");
        }
        prop_assert!(missing == 0 || lost > 0);
        // A datagram of this version holds one packet.
        prop_assert!(missing <= lost as isize, "{missing} packets are missing of {lost} datagrams");
    }

    #[test]
    fn cut_smaller_it_is_the_same_stream(mut flows in flows(), steps in steps(), tap in taps(), seed in any::<u64>(), max_datagram in 300u16..1472) {
        for flow in &mut flows {
            // Floods have a size of their own, whatever the path's.
            (flow.recipe.tcp, flow.unknown) = (true, false);
        }
        let steps: Vec<Step> = steps.into_iter().filter(|step| step.gso_size > 0 && step.payload > usize::from(step.gso_size)).collect();
        prop_assume!(!steps.is_empty());
        let mut weather = Weather { losses: false, reorders: false, batch: 64, seed };
        let (sent, arrived, _) = carry(&mut flows, &steps, tap, &mut weather, max_datagram);
        prop_assert!(arrived.iter().all(|packet| packet.len() < usize::from(max_datagram)));
        prop_assert_eq!(streams(&arrived), streams(&sent));
    }

    /// Frames as a router cuts them, with anything changed in them and in their headers.
    #[test]
    fn whatever_a_peer_sends_the_kernel_is_given_nothing_bad(
        mut flows in flows(), steps in steps(), tap in taps(), changes in proptest::collection::vec((any::<u16>(), 0usize..110, any::<u8>()), 0..12),
        forms in proptest::collection::vec((any::<u16>(), 0u8..8, any::<u16>()), 0..6), flood in any::<bool>(),
    ) {
        let mut mesh = Mesh::line(Wiring::default());
        mesh.nodes[1].tap = tap;
        let mut frames = Vec::new();
        let count = flows.len();
        for step in &steps {
            let (vnet, bytes) = flows[step.flow % count].frame(step);
            mesh.send(0, &vnet, &bytes);
        }
        mesh.settle();
        for (vnet, bytes) in std::mem::take(&mut mesh.nodes[1].tap.frames) {
            // Cut by the reference; what is complete then is called partial all the same.
            frames.extend(packets(&vnet, &bytes).into_iter().enumerate());
        }
        for (frame, at, value) in changes {
            let number = usize::from(frame) % frames.len().max(1);
            if let Some(byte) = frames.get_mut(number).and_then(|(_, bytes)| bytes.get_mut(at)) {
                *byte = value;
            }
        }
        let last = frames.len().saturating_sub(1);
        let mut headers: Vec<FrameHeader> = frames.iter().enumerate().map(|(n, (index, bytes))| {
            let next_is_new = n == last || frames[n + 1].0 == 0;
            let form = Form::Segment { index: *index as u16, last: next_is_new, ecn: false };
            FrameHeader { form, partial: true, length: bytes.len() as u16 }
        }).collect();
        for (frame, form, number) in forms {
            let at = usize::from(frame) % headers.len().max(1);
            let Some(header) = headers.get_mut(at) else { continue };
            header.partial = form & 1 == 0;
            header.form = match form >> 1 {
                0 => Form::Whole,
                1 => Form::Segment { index: number, last: number & 1 == 0, ecn: number & 2 == 0 },
                2 => Form::Segment { index: at as u16, last: false, ecn: true },
                _ => Form::Fragment { id: number & 1, index: (number >> 8) as u8 & 3, last: number & 2 == 0 },
            };
        }
        let kind = if flood { Kind::Flood } else { Kind::DataDirect };
        for (header, (_, bytes)) in headers.iter().zip(&frames) {
            let mut text = if flood { flood_header(&mesh) } else { Vec::new() };
            let start = text.len();
            text.resize(start + header.header_len() + bytes.len(), 0);
            header.write(bytes, &mut text[start..]);
            let datagram = seal(&mesh, 0, 1, kind, &text);
            mesh.nodes[0].outbox.reserve(address(1), 1, datagram.len()).expect("room").copy_from_slice(&datagram);
            if mesh.nodes[0].outbox.len() > 100 {
                deliver(&mut mesh, &mut Weather { losses: false, reorders: false, batch: 63, seed: 1 });
            }
        }
        deliver(&mut mesh, &mut Weather { losses: false, reorders: false, batch: 63, seed: 1 });
        for (vnet, bytes) in &mesh.nodes[1].tap.frames {
            prop_assert_eq!(refusal(vnet, bytes), None);
        }
    }
}

/// The header of the next flood that the first router would send.
fn flood_header(mesh: &Mesh) -> Vec<u8> {
    let session = &mesh.sessions[&(0, 1)];
    let sequence = session.reserve(1, 1).unwrap_or(0);
    let header = crate::wire::flood::FloodHeader { origin: name(0), incarnation: 1, lane: 1, hop_limit: 9, sequence: 1000 + sequence };
    header.to_bytes().to_vec()
}
