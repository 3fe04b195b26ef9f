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
fn what_is_asked_for_before_there_is_a_ring_waits_until_the_ring_of_others_was_compared() {
    let (mut disk, now) = (BTreeMap::new(), Time(SECOND));
    let mut book = book(Init::Consensus(2), Vec::new(), Vec::new());
    book.request(now, 1, allocate("c"));
    let founders = crate::wire::ipam::Founders::Keys(sorted([1, 2]));
    let genesis = crate::wire::ipam::Body::Genesis { nonce: [3; 16], ranges: config(Init::Observer).ranges, founders };
    let (author, domain) = (identity(2), book.domain());
    let sign = |bytes: &[u8]| SimulatedSignatures.sign(&author, &domain, bytes);
    let genesis = Entry::build(EntryId::NONE, &author.public().key, &genesis, sign).expect("an entry");
    book.told(now, author.name(), &Message::Entries(vec![genesis]).to_bytes(EntryId::NONE));
    assert_eq!(answers(&drained(&mut book, now, &mut disk), 1), None, "what is ours by the genesis may have been given away since");
    assert_eq!((book.ring().is_some(), book.hold), (true, Some(u32::MAX)));
}

fn sorted(all: [u8; 2]) -> Vec<PublicKey> {
    let mut keys: Vec<PublicKey> = all.iter().map(|n| identity(*n).public().key).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn a_container_that_ran_all_the_time_is_told_its_address_on_hold_and_another_waits() {
    let (mut disk, now) = (BTreeMap::new(), Time(SECOND));
    let seeds = Init::Seed(vec![identity(1).name(), identity(2).name()]);
    let mut first = book(seeds.clone(), Vec::new(), Vec::new());
    ["c", "d"].iter().zip(1..).for_each(|(ident, request)| first.request(now, request, allocate(ident)));
    drained(&mut first, now, &mut disk);
    let (c, d) = (first.lookup("c")[0].to_string(), first.lookup("d")[0]);
    let mut again = book(seeds, table(&disk, Table::Ring), table(&disk, Table::Addresses));
    again.request(now, 1, reserve(&[("c", &c)], &[]));
    again.request(now, 2, allocate("c"));
    again.request(now, 3, allocate("d"));
    again.request(now, 4, Request::Claim { ident: "d".to_string(), address: d });
    let out = drained(&mut again, now, &mut disk);
    assert!(answers(&out, 2).is_some_and(|answer| answer.is_ok()));
    assert_eq!((answers(&out, 3), answers(&out, 4)), (None, None), "this router may have been removed meanwhile");
    let mut out = Vec::new();
    for tick in 1..=33 {
        again.timeout(Time(now.0 + tick * SECOND / 4));
        out.extend(drained(&mut again, now, &mut disk));
    }
    assert_eq!((answers(&out, 3), answers(&out, 4)), (Some(Ok(Answer::Address(d))), Some(Ok(Answer::Done))));
}

#[test]
fn a_router_that_is_behind_others_gives_nothing_while_it_catches_up() {
    let (mut disk, mut now) = (BTreeMap::new(), Time(SECOND));
    let seeds = Init::Seed(vec![identity(1).name(), identity(2).name()]);
    let mut first = book(seeds.clone(), Vec::new(), Vec::new());
    drained(&mut first, now, &mut disk);
    let mut again = book(seeds, table(&disk, Table::Ring), Vec::new());
    let digest = crate::wire::ipam::Digest {
        observer: false,
        on_hold: false,
        key: identity(2).public().key,
        mesh: again.mesh(),
        sum: 1,
        entries: 9,
        ranges: vec![(config(Init::Observer).ranges[0], 8)],
        newest: Vec::new(),
    };
    again.record(now, identity(2).name(), 0, Some(&digest.to_bytes()));
    again.peer(now, identity(2).name(), "other", true);
    let mut held = 0;
    while again.hold.is_some() {
        now = Time(now.0 + SECOND / 4);
        again.timeout(now);
        drained(&mut again, now, &mut disk);
        held += 1;
    }
    assert_eq!(held, 192, "six times as long as alone, since somebody knows more");
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

fn reserve(held: &[(&str, &str)], host: &[&str]) -> Request {
    let net = |text: &str| text.parse().expect("an address");
    let held = held.iter().map(|(ident, address)| (ident.to_string(), net(address))).collect();
    Request::Reserve { held, host: host.iter().map(|address| net(address)).collect() }
}

fn answers(out: &[Output], wanted: u64) -> Option<Result<Answer, Sorry>> {
    out.iter().find_map(|output| match output {
        Output::Answer { request, result } if *request == wanted => Some(result.clone()),
        _ => None,
    })
}

#[test]
fn nothing_is_given_before_it_is_known_what_is_in_use_and_nothing_that_is() {
    let (mut disk, now) = (BTreeMap::new(), Time(SECOND));
    let mut book = book(Init::Consensus(1), Vec::new(), Vec::new());
    book.await_survey();
    book.request(now, 1, allocate("new"));
    assert_eq!(answers(&drained(&mut book, now, &mut disk), 1), None);
    book.request(
        now,
        2,
        reserve(&[("c", "10.32.0.1/24"), ("d", "10.32.0.4/24"), ("d", "192.168.1.1/24")], &["10.32.0.3/24", "10.32.0.4/24"]),
    );
    let mut out = drained(&mut book, now, &mut disk);
    assert_eq!(answers(&out, 2), Some(Ok(Answer::Done)), "at once");
    book.request(now, 3, allocate("c"));
    book.request(now, 4, Request::Claim { ident: "x".to_string(), address: "10.32.0.4/24".parse().expect("an address") });
    out = drained(&mut book, now, &mut disk);
    let first = Answer::Address("10.32.0.1/24".parse().expect("an address"));
    assert_eq!(answers(&out, 3), Some(Ok(first)), "also without a ring: it has it");
    assert!(answers(&out, 4).is_some_and(|answer| answer.is_err_and(|sorry| sorry.kind == Kind::Conflict)));
    let mut later = now;
    while answers(&out, 1).is_none() {
        later = Time(later.0 + SECOND / 4);
        book.timeout(later);
        out = drained(&mut book, later, &mut disk);
    }
    assert_eq!(answers(&out, 1), Some(Ok(Answer::Address("10.32.0.2/24".parse().expect("an address")))));
    assert_eq!((book.lookup("c").len(), book.lookup("d").len()), (1, 1), "they are the containers', and on disk");
    assert!(
        disk.contains_key(&(Table::Addresses, "10.32.0.4".to_string())) && !disk.contains_key(&(Table::Addresses, "10.32.0.3".to_string()))
    );
    book.request(later, 5, allocate("other"));
    out = drained(&mut book, later, &mut disk);
    assert_eq!(answers(&out, 5), Some(Ok(Answer::Address("10.32.0.5/24".parse().expect("an address")))), "3 is the bridge's");
    // A container that goes leaves nothing behind.
    book.request(later, 6, Request::Free { ident: "d".to_string(), address: None });
    book.request(later, 7, allocate("after"));
    assert_eq!(answers(&drained(&mut book, later, &mut disk), 7), Some(Ok(Answer::Address("10.32.0.4/24".parse().expect("an address")))));
}

#[test]
fn a_ring_that_is_there_is_no_reason_to_give_before_it_is_known_what_is_in_use() {
    let (mut disk, now) = (BTreeMap::new(), Time(SECOND));
    let mut first = book(Init::Consensus(1), Vec::new(), Vec::new());
    first.request(now, 1, allocate("c"));
    drained(&mut first, now, &mut disk);
    // The addresses alone are lost.
    let mut again = book(Init::Consensus(1), table(&disk, Table::Ring), Vec::new());
    again.await_survey();
    again.request(now, 1, allocate("new"));
    assert_eq!(answers(&drained(&mut again, now, &mut disk), 1), None);
    again.request(now, 2, reserve(&[("c", "10.32.0.1/24")], &[]));
    let second = Answer::Address("10.32.0.2/24".parse().expect("an address"));
    assert_eq!(answers(&drained(&mut again, now, &mut disk), 1), Some(Ok(second)));
}

#[test]
fn who_asks_without_a_survey_is_told_so_in_time() {
    let mut book = book(Init::Consensus(1), Vec::new(), Vec::new());
    book.await_survey();
    book.request(Time(SECOND), 1, Request::Prime);
    let mut disk = BTreeMap::new();
    drained(&mut book, Time(SECOND), &mut disk);
    book.request(Time(SECOND), 2, allocate("c"));
    book.request(Time(SECOND), 3, Request::Reset { force: false });
    book.timeout(Time(11 * SECOND));
    let out = drained(&mut book, Time(11 * SECOND), &mut disk);
    for request in [2, 3] {
        let said = answers(&out, request).and_then(Result::err).map(|sorry| sorry.text).unwrap_or_default();
        assert!(said.contains("which addresses its containers have"), "{request}: {said}");
    }
}

#[test]
fn the_container_that_stands_for_the_address_gets_another_each_time() {
    let (mut disk, now) = (BTreeMap::new(), Time(SECOND));
    let mut book = book(Init::Consensus(1), Vec::new(), Vec::new());
    (1..=2).for_each(|request| book.request(now, request, allocate(NO_CONTAINER)));
    let out = drained(&mut book, now, &mut disk);
    for (request, address) in [(1, "10.32.0.1"), (2, "10.32.0.2")] {
        assert_eq!(answers(&out, request), Some(Ok(Answer::Address(format!("{address}/24").parse().expect("an address")))));
        assert_eq!(book.lookup(address).len(), 1, "it is the address of a container of that name");
    }
    let of = |address: &str| address.parse().ok();
    book.request(now, 3, Request::Free { ident: NO_CONTAINER.to_string(), address: of("10.32.0.1") });
    book.request(now, 4, Request::Free { ident: "10.32.0.2".to_string(), address: None });
    let claimed = "10.32.0.9/24".parse().expect("an address");
    book.request(now, 5, Request::Claim { ident: NO_CONTAINER.to_string(), address: claimed });
    drained(&mut book, now, &mut disk);
    let left: Vec<String> = book.addresses().into_iter().map(|(_, ident)| ident).collect();
    assert_eq!(left, ["10.32.0.9"]);
}

#[test]
fn a_disk_that_fails_for_long_holds_back_little() {
    let mut book = book(Init::Consensus(1), Vec::new(), Vec::new());
    stuck(&mut book);
    book.request(Time(SECOND), 1, allocate("c"));
    let out = stuck(&mut book);
    let [Output::Persist { token, .. }] = out[..] else { panic!("{out:?}") };
    let other = identity(2).name();
    let sums = Message::Buckets { answer: true, on_hold: false, sums: Box::new([1; BUCKETS]) }.to_bytes(EntryId::NONE);
    let mut complaints = 0;
    for n in 2..3000u64 {
        let now = Time(SECOND + n * SECOND / 1000);
        book.persisted(now, token, false);
        book.told(now, other, &sums);
        book.request(
            now,
            n,
            Request::Claim {
                ident: format!("c{n}"),
                address: format!("192.168.{}.{}/8", n / 250, n % 250 + 1).parse().expect("an address"),
            },
        );
        book.republish();
        for output in stuck(&mut book) {
            complaints += usize::from(matches!(&output, Output::Report(sentence) if sentence.contains("dropped")));
        }
    }
    let count = |what: fn(&Output) -> bool| book.queue.iter().filter(|output| what(output)).count();
    assert!(count(|output| matches!(output, Output::Persist { .. })) <= 1 && count(|output| matches!(output, Output::Publish(_))) <= 1);
    assert!(count(|output| matches!(output, Output::Tell { .. })) <= 1024);
    assert!(book.counters().messages_dropped.get() > 1500 && complaints > 0);
    // Once it works all is written, and nothing is said before.
    let now = Time(5 * SECOND);
    book.persisted(now, token, true);
    let mut disk = BTreeMap::new();
    let out = drained(&mut book, now, &mut disk);
    assert!(disk.contains_key(&(Table::Addresses, "192.168.11.250".to_string())), "{}", disk.len());
    let at = |what: fn(&Output) -> bool| out.iter().position(what);
    let written = at(|output| matches!(output, Output::Persist { .. }));
    assert!(written.is_some() && written < at(|output| matches!(output, Output::Answer { request: 2999, .. })));
}

#[test]
fn who_was_met_is_on_disk() {
    let (mut disk, now) = (BTreeMap::new(), Time(SECOND));
    let seeds = Init::Seed(vec![identity(1).name(), identity(2).name()]);
    let mut first = book(seeds.clone(), Vec::new(), Vec::new());
    let met = identity(3);
    let digest = crate::wire::ipam::Digest {
        observer: true,
        on_hold: false,
        key: met.public().key,
        mesh: EntryId::NONE,
        sum: 0,
        entries: 0,
        ranges: vec![(config(Init::Observer).ranges[0], 0)],
        newest: Vec::new(),
    };
    first.record(now, met.name(), 0, Some(&digest.to_bytes()));
    first.peer(now, met.name(), "met", true);
    first.forgotten(now, met.name());
    drained(&mut first, now, &mut disk);
    let second = book(seeds, table(&disk, Table::Ring), Vec::new());
    assert_eq!(second.participants, BTreeMap::from([(met.name(), 0)]));
    assert!(second.is_missed(met.name()));
}

#[test]
fn a_ring_that_is_nearly_full_is_said_to_be_so_once() {
    let seeds = Init::Seed(vec![identity(1).name(), identity(2).name()]);
    let mut book = book(seeds, Vec::new(), Vec::new());
    // It goes round among as many as put that much into a ring.
    let others: Vec<_> = (2..6).map(identity).collect();
    let (genesis, name) = (book.mesh(), others[0].name());
    let share = book.ring().and_then(|ring| ring.leaves().iter().find(|(_, leaf)| leaf.owner.name() == name).map(|(range, _)| range));
    let range = share.expect("a share");
    let (domain, mut parent, mut said) = (book.domain(), genesis, 0);
    let mut entries = Vec::new();
    for n in 0..ring::MANY_ENTRIES {
        let (author, owner) = (&others[n % 4], others[(n + 1) % 4].public().key);
        let grant = crate::wire::ipam::Body::Grant { parent, range, owner };
        let sign = |bytes: &[u8]| SimulatedSignatures.sign(author, &domain, bytes);
        let entry = Entry::build(genesis, &author.public().key, &grant, sign).expect("an entry");
        parent = entry.id();
        entries.push(entry);
    }
    for some in entries.chunks(500) {
        book.take_in(None, some.to_vec());
        book.finish();
        let all = drained(&mut book, Time(SECOND), &mut BTreeMap::new());
        said += all.iter().filter(|output| matches!(output, Output::Report(text) if text.contains("of at most 16384 entries"))).count();
    }
    assert_eq!((book.ring().map(Ring::len), said), (Some(ring::MANY_ENTRIES + 1), 1));
    assert!(book.status().problems.iter().any(|problem| problem.contains("of at most 16384 entries")));
}
