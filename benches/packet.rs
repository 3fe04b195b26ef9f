//! `cargo bench --bench packet`: what one frame costs on its way, without a kernel. Everything runs on one thread, in memory.
//!
//! Bytes per second are those of the frame, so that sealing, forwarding and cutting can be compared with each other.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use criterion::{BatchSize, Bencher, BenchmarkId, Criterion, Throughput};
use weave_router::crypto::{Ed25519, Identity, Session, Signatures, SimulatedSignatures, Suite};
use weave_router::forward::cut::Cut;
use weave_router::forward::frame::Frame;
use weave_router::forward::mac_table::Source;
use weave_router::forward::rejoin::{Piece, Rejoin};
use weave_router::forward::testkit::{CountingTap, Mesh, Node, Recipe, Wiring, address, mac, name};
use weave_router::forward::{Duplicates, MacTable, Outbox};
use weave_router::mesh::gossip::{Config, DEFAULT_MAX_MESSAGE, Limits, Output, Store};
use weave_router::mesh::routes::{FloodTree, Routes, Topology};
use weave_router::time::Time;
use weave_router::wire::body::{Extensions, LinkEntry, Node as NodeBody};
use weave_router::wire::bundle::Form;
use weave_router::wire::flood::FloodHeader;
use weave_router::wire::gossip;
use weave_router::wire::header::HOP_LIMIT;
use weave_router::wire::{Address, HEADER_LEN, Header, Kind, PeerName, TAG_LEN, VnetHeader};

/// Plaintext of a small frame, of a medium one, and of a full segment on a 1500-byte path.
const SIZES: [usize; 3] = [64, 512, 1390];
/// TCP payload of a full segment on a 1500-byte path.
const SEGMENT: u16 = 1368;
/// TCP payload of the largest super frame.
const SUPER: usize = 65_160;
/// Start of the benches' time.
const NOW: Time = Time(1_000_000_000);

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args();
    seal_and_open(&mut criterion);
    forward(&mut criterion);
    cut_and_rejoin(&mut criterion);
    tables(&mut criterion);
    routes(&mut criterion);
    merge(&mut criterion);
    criterion.final_summary();
}

fn seal_and_open(criterion: &mut Criterion) {
    let (a, b) = (name(0), name(1));
    let mut group = criterion.benchmark_group("seal");
    for (suite, size) in Suite::available().iter().flat_map(|suite| SIZES.map(|size| (*suite, size))) {
        let (session, _) = Session::pair_for_tests(a, b, suite, 1, false);
        let mut datagram = sealed_header(&session, b, size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new(suite.label(), size), |bench| bench.iter(|| session.seal(1, 0, black_box(&mut datagram))));
    }
    let portable = ChaCha20Poly1305::new(&[7; 32].into());
    for size in SIZES {
        let mut text = vec![0; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("chacha20poly1305-portable", size), |bench| {
            bench.iter(|| portable.encrypt_inout_detached(&[0; 12].into(), &[0; HEADER_LEN], black_box(text.as_mut_slice()).into()));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("open");
    for (suite, size) in Suite::available().iter().flat_map(|suite| SIZES.map(|size| (*suite, size))) {
        let (session, peer) = Session::pair_for_tests(a, b, suite, 1, false);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new(suite.label(), size), |bench| {
            // The window takes each counter once, so every datagram is sealed anew.
            let fresh = || {
                let mut datagram = sealed_header(&session, b, size);
                let header = Header::parse(&datagram).expect("a header");
                session.seal(1, header.counter, &mut datagram);
                (header, datagram)
            };
            bench.iter_batched_ref(fresh, |(header, datagram)| peer.open(header, datagram).is_ok(), BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// A datagram with room for `size` bytes of plaintext, its header filled.
fn sealed_header(session: &Session, to: PeerName, size: usize) -> Vec<u8> {
    let counter = session.reserve(1, 1).expect("a fresh key");
    let header =
        Header { kind: Kind::DataDirect, hop_limit: 1, lane: 1, label: 0, destination: to, index: session.remote_index(), counter };
    [&header.to_bytes()[..], &vec![0; size + TAG_LEN]].concat()
}

/// A line of routers that know where the MAC with the number of each is.
fn line(routers: usize, plain: bool) -> Mesh {
    let mesh = Mesh::line(Wiring { routers, plain, relay_budget: u64::MAX / 64, ..Wiring::default() });
    for (n, node) in mesh.nodes.iter().enumerate() {
        for m in (0..routers).filter(|m| *m != n) {
            node.forwarder.shared().macs.learn_remote(0, mac(m as u8 + 1), name(m), Source::Data, mesh.now);
        }
    }
    mesh
}

/// Datagrams as a router receives them at once.
struct Received {
    bytes: Vec<u8>,
    segment: usize,
}

/// Fills `received` with what router 0 sends for `count` frames alike: as many buffers as there are runs.
fn receive_buffers(mesh: &mut Mesh, vnet: &VnetHeader, frame: &[u8], count: usize, received: &mut Vec<Received>) {
    let Node { forwarder, outbox, tap } = &mut mesh.nodes[0];
    let mut scratch = frame.to_vec();
    for _ in 0..count {
        scratch.copy_from_slice(frame);
        forwarder.from_tap(NOW, vnet, &mut scratch, outbox, tap);
    }
    received.resize_with(outbox.len(), || Received { bytes: Vec::new(), segment: 0 });
    for (buffer, (_, run, segment)) in received.iter_mut().zip(outbox.runs()) {
        buffer.bytes.clear();
        buffer.bytes.extend_from_slice(run);
        buffer.segment = segment;
    }
    outbox.clear();
}

fn forward(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward");
    for plain in [false, true] {
        let seal = if plain { "plain" } else { "sealed" };
        for (what, payload, count) in [("one small frame", 64, 1), ("64 small frames", 64, 64), ("64 KiB super frame", SUPER, 1)] {
            let recipe = Recipe { payload, ..Recipe::default() };
            group.throughput(Throughput::Bytes((recipe.frame().len() * count) as u64));
            group.bench_function(format!("from_tap, {what}, {seal}"), |bench| from_tap(bench, &recipe, plain, count));
            group.bench_function(format!("from_udp, {what}, {seal}"), |bench| from_udp(bench, &recipe, plain, count));
        }
    }
    let recipe = Recipe { payload: SUPER, destination: 3, ..Recipe::default() };
    group.throughput(Throughput::Bytes(recipe.frame().len() as u64));
    group.bench_function("relay, 64 KiB super frame", |bench| relay(bench, &recipe));
    group.finish();
}

fn from_tap(bench: &mut Bencher<'_>, recipe: &Recipe, plain: bool, count: usize) {
    let (mut mesh, mut tap) = (line(2, plain), CountingTap::default());
    let (vnet, pristine) = (recipe.vnet(SEGMENT), recipe.frame());
    let mut frame = pristine.clone();
    let Node { forwarder, outbox, .. } = &mut mesh.nodes[0];
    bench.iter(|| {
        for _ in 0..count {
            // Cutting changes the headers only; a new frame would come from the kernel.
            frame[..80].copy_from_slice(&pristine[..80]);
            forwarder.from_tap(NOW, &vnet, black_box(&mut frame), outbox, &mut tap);
        }
        let sent = outbox.bytes();
        outbox.clear();
        sent
    });
}

/// Receives frames' datagrams. The window takes each once, so they are made anew, in the same buffers: the kernel's writes
/// too leave a receive buffer in the cache.
fn from_udp(bench: &mut Bencher<'_>, recipe: &Recipe, plain: bool, count: usize) {
    let (mut mesh, mut tap, mut outbox) = (line(2, plain), CountingTap::default(), Outbox::new());
    let (vnet, frame) = (recipe.vnet(SEGMENT), recipe.frame());
    let mut receiver = mesh.nodes.pop().expect("two routers");
    let received = RefCell::new(Vec::new());
    let fill = || receive_buffers(&mut mesh, &vnet, &frame, count, &mut received.borrow_mut());
    let receive = |()| {
        for Received { bytes, segment } in received.borrow_mut().iter_mut() {
            receiver.forwarder.from_udp(NOW, address(0), bytes, *segment, &mut outbox, &mut tap);
        }
    };
    bench.iter_batched(fill, receive, BatchSize::PerIteration);
    assert!(tap.frames > 0, "frames arrived");
}

/// Relays a frame's datagrams: the same bytes every time, since a relay looks at the clear header only.
fn relay(bench: &mut Bencher<'_>, recipe: &Recipe) {
    let (mut mesh, mut tap, mut received) = (line(3, false), CountingTap::default(), Vec::new());
    receive_buffers(&mut mesh, &recipe.vnet(SEGMENT), &recipe.frame(), 1, &mut received);
    let Node { forwarder, outbox, .. } = &mut mesh.nodes[1];
    bench.iter(|| {
        for Received { bytes, segment } in &mut received {
            for datagram in bytes.chunks_mut(*segment) {
                datagram[1] = HOP_LIMIT;
            }
            forwarder.from_udp(NOW, address(0), black_box(bytes), *segment, outbox, &mut tap);
        }
        let sent = outbox.bytes();
        assert!(sent > 0, "datagrams go on");
        outbox.clear();
        sent
    });
}

fn cut_and_rejoin(criterion: &mut Criterion) {
    let recipe = Recipe { payload: SUPER, ..Recipe::default() };
    let (vnet, pristine) = (recipe.vnet(SEGMENT), recipe.frame());
    let parsed = Frame::parse(&pristine).expect("a frame");
    let room = 80 + usize::from(SEGMENT);
    let mut group = criterion.benchmark_group("cut and rejoin");
    group.throughput(Throughput::Bytes(pristine.len() as u64));

    let (mut frame, mut out) = (pristine.clone(), vec![0; room]);
    group.bench_function("cut 64 KiB", |bench| {
        bench.iter(|| {
            frame[..80].copy_from_slice(&pristine[..80]);
            let cut = Cut::prepare(black_box(&mut frame), &parsed, &vnet, room).expect("a good super frame");
            for index in 0..cut.count() {
                cut.write(&frame, index, black_box(&mut out[..cut.frame_len(index)]));
            }
        });
    });

    let (mut buffer, pieces) = segments(&pristine, &parsed, &vnet, room);
    let headers = buffer[pieces[0].0.clone()][..80].to_vec();
    let (mut rejoin, mut tap) = (Rejoin::default(), CountingTap::default());
    group.bench_function("rejoin 64 KiB", |bench| {
        bench.iter(|| {
            buffer[pieces[0].0.clone()][..80].copy_from_slice(&headers);
            for (range, piece) in &pieces {
                if !rejoin.append(&buffer, range.clone(), *piece) {
                    rejoin.flush(&mut buffer, &mut tap);
                    let frame = Frame::parse(&buffer[range.clone()]).expect("a frame");
                    rejoin.start(&mut buffer, range.clone(), *piece, &frame, &mut tap);
                }
            }
            rejoin.flush(&mut buffer, &mut tap);
        });
    });
    group.finish();
    assert!(tap.frames > 0 || tap.bytes == 0, "a run is written as one");
}

type Pieces = Vec<(std::ops::Range<usize>, Piece)>;

/// The segments of a super frame as they lie opened in one receive buffer.
fn segments(frame: &[u8], parsed: &Frame, vnet: &VnetHeader, room: usize) -> (Vec<u8>, Pieces) {
    let mut frame = frame.to_vec();
    let cut = Cut::prepare(&mut frame, parsed, vnet, room).expect("a good super frame");
    let (mut buffer, mut pieces) = (Vec::new(), Vec::new());
    for index in 0..cut.count() {
        let start = buffer.len() + 21;
        let end = start + cut.frame_len(index);
        buffer.resize(end + TAG_LEN, 0);
        cut.write(&frame, index, &mut buffer[start..end]);
        let form = Form::Segment { index: index as u16, last: index + 1 == cut.count(), ecn: false };
        pieces.push((start..end, Piece { key: 1, counter: index as u32, form, partial: true }));
    }
    (buffer, pieces)
}

fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tables");
    let table = MacTable::new(8192, 5);
    let mac = |n: u32| {
        let [a, b, c, d] = n.to_be_bytes();
        [2, 0, a, b, c, d]
    };
    for n in 0..4000 {
        table.learn_remote(0, mac(n), name(1), Source::Data, NOW);
    }
    let mut n = 0;
    group.bench_function("MAC lookup among 4000", |bench| {
        bench.iter(|| {
            n = (n + 1) % 4000;
            table.lookup(0, black_box(mac(n)), NOW)
        });
    });
    group.bench_function("MAC learned again among 4000", |bench| {
        bench.iter(|| {
            n = (n + 1) % 4000;
            table.learn_remote(0, black_box(mac(n)), name(1), Source::Data, NOW)
        });
    });
    let duplicates = Duplicates::new(1024, 5);
    let mut flood = FloodHeader { origin: name(3), incarnation: 1, lane: 1, hop_limit: 9, sequence: 0 };
    group.bench_function("flood seen for the first time", |bench| {
        bench.iter(|| {
            flood.sequence = flood.sequence.wrapping_add(1);
            duplicates.check(black_box(&flood), NOW)
        });
    });
    group.bench_function("flood seen before", |bench| bench.iter(|| duplicates.check(black_box(&flood), NOW)));
    group.finish();
}

/// The name of router number `n` of a large mesh.
fn far(n: usize) -> PeerName {
    PeerName::from_u64(0x0200_0000_0000 | n as u64)
}

/// A mesh in which everybody has up to eight links: to the next, and to some further on.
fn topology(routers: usize) -> Topology {
    let link = |neighbour: usize, cost: u32| LinkEntry { neighbour: far(neighbour % routers), cost, max_datagram: 1472 };
    let links = (0..routers).map(|n| {
        let steps = [(1, 1000), (7, 1500), (31, 2000), (routers / 3, 4000)];
        let links = steps.into_iter().flat_map(move |(step, cost)| [link(n + step, cost), link(n + routers - step, cost)]);
        (far(n), links)
    });
    Topology::build(links)
}

fn routes(criterion: &mut Criterion) {
    use weave_router::forward::fib::FloodTrees;
    let mut group = criterion.benchmark_group("routes");
    for routers in [100, 1000] {
        group.bench_function(BenchmarkId::new("topology", routers), |bench| bench.iter(|| topology(black_box(routers))));
        let topology = Arc::new(topology(routers));
        group.bench_function(BenchmarkId::new("routes", routers), |bench| {
            bench.iter(|| Routes::compute(black_box(&topology), far(0)).len())
        });
        group.bench_function(BenchmarkId::new("flood tree", routers), |bench| {
            bench.iter(|| FloodTree::new(Arc::clone(&topology), far(0)).children(black_box(far(5))).len())
        });
    }
    group.finish();
}

fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gossip");
    group.throughput(Throughput::Elements(1000));
    let neighbour = identity(2000).name();
    let signatures: [(&str, Arc<dyn Signatures>); 2] = [("Ed25519", Arc::new(Ed25519)), ("unsigned", Arc::new(SimulatedSignatures))];
    for (label, signatures) in signatures {
        group.bench_function(format!("merge 1000 records, {label}"), |bench| {
            let messages = messages_of(1000, &signatures);
            let empty = || linked_store(neighbour, &signatures);
            bench.iter_batched_ref(empty, |store| receive_all(store, neighbour, &messages), BatchSize::LargeInput);
        });
        group.bench_function(format!("hear 1000 known records, {label}"), |bench| {
            let (messages, mut full) = (messages_of(1000, &signatures), linked_store(neighbour, &signatures));
            assert_eq!(receive_all(&mut full, neighbour, &messages), 1000, "every record is news once");
            bench.iter(|| receive_all(&mut full, neighbour, &messages));
        });
    }
    group.finish();
}

fn identity(number: u16) -> Identity {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(&seed)
}

fn store(number: u16, signatures: &Arc<dyn Signatures>) -> Store {
    Store::new(Config {
        identity: Arc::new(identity(number)),
        signatures: Arc::clone(signatures),
        network: "weave".into(),
        allow: std::collections::BTreeSet::new(),
        incarnation: 1,
        max_message: DEFAULT_MAX_MESSAGE,
        limits: Limits::default(),
    })
}

/// A store that holds nothing, and its neighbour.
fn linked_store(neighbour: PeerName, signatures: &Arc<dyn Signatures>) -> Store {
    let (mut store, mut out) = (store(1999, signatures), Output::default());
    store.link_up(NOW, neighbour, &mut out);
    store
}

/// Hands messages to a store as its neighbour would; how much of them was news.
fn receive_all(store: &mut Store, neighbour: PeerName, messages: &[Vec<u8>]) -> usize {
    let mut out = Output::default();
    messages.iter().for_each(|message| store.receive(NOW, neighbour, message, &mut out));
    out.changes.len()
}

/// The NODE records of `count` routers, in messages as large as they may be.
fn messages_of(count: u16, signatures: &Arc<dyn Signatures>) -> Vec<Vec<u8>> {
    let records: Vec<Vec<u8>> = (0..count).map(|number| said_by(number, signatures)).collect();
    gossip::records(records.iter().map(Vec::as_slice), DEFAULT_MAX_MESSAGE)
}

/// The NODE record of router `number`.
fn said_by(number: u16, signatures: &Arc<dyn Signatures>) -> Vec<u8> {
    let (mut store, mut out) = (store(number, signatures), Output::default());
    let node = NodeBody {
        noise: [0; 32],
        certificate: [0; 64],
        features: 0,
        nickname: format!("h{number}"),
        version: "1".into(),
        addresses: vec![Address::udp(([10, 0, 0, 1], 6783).into())],
        unknown_addresses: Vec::new(),
        extensions: Extensions::default(),
    };
    store.link_up(NOW, identity(2000).name(), &mut out);
    store.publish_node(NOW, node, &mut out);
    let (_, message) = out.to_all_but.into_iter().next().expect("a new record is told to all");
    match gossip::Message::parse(&message) {
        Ok(gossip::Message::Records(records)) if records.len() == 1 => records[0].to_vec(),
        other => panic!("{other:?}"),
    }
}
