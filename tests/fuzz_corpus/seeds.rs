//! The seeds of the fuzz targets: small, meaningful inputs from which mutations reach every parser.

mod ipam;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use weave_router::crypto::handshake::{Arithmetic, Classic, Exchange, Initiator, Local, Offer, Pattern, Responder, Stamp, Start};
use weave_router::crypto::{Identity, Providers, Psks, SimulatedSignatures, Suite, SuiteTiming};
use weave_router::forward::testkit::Recipe;
use weave_router::mesh::fuzz::Step;
use weave_router::mesh::gossip::{Config, DEFAULT_MAX_MESSAGE, Limits, Output, Store};
use weave_router::names::Own;
use weave_router::time::Time;
use weave_router::wire::body::{Extensions, LinkEntry, MacEntry, Node};
use weave_router::wire::bundle::{Form, FrameHeader};
use weave_router::wire::control::{CloseReason, Fastdp, Link, Ping, Pong, Record, Refusal, Trace, Traced};
use weave_router::wire::flood::FloodHeader;
use weave_router::wire::gossip::{self, Key, TreeNode};
use weave_router::wire::groups::{GROUPS, Groups};
use weave_router::wire::handshake::{Handshake, Type};
use weave_router::wire::record::{Edition, RecordId};
use weave_router::wire::vnet::GSO_ECN;
use weave_router::wire::{Address, Header, Kind, PeerName, VnetHeader};

/// Seeds by target and name.
pub type Seeds = BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>;

/// All seeds.
pub fn all() -> Seeds {
    let named = |seeds: Vec<(&str, Vec<u8>)>| seeds.into_iter().map(|(name, bytes)| (format!("seed-{name}"), bytes)).collect();
    BTreeMap::from([
        ("header", named(headers())),
        ("control", named(controls())),
        ("handshake", named(handshakes())),
        ("bundle", named(bundles())),
        ("sealed", named(sealed())),
        ("datagrams", named(datagrams())),
        ("cut_rejoin", named(frames())),
        ("gossip", named(gossips())),
        ("mesh", named(scripts())),
        ("names", named(names())),
        ("dns", named(queries())),
        ("ipam", named(ipam::seeds())),
    ])
}

fn header(kind: Kind, destination: PeerName, index: u32) -> Vec<u8> {
    Header { kind, hop_limit: 32, lane: 1, label: 9, destination, index, counter: 7 }.to_bytes().to_vec()
}

/// One header of each kind.
fn headers() -> Vec<(&'static str, Vec<u8>)> {
    let all = Kind::ALL.iter().flat_map(|kind| header(*kind, PeerName([0x7a, 0x3c, 1, 2, 3, 4]), 0xab_cdef));
    let all: Vec<u8> = all.collect();
    let names = ["handshake", "handshake-relayed", "control", "control-relayed", "reject", "retry", "data", "data-relayed"];
    let names = names.into_iter().chain(["flood", "plain", "plain-relayed", "plain-flood"]);
    names.zip(all.chunks(16)).map(|(name, bytes)| (name, bytes.to_vec())).collect()
}

fn address() -> Address {
    Address::udp(([10, 0, 0, 66], 6783).into())
}

/// Each control record.
fn records(gossip: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let six = Address::udp(([0xfd00, 0, 0, 0, 0, 0, 0, 7], 6783).into());
    let fastdp = Fastdp { refusal: Some(Refusal::Path), hears: true, port: 6784, vni: 0xab_cdef, mac: [2, 1, 2, 3, 4, 5] };
    let records = [
        ("ping", Record::Ping(Ping { sequence: 7, active: true, link: true, clear: false, age: 250, root: 1 })),
        ("pong", Record::Pong(Pong { sequence: 1, active: false, root: 9 })),
        ("link", Record::Link(Link { answer: false, only: true })),
        ("close-full", Record::Close(CloseReason::Full, vec![address(), six])),
        ("close-leaving", Record::Close(CloseReason::Leaving, Vec::new())),
        ("observed", Record::Observed(six)),
        ("probe", Record::Probe { nonce: 3, size: 1472 }),
        ("probed", Record::Probed { nonce: 3, size: 1472 }),
        ("challenge", Record::Challenge(11)),
        ("response", Record::Response(11)),
        ("gossip", Record::Gossip(gossip)),
        ("candidates", Record::Candidates(vec![address(), six])),
        ("trace", Record::Trace(Trace { probe: 5, destination: PeerName([2, 0, 0, 0, 0, 7]), left: 3 })),
        ("traced", Record::Traced(Traced { probe: 5, router: PeerName([2, 0, 0, 0, 0, 7]), next: PeerName::NONE, end: 2 })),
        ("fastdp", Record::Fastdp(fastdp)),
    ];
    let wire = |record: Record<'_>| {
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        bytes
    };
    records.into_iter().map(|(name, record)| (name, wire(record))).collect()
}

fn controls() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = records(b"hello");
    let run: Vec<u8> = seeds.iter().flat_map(|(_, bytes)| bytes.clone()).chain([200, 0, 1, 0]).collect();
    seeds.push(("run", run));
    seeds
}

fn local(seed: u8) -> Local {
    Local {
        identity: Arc::new(Identity::from_seed(&[seed; 32])),
        network: "weave".into(),
        psks: Psks::none("weave"),
        offer: Offer {
            version_min: 1,
            version_max: 1,
            features: 0,
            suites: vec![SuiteTiming { suite: Suite::ChaCha20Poly1305, nanoseconds: 1000 }],
            lanes: 2,
            plain: false,
            nickname: None,
        },
        classic: Classic::Accepted,
        providers: Providers::default(),
        arithmetic: Arithmetic::True,
    }
}

fn first(pattern: Pattern, from: &Local, to: &Local, exchange: Exchange) -> (Initiator, Vec<u8>) {
    let rng = &mut ChaCha12Rng::from_seed([4; 32]);
    let start = Start { psk_index: 0, stamp: Stamp::default(), local_index: 2, exchange };
    match pattern {
        Pattern::Xx => Initiator::start_xx(from, start, rng),
        Pattern::Ik => Initiator::start_ik(from, to.identity.public(), start, rng),
    }
    .expect("both ends are well formed")
}

/// The first byte chooses what the body feeds them to: 0 and 1 first messages, 2 and 3 answers, 4 the third message, 5 a
/// payload, 6 the body of a datagram, 7 a datagram of a session.
fn handshakes() -> Vec<(&'static str, Vec<u8>)> {
    let (ours, theirs) = (local(1), local(2));
    let to_us = |pattern| first(pattern, &theirs, &ours, Exchange::Hybrid).1;
    let answer = |pattern| {
        let (rng, asked) = (&mut ChaCha12Rng::from_seed([9; 32]), first(pattern, &ours, &theirs, Exchange::Hybrid).1);
        Responder::answer(&theirs, pattern, &asked, Stamp::default(), 1, rng).expect("an answer").message
    };
    let third = first(Pattern::Xx, &ours, &theirs, Exchange::Hybrid).0.read_answer(&ours, &answer(Pattern::Xx)).expect("a true answer").1;
    let part = Handshake::whole(theirs.identity.name(), Type::XxOne, 11, &to_us(Pattern::Xx)).cut().nth(1).map(|part| {
        let mut bytes = Vec::new();
        part.write(&mut bytes);
        bytes
    });
    let payload = [
        &b"\x02\x00\x10\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x01\x03\x00\x03\xab\xcd\xef\x04\x00\x02\x01\x02\x05\x00\x04\0\0\0\x05"[..],
        b"\x06\x00\x05\x01\0\0\0\xbc\x07\x00\x01\x02\x08\x00\x01\x01\x09\x00\x08berlin-1\x0a\x00\x02\x01\x02",
        b"\x0b\x04\xa0",
        &[7; 1184],
        b"\x0c\x04\x40",
        &[9; 1088],
        b"\0\0",
    ];
    let mut retried = Vec::new();
    let name = theirs.identity.name();
    let message = Handshake { token: Some([5; 16]), ..Handshake::whole(name, Type::IkOne, 11, b"noise") };
    message.write(&mut retried);
    let with = |choice: u8, bytes: &[u8]| [&[choice][..], bytes].concat();
    vec![
        ("xx-one-classic", with(0, &first(Pattern::Xx, &theirs, &ours, Exchange::Classic).1)),
        ("part", with(6, &part.expect("two parts"))),
        ("xx-one", with(0, &to_us(Pattern::Xx))),
        ("ik-one", with(1, &to_us(Pattern::Ik))),
        ("xx-two", with(2, &answer(Pattern::Xx))),
        ("ik-two", with(3, &answer(Pattern::Ik))),
        ("xx-three", with(4, &third.expect("XX has a third message"))),
        ("payload", with(5, &payload.concat())),
        ("retried", with(6, &retried)),
        ("identity", with(6, &ours.identity.public().to_bytes())),
        ("reject", with(6, &[1])),
        ("session", with(7, &[&header(Kind::DataDirect, PeerName([2; 6]), 1)[..], &[0; 40]].concat())),
        ("session-plain", with(7, &[&header(Kind::PlainDirect, PeerName([2; 6]), 1)[..], &[0; 40]].concat())),
    ]
}

/// Puts frames into a bundle.
fn bundle(frames: &[(Form, bool, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (form, partial, bytes) in frames {
        let header = FrameHeader { form: *form, partial: *partial, length: bytes.len() as u16 };
        let at = out.len();
        out.resize(at + header.header_len() + bytes.len(), 0);
        header.write(bytes, &mut out[at..]);
    }
    out
}

/// Frames that a re-join takes together: segments of one TCP super frame.
fn segments(v6: bool, count: u16) -> Vec<(Form, bool, Vec<u8>)> {
    let segment = |index: u16| {
        let sequence = 0xffff_f000_u32.wrapping_add(u32::from(index) * 40);
        let recipe = Recipe { v6, payload: 40, sequence, id: 0x1234 + index, ..Recipe::default() };
        (Form::Segment { index, last: index + 1 == count, ecn: false }, true, recipe.frame())
    };
    (0..count).map(segment).collect()
}

fn slices(recipe: &Recipe) -> Vec<(Form, bool, Vec<u8>)> {
    let frame = recipe.frame();
    let count = frame.len().div_ceil(60);
    let form = |index: usize| Form::Fragment { id: 0x0304, index: index as u8, last: index + 1 == count };
    frame.chunks(60).enumerate().map(|(index, slice)| (form(index), true, slice.to_vec())).collect()
}

fn flood() -> FloodHeader {
    FloodHeader { origin: PeerName([0x7a, 0, 0, 0, 0, 1]), incarnation: 1, lane: 1, hop_limit: 32, sequence: 3 }
}

fn bundles() -> Vec<(&'static str, Vec<u8>)> {
    let udp = |v6| (Form::Whole, true, Recipe { v6, tcp: false, payload: 40, ..Recipe::default() }.frame());
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    let whole = bundle(&[udp(false), udp(true), (Form::Whole, false, arp)]);
    vec![
        ("segments", bundle(&segments(false, 4))),
        ("segments-v6", bundle(&segments(true, 3))),
        ("slices", bundle(&slices(&Recipe { payload: 200, tags: vec![5], ..Recipe::default() }))),
        ("flood", [&flood().to_bytes()[..], &whole].concat()),
        ("whole", whole),
    ]
}

/// Bits of the first byte: what the TAP cannot, and whether it is a flood; then the size of each datagram.
fn sealed() -> Vec<(&'static str, Vec<u8>)> {
    let with = |choice: u8, size: u16, text: &[u8]| [&[choice][..], &(size - 1).to_be_bytes(), text].concat();
    let bundles: BTreeMap<&str, Vec<u8>> = bundles().into_iter().collect();
    let (tcp, slices) = (segments(false, 4), slices(&Recipe { payload: 200, ..Recipe::default() }));
    let one = bundle(&tcp[..1]).len() as u16;
    vec![
        ("segments", with(0, one, &bundles["segments"])),
        ("segments-one-datagram", with(0, 1000, &bundles["segments"])),
        ("segments-no-gso", with(1, one, &bundles["segments"])),
        ("segments-no-csum", with(7, one, &bundles["segments"])),
        ("segments-v6", with(0, 1000, &bundles["segments-v6"])),
        ("slices", with(0, bundle(&slices[..1]).len() as u16, &bundle(&slices))),
        ("whole", with(0, 1000, &bundles["whole"])),
        ("whole-no-uso", with(2, 1000, &bundles["whole"])),
        ("flood", with(8, 1000, &bundles["flood"])),
    ]
}

/// The size of each datagram, then the receive buffer of router 1 in a line of three.
fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let name = |n: u8| PeerName([0x7a, 0, 0, 0, 0, n + 1]);
    let datagram = |kind, to, index| [&header(kind, name(to), index)[..], &[0xee; 84]].concat();
    let run = |datagrams: &[Vec<u8>]| [&100u16.to_be_bytes()[..], &datagrams.concat()].concat();
    let mixed: Vec<Vec<u8>> = Kind::ALL.iter().map(|kind| datagram(*kind, 1, 257)).collect();
    vec![
        ("relayed", run(&[datagram(Kind::DataRelayed, 2, 1), datagram(Kind::DataRelayed, 2, 1)])),
        ("forged", run(&[datagram(Kind::DataDirect, 1, 257), datagram(Kind::Flood, 1, 257)])),
        ("plain", run(&[datagram(Kind::PlainDirect, 1, 257), datagram(Kind::PlainFlood, 1, 257)])),
        ("every-kind", run(&mixed)),
        ("unknown", run(&[datagram(Kind::DataDirect, 1, 9)])),
    ]
}

/// The first byte chooses path MTU and destination; then the vnet header and the frame as the TAP hands them over.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    use zerocopy::IntoBytes;
    let tcp = Recipe { payload: 6000, ..Recipe::default() };
    let udp = Recipe { payload: 6000, tcp: false, ..Recipe::default() };
    let write = |choice: u8, vnet: VnetHeader, recipe: &Recipe| [&[choice][..], vnet.as_bytes(), &recipe.frame()].concat();
    let with = |choice, recipe: &Recipe, gso| write(choice, recipe.vnet(gso), recipe);
    let ecn = Recipe { flags: 0x90, ..tcp.clone() };
    let fragmentable = Recipe { dont_fragment: false, payload: 3000, ..udp.clone() };
    vec![
        ("tcp", with(0, &tcp, 1300)),
        ("tcp-v6", with(0, &Recipe { v6: true, ..tcp.clone() }, 1300)),
        ("tcp-vlan", with(0, &Recipe { tags: vec![5, 6], flags: 0x19, ..tcp.clone() }, 1300)),
        ("tcp-narrow", with(1, &tcp, 1300)),
        ("tcp-ecn", write(0, VnetHeader { gso_type: GSO_ECN | 1, ..ecn.vnet(1300) }, &ecn)),
        ("udp", with(0, &udp, 1000)),
        ("udp-v6", with(0, &Recipe { v6: true, ..udp.clone() }, 1000)),
        ("udp-narrow", with(1, &udp, 1000)),
        ("udp-big", with(0, &fragmentable, 0)),
        ("tcp-big-df", with(0, &Recipe { payload: 3000, ..tcp.clone() }, 0)),
        ("tcp-big-df-v6", with(0, &Recipe { payload: 3000, v6: true, ..tcp }, 0)),
        ("small", with(0, &Recipe { payload: 10, ..Recipe::default() }, 0)),
        ("flood", with(2, &udp, 1000)),
        ("report", [&[2][..], VnetHeader::default().as_bytes(), &report()].concat()),
    ]
}

/// A report of IGMPv3: one group joined, another left.
fn report() -> Vec<u8> {
    let head = [0x01, 0, 0x5e, 0, 0, 22, 2, 0, 0, 0, 0, 1, 8, 0];
    let ip = [0x45, 0xc0, 0, 44, 0, 0, 0x40, 0, 1, 2, 0, 0, 10, 0, 0, 1, 224, 0, 0, 22];
    let records = [4, 0, 0, 0, 239, 1, 2, 3, 3, 0, 0, 0, 239, 1, 2, 4];
    [&head[..], &ip, &[0x22, 0, 0, 0, 0, 0, 0, 2], &records].concat()
}

/// What router `n` would tell its neighbours of itself.
fn said(n: u8) -> Vec<Vec<u8>> {
    let mut store = Store::new(Config {
        identity: Arc::new(Identity::from_seed(&[n; 32])),
        signatures: Arc::new(SimulatedSignatures),
        network: "weave".into(),
        allow: std::collections::BTreeSet::new(),
        incarnation: 1,
        max_message: DEFAULT_MAX_MESSAGE,
        limits: Limits::default(),
    });
    let mut out = Output::default();
    let node = Node {
        noise: [0; 32],
        certificate: [0; 64],
        features: 0,
        nickname: format!("h{n}"),
        version: "1".into(),
        addresses: vec![address()],
        unknown_addresses: Vec::new(),
        extensions: Extensions::default(),
    };
    store.link_up(Time::ZERO, Identity::from_seed(&[1; 32]).name(), &mut out);
    store.publish_node(Time::ZERO, node, &mut out);
    let link = |to: u8| LinkEntry { neighbour: Identity::from_seed(&[to; 32]).name(), cost: 1000, max_datagram: 1472 };
    store.publish_links(Time::ZERO, &[link(1), link(3)], &mut out);
    store.publish_macs(Time::ZERO, &[MacEntry { vlan: 0, mac: [2, 0, 0, 0, 0, n], moves: 1 }], &mut out);
    let groups =
        Groups { everything: false, groups: vec![[239, 1, 2, n].into(), [0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3].into()] };
    store.publish_app(Time::ZERO, GROUPS, vec![groups.to_bytes()], &mut out);
    store.leave(Time::ZERO, &mut out);
    out.to_all_but.into_iter().map(|(_, message)| message).collect()
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let told = said(2);
    let id = |n: u8| RecordId { name: Identity::from_seed(&[n; 32]).name(), kind: 1, chunk: 0 };
    let edition = Edition { incarnation: 1, sequence: 1, digest: 5 };
    let keys = gossip::keys(TreeNode::ROOT, &[Key { id: id(1).min(id(2)), edition }, Key { id: id(1).max(id(2)), edition }], 1192);
    let names = ["node", "links", "macs", "groups", "left"];
    assert_eq!(told.len(), names.len(), "a router says five things of itself");
    let mut messages: Vec<(&str, Vec<u8>)> = names.into_iter().zip(told).collect();
    messages.push(("root", gossip::root(7)));
    messages.push(("tree", gossip::tree(TreeNode::ROOT, &[3; 16])));
    messages.push(("keys", keys.concat()));
    messages.push(("want", gossip::want(&[id(1), id(2)], 1192).concat()));
    messages
}

/// Messages as they are, for the parsers, and all of them with their lengths, for a store.
fn gossips() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = messages();
    let framed = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let all = seeds.iter().flat_map(|(_, bytes)| framed(bytes)).collect();
    let two = said(2).iter().chain(&said(3)).flat_map(|bytes| framed(bytes)).collect();
    // Whom a router wants to be told by changes as it goes: on, and off again.
    let push = [true, false].into_iter().flat_map(|wanted| framed(&gossip::push(wanted))).collect();
    seeds.push(("conversation", all));
    seeds.push(("push", push));
    seeds.push(("two-routers", two));
    seeds
}

/// Scripts for the mesh plane: whether there is a link, then steps.
fn scripts() -> Vec<(&'static str, Vec<u8>)> {
    let step = |what: Step, bytes: &[u8]| [&[what as u8][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let (router, stranger) = (local(1), local(3));
    let datagrams = |kind, number, message: &[u8]| -> Vec<Vec<u8>> {
        let parts = Handshake::whole(stranger.identity.name(), number, 11, message).cut();
        let write = |part: Handshake<'_>| {
            let mut bytes = header(kind, router.identity.name(), 0);
            part.write(&mut bytes);
            bytes
        };
        parts.map(write).collect()
    };
    let asked = |kind, pattern, number, exchange| datagrams(kind, number, &first(pattern, &stranger, &router, exchange).1);
    let steps = |what, all: Vec<Vec<u8>>| all.iter().flat_map(|bytes| step(what, bytes)).collect::<Vec<_>>();
    let xx = asked(Kind::HandshakeDirect, Pattern::Xx, Type::XxOne, Exchange::Classic).concat();
    let hybrid = |number: Type, pattern| steps(Step::Stranger, asked(Kind::HandshakeDirect, pattern, number, Exchange::Hybrid));
    let repeated: Vec<u8> = std::iter::repeat_n(step(Step::Stranger, &xx), 8).flatten().collect();
    let news = |what| messages().iter().flat_map(|(_, message)| step(what, &records(message).pop().expect("gossip").1)).collect::<Vec<_>>();
    let every = |what| records(b"\x01\0\0\0\0\0\0\0\x07").iter().flat_map(|(_, record)| step(what, record)).collect::<Vec<_>>();
    let all: Vec<u8> = records(b"").into_iter().flat_map(|(_, record)| record).collect();
    let probes: Vec<u8> = records(b"").into_iter().filter(|(name, _)| *name == "probe").flat_map(|(_, record)| record.repeat(2)).collect();
    let with = |linked: u8, steps: &[Vec<u8>]| [&[linked][..], &steps.concat()].concat();
    let forged = [&header(Kind::ControlDirect, router.identity.name(), 1)[..], &[0; 40]].concat();
    vec![
        ("stranger-xx", with(0, &[repeated, step(Step::Wait, &[0; 90])])),
        ("stranger-hybrid", with(0, &[hybrid(Type::XxOne, Pattern::Xx), hybrid(Type::XxOne, Pattern::Xx)])),
        ("stranger-ik", with(0, &[hybrid(Type::IkOne, Pattern::Ik)])),
        ("stranger-forged", with(1, &[step(Step::Stranger, &forged), step(Step::Neighbour, &forged)])),
        ("relayed", with(1, &[steps(Step::Neighbour, asked(Kind::HandshakeRelayed, Pattern::Xx, Type::XxOne, Exchange::Hybrid))])),
        ("records", with(1, &[every(Step::Sealed), step(Step::Wait, &[0; 99])])),
        ("records-moved", with(1, &[every(Step::Moved), step(Step::Wait, &[0; 99])])),
        ("records-relayed", with(1, &[every(Step::Relayed)])),
        ("moved-at-once", with(1, &[step(Step::Moved, &[&all[..], &all].concat()), step(Step::Moved, &probes)])),
        ("moved-after-silence", with(1, &[step(Step::Wait, &[0; 600]), step(Step::Moved, &[]), step(Step::Moved, &all)])),
        ("gossip", with(1, &[news(Step::Sealed), step(Step::Wait, &[0; 400])])),
    ]
}

/// The chunk's number, then the chunk.
fn names() -> Vec<(&'static str, Vec<u8>)> {
    let chunks = |domain: &str, names: &[(&str, &[&str])]| {
        let mut own = Own::new(domain.parse().expect("a domain"));
        for (name, addresses) in names {
            let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
            own.add("0123456789abcdef", name, &addresses).expect("a name");
        }
        [&[0][..], &own.chunks().concat()].concat()
    };
    vec![
        ("two", chunks("weave.local", &[("web", &["10.32.0.1", "fd00::1"]), ("a.b.weave.local", &["10.32.0.2"])])),
        ("elsewhere", chunks("example.com", &[("web", &["10.32.0.1"])])),
        ("empty", b"\x01\x01\x0bweave.local\0\0".to_vec()),
    ]
}

/// Queries as they come in datagrams.
fn queries() -> Vec<(&'static str, Vec<u8>)> {
    let query = |flags: u8, additionals: u8, name: &[u8], kind: u8, rest: &[u8]| {
        [&[7, 7, flags, 0, 0, 1, 0, 0, 0, 0, 0, additionals], name, &[0, 0, kind, 0, 1], rest].concat()
    };
    let many = b"\x04many\x05weave\x05local";
    let reverse = b"\x011\x010\x0232\x0210\x07in-addr\x04arpa";
    vec![
        ("a", query(1, 0, b"\x01a\x01b\x05weave\x05local", 1, &[])),
        ("aaaa", query(1, 0, many, 28, &[])),
        ("any-long", query(1, 0, many, 255, &[])),
        ("edns", query(1, 1, many, 1, &[0, 0, 41, 2, 0xbc, 0, 0, 0, 0, 0, 0])),
        ("soa", query(0, 0, b"\x05weave\x05local", 6, &[])),
        ("ptr", query(1, 0, reverse, 12, &[])),
        ("unknown", query(1, 0, b"\x02no\x05weave\x05local", 1, &[])),
        ("bare", query(1, 0, b"\x04many", 1, &[])),
        ("elsewhere", query(1, 0, b"\x07example\x03com", 1, &[])),
        ("update", query(0x29, 0, many, 1, &[])),
        ("answer", query(0x81, 0, many, 1, &[])),
    ]
}
