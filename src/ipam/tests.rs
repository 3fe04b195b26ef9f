use super::*;
use crate::crypto::SimulatedSignatures;
use crate::wire::ipam::message::BUCKETS;

const SECOND: u64 = 1_000_000_000;

fn identity(n: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed(&[n; 32]))
}

fn config(init: Init) -> Config {
    let range = Range { first: 0xffff_0a20_0000, last: 0xffff_0a20_00ff };
    Config {
        network: "test".to_string(),
        ranges: vec![range],
        subnets: vec!["10.32.0.0/24".parse().expect("a subnet")],
        init,
        nickname: String::new(),
    }
}

fn book(init: Init, ring: Vec<Pair>, addresses: Vec<Pair>) -> Ipam {
    Ipam::new(config(init), identity(1), Arc::new(SimulatedSignatures), [1; 32], Time(SECOND), ring, addresses)
}

fn allocate(ident: &str) -> Request {
    Request::Allocate { ident: ident.to_string(), subnet: None }
}

/// What comes out while the disk says nothing.
fn stuck(book: &mut Ipam) -> Vec<Output> {
    std::iter::from_fn(|| book.poll()).collect()
}

/// What comes out of a book whose disk works, and what is on the disk then.
fn drained(book: &mut Ipam, now: Time, disk: &mut BTreeMap<(Table, String), Vec<u8>>) -> Vec<Output> {
    let mut all = Vec::new();
    while let Some(output) = book.poll() {
        if let Output::Persist { token, changes } = &output {
            for change in changes.clone() {
                match change.value {
                    Some(value) => drop(disk.insert((change.table, change.key), value)),
                    None => drop(disk.remove(&(change.table, change.key))),
                }
            }
            book.persisted(now, *token, true);
        }
        all.push(output);
    }
    all
}

fn table(disk: &BTreeMap<(Table, String), Vec<u8>>, table: Table) -> Vec<Pair> {
    disk.iter().filter(|((of, _), _)| *of == table).map(|((_, key), value)| (key.clone(), value.clone())).collect()
}

#[test]
fn nothing_is_said_before_it_is_written() {
    let mut book = book(Init::Consensus(1), Vec::new(), Vec::new());
    let now = Time(SECOND);
    stuck(&mut book);
    book.request(now, 1, allocate("c"));
    let out = stuck(&mut book);
    let [Output::Persist { token, changes }] = &out[..] else { panic!("{out:?}") };
    assert!(changes.iter().any(|change| change.key == "10.32.0.1") && changes.iter().any(|change| change.key == "vote"));
    book.persisted(now, token + 1, true);
    assert!(stuck(&mut book).is_empty(), "that was another");
    book.persisted(now, *token, true);
    let answer = Output::Answer { request: 1, result: Ok(Answer::Address("10.32.0.1/24".parse().expect("an address"))) };
    assert!(stuck(&mut book).contains(&answer));
}

#[test]
fn a_disk_that_fails_is_tried_again_and_whoever_waits_is_told() {
    let mut book = book(Init::Consensus(1), Vec::new(), Vec::new());
    stuck(&mut book);
    book.request(Time(SECOND), 1, allocate("c"));
    let out = stuck(&mut book);
    let [Output::Persist { token, .. }] = out[..] else { panic!("{out:?}") };
    let mut refused = None;
    for tick in 1..60u64 {
        let now = Time(SECOND + tick * SECOND / 4);
        book.persisted(now, token, false);
        book.timeout(now);
        for output in stuck(&mut book) {
            match output {
                Output::Persist { token: again, .. } => assert_eq!(again, token, "in the order in which they came"),
                Output::Answer { request: 1, result } => refused = Some((tick, result)),
                other => panic!("{other:?}"),
            }
        }
    }
    let (tick, result) = refused.expect("an answer");
    assert!(tick <= 41 && result.is_err_and(|sorry| sorry.text.contains("disk")), "after {tick} quarters of a second");
    assert!(book.counters().not_persisted.get() > 3);
    assert!(book.next_timeout() <= Time(SECOND * 18));
}

#[test]
fn what_is_on_disk_comes_back() {
    let (mut disk, now) = (BTreeMap::new(), Time(SECOND));
    let mut first = book(Init::Consensus(1), Vec::new(), Vec::new());
    first.request(now, 1, allocate("c"));
    first.request(now, 2, Request::Claim { ident: "c".to_string(), address: "192.168.7.7/16".parse().expect("an address") });
    drained(&mut first, now, &mut disk);
    let second = book(Init::Consensus(1), table(&disk, Table::Ring), table(&disk, Table::Addresses));
    assert_eq!(second.lookup("c"), first.lookup("c"));
    assert_eq!(second.lookup("c").len(), 2);
    assert_eq!((second.mesh(), second.ring().map(Ring::sum)), (first.mesh(), first.ring().map(Ring::sum)));
    assert!(second.hold.is_none(), "nobody else owns anything");
    // Another range, or a damaged entry, is refused with a sentence, and nothing is given.
    let mut ring = table(&disk, Table::Ring);
    ring.iter_mut().filter(|(key, _)| key.starts_with("e/")).for_each(|(_, value)| value.truncate(40));
    let mut damaged = book(Init::Consensus(1), ring, Vec::new());
    damaged.request(now, 3, allocate("d"));
    let refused = stuck(&mut damaged);
    assert!(
        refused.iter().any(|output| matches!(output, Output::Answer { result: Err(sorry), .. } if sorry.text.contains("damaged"))),
        "{refused:?}"
    );
    let moved = Config { ranges: vec![Range { first: 0xffff_0a30_0000, last: 0xffff_0a30_00ff }], ..config(Init::Consensus(1)) };
    let moved = Ipam::new(moved, identity(1), Arc::new(SimulatedSignatures), [1; 32], now, table(&disk, Table::Ring), Vec::new());
    assert_eq!(moved.status().phase, Phase::Refused);
    assert!(moved.status().problems[0].contains("--ipalloc-range"));
}

#[test]
fn a_router_with_a_ring_of_others_waits_until_it_has_compared_it() {
    let (mut disk, now) = (BTreeMap::new(), Time(SECOND));
    let seeds = Init::Seed(vec![identity(1).name(), identity(2).name()]);
    let mut first = book(seeds.clone(), Vec::new(), Vec::new());
    drained(&mut first, now, &mut disk);
    let mut again = book(seeds, table(&disk, Table::Ring), Vec::new());
    again.request(now, 1, allocate("c"));
    let answered = |out: &[Output]| out.iter().any(|output| matches!(output, Output::Answer { result: Ok(_), .. }));
    assert!(!answered(&drained(&mut again, now, &mut disk)));
    again.peer(now, identity(2).name(), "other", true);
    let digest = |on_hold: bool, ring: &Ring| crate::wire::ipam::Digest {
        observer: false,
        on_hold,
        key: identity(2).public().key,
        mesh: ring.mesh(),
        sum: ring.sum(),
        entries: 1,
        ranges: vec![(config(Init::Observer).ranges[0], 8)],
        newest: Vec::new(),
    };
    let ring = Ring::new(again.ring().expect("a ring").genesis().clone()).expect("a ring");
    again.record(now, identity(2).name(), 0, Some(&digest(true, &ring).to_bytes()));
    assert!(!answered(&drained(&mut again, now, &mut disk)), "the other knows no more than we do");
    again.record(now, identity(2).name(), 0, Some(&digest(false, &ring).to_bytes()));
    assert!(answered(&drained(&mut again, now, &mut disk)));
}

#[test]
fn what_cannot_be_read_is_counted() {
    let mut book = book(Init::Consensus(2), Vec::new(), Vec::new());
    let other = identity(2);
    book.told(Time(SECOND), other.name(), b"nonsense");
    book.record(Time(SECOND), other.name(), 0, Some(b"nonsense"));
    let named_so = crate::wire::ipam::Digest {
        observer: false,
        on_hold: false,
        key: identity(3).public().key,
        mesh: EntryId::NONE,
        sum: 0,
        entries: 0,
        ranges: Vec::new(),
        newest: Vec::new(),
    };
    book.record(Time(SECOND), other.name(), 0, Some(&named_so.to_bytes()));
    assert_eq!(book.counters().malformed.get(), 3);
    let sums = Box::new([1; BUCKETS]);
    book.told(Time(SECOND), other.name(), &Message::Buckets { answer: true, on_hold: false, sums }.to_bytes(EntryId::NONE));
    let told = stuck(&mut book);
    assert!(told.iter().any(|output| matches!(output, Output::Tell { to, .. } if *to == other.name())), "{told:?}");
}

#[test]
fn both_families_follow_the_same_rules() {
    let v6 = Range { first: 0xfd00 << 112, last: (0xfd00 << 112) | u128::from(u64::MAX) };
    let subnets = vec!["10.32.0.0/24".parse().expect("a subnet"), "fd00::/64".parse().expect("a subnet")];
    let config = Config { ranges: vec![config(Init::Observer).ranges[0], v6], subnets, ..config(Init::Consensus(1)) };
    let mut book = Ipam::new(config, identity(1), Arc::new(SimulatedSignatures), [1; 32], Time(SECOND), Vec::new(), Vec::new());
    book.request(Time(SECOND), 1, allocate("c"));
    book.request(Time(SECOND), 2, Request::Allocate { ident: "c".to_string(), subnet: "fd00::/64".parse().ok() });
    book.request(Time(SECOND), 3, Request::Allocate { ident: "c".to_string(), subnet: "fd00::/64".parse().ok() });
    let texts: Vec<String> = book.lookup("c").iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.32.0.1/24", "fd00::1/64"]);
    book.request(Time(SECOND), 4, Request::Free { ident: "c".to_string(), address: "fd00::1".parse().ok() });
    assert_eq!(book.lookup("c").len(), 1);
}

#[test]
fn a_dead_containers_address_goes_back_also_where_the_router_is_restarted_meanwhile() {
    let (mut disk, mut now) = (BTreeMap::new(), Time(SECOND));
    let mut first = book(Init::Consensus(1), Vec::new(), Vec::new());
    for (request, what) in [
        (1, allocate("c")),
        (2, allocate("d")),
        (3, Request::Released { ident: "c".to_string() }),
        (4, Request::Released { ident: "d".to_string() }),
        // One of them is seen again.
        (5, allocate("d")),
    ] {
        first.request(now, request, what);
        drained(&mut first, now, &mut disk);
    }
    let mut second = book(Init::Consensus(1), table(&disk, Table::Ring), table(&disk, Table::Addresses));
    drained(&mut second, now, &mut disk);
    assert_eq!((second.lookup("c").len(), second.lookup("d").len()), (1, 1), "not at once");
    for _ in 0..40 {
        now = Time(now.0 + SECOND);
        second.timeout(now);
        drained(&mut second, now, &mut disk);
    }
    assert_eq!((second.lookup("c").len(), second.lookup("d").len()), (0, 1));
    assert!(!disk.keys().any(|(_, key)| key.contains("dead")), "{:?}", disk.keys());
}
