//! `cargo bench --bench handshake`: what one whole handshake costs both ends together, with post-quantum keys and without, and how many
//! bytes it takes on the wire.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use weave_router::crypto::handshake::{Classic, Exchange, Initiator, Local, Next, Offer, Pattern, Responder, Stamp, Start};
use weave_router::crypto::kem::{Coins, Decapsulator, encapsulate};
use weave_router::crypto::{Arithmetic, Identity, Providers, Psk, Psks, Suite, SuiteTiming};
use weave_router::wire::HEADER_LEN;
use weave_router::wire::handshake::{Handshake, PREFIX_LEN, Type};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let (ours, theirs) = (local(1), local(2));
    let mut group = criterion.benchmark_group("handshake");
    for pattern in [Pattern::Xx, Pattern::Ik] {
        for exchange in [Exchange::Classic, Exchange::Hybrid] {
            let name = if pattern == Pattern::Xx { "xx" } else { "ik" };
            let sizes = run(pattern, exchange, &ours, &theirs);
            println!("{name} {}: {sizes:?} bytes of UDP payload, {} in all", exchange.label(), sizes.iter().sum::<usize>());
            group.bench_function(BenchmarkId::new(name, exchange.label()), |bench| {
                bench.iter(|| black_box(run(pattern, exchange, &ours, &theirs)));
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("ml-kem-768");
    let mut rng = ChaCha12Rng::from_seed([1; 32]);
    let pair = Decapsulator::generate(&mut rng);
    let (key, coins) = (pair.key(), Coins::draw(&mut rng));
    let (text, _) = encapsulate(&key, &coins).expect("a true key");
    group.bench_function("generate", |bench| bench.iter(|| black_box(Decapsulator::generate(&mut rng))));
    group.bench_function("encapsulate", |bench| bench.iter(|| black_box(encapsulate(&key, &coins))));
    group.bench_function("open", |bench| bench.iter(|| black_box(pair.open(&text))));
    group.finish();
    criterion.final_summary();
}

fn local(seed: u8) -> Local {
    let suites = Suite::available().iter().map(|suite| SuiteTiming { suite: *suite, nanoseconds: 500 }).collect();
    Local {
        identity: Arc::new(Identity::from_seed(&[seed; 32])),
        network: "weave".into(),
        psks: Psks::new(Psk::from_key([7; 32]), Vec::new()).expect("one password"),
        offer: Offer { version_min: 1, version_max: 1, features: 0, suites, lanes: 1, plain: false, nickname: Some("h1".into()) },
        classic: Classic::Only,
        providers: Providers::default(),
        arithmetic: Arithmetic::True,
    }
}

/// One handshake, sessions included; the bytes of its datagrams, message by message.
fn run(pattern: Pattern, exchange: Exchange, ours: &Local, theirs: &Local) -> Vec<usize> {
    let classic = if exchange == Exchange::Hybrid { Classic::Refused } else { Classic::Only };
    let (ours, theirs) = (Local { classic, ..ours.clone() }, Local { classic, ..theirs.clone() });
    let rng = &mut ChaCha12Rng::from_seed([3; 32]);
    let start = Start { psk_index: 0, stamp: Stamp { incarnation: 1, counter: 1 }, local_index: 1, exchange };
    let begun = match pattern {
        Pattern::Xx => Initiator::start_xx(&ours, start, rng),
        Pattern::Ik => Initiator::start_ik(&ours, theirs.identity.public(), start, rng),
    };
    let (mut initiator, first) = begun.expect("it starts");
    let answer = Responder::answer(&theirs, pattern, &first, start.stamp, 2, rng).expect("an answer");
    let (mine, third) = initiator.read_answer(&ours, &answer.message).expect("a session");
    let other = match (answer.next, &third) {
        (Next::Established(other), _) => *other,
        (Next::Third(mut responder), Some(third)) => responder.read_third(&theirs, third).expect("a session"),
        (Next::Third(_), None) => panic!("XX has a third message"),
    };
    black_box((mine, other));
    let name = ours.identity.name();
    let datagrams = |message: &[u8]| {
        let parts = Handshake::whole(name, Type::XxOne, 1, message).cut();
        parts.map(|part| HEADER_LEN + PREFIX_LEN + part.message.len()).sum::<usize>()
    };
    [Some(&first), Some(&answer.message), third.as_ref()].into_iter().flatten().map(|message| datagrams(message)).collect()
}
