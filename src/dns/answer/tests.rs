use std::collections::BTreeSet;

use hickory_proto::op::MessageType;
use hickory_proto::serialize::binary::BinEncodable;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::names::{Domain, Own};
use crate::wire::PeerName;

/// A name server with some names.
struct Fixture {
    view: View,
    answerer: Answerer,
    rng: ChaCha20Rng,
    counters: DnsCounters,
}

fn fixture() -> Fixture {
    let domain: Domain = Domain::DEFAULT.parse().expect("a domain");
    let mut own = Own::new(domain.clone());
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    own.add("c1", "web", &[ip("10.32.0.1"), ip("fd00::1")]).expect("a name");
    own.add("c2", "a.b.weave.local", &[ip("10.32.0.1")]).expect("a name");
    let many: Vec<IpAddr> = (1..=50).map(|last| [10, 33, 0, last].into()).collect();
    own.add("c3", "many", &many).expect("a name");
    let mut view = View::new(domain, PeerName([2; 6]), "here");
    view.set_own(own.bodies());
    let answerer = Answerer::new(&view, 1);
    Fixture { view, answerer, rng: ChaCha20Rng::from_seed([1; 32]), counters: DnsCounters::default() }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

fn with_edns(mut message: Message, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    message.set_edns(edns);
    message
}

impl Fixture {
    fn judge(&mut self, query: &Message, transport: Transport) -> Verdict {
        self.judge_bytes(&query.to_vec().expect("a query"), transport)
    }

    fn judge_bytes(&mut self, query: &[u8], transport: Transport) -> Verdict {
        self.answerer.judge(query, transport, &self.view, &mut self.rng, &self.counters)
    }

    fn ask(&mut self, query: &Message) -> Message {
        match self.judge(query, Transport::Udp) {
            Verdict::Answer(bytes) => Message::from_vec(&bytes).expect("an answer"),
            other => panic!("{other:?}"),
        }
    }

    /// Response code, answers and number of authorities.
    fn outcome(&mut self, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>, usize) {
        let asked = query(name, kind);
        let answer = self.ask(&asked);
        let m = answer.metadata;
        assert_eq!((m.id, m.message_type, m.authoritative, m.truncation), (asked.metadata.id, MessageType::Response, true, false));
        assert!(m.recursion_desired && m.recursion_available);
        assert_eq!(answer.queries, asked.queries);
        for record in &answer.answers {
            assert_eq!((&record.name, record.ttl), (asked.queries[0].name(), 1));
            assert!(record.name.eq_case(asked.queries[0].name()), "the case is the caller's");
        }
        let mut data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
        data.sort_unstable();
        (m.response_code, data, answer.authorities.len())
    }
}

#[test]
fn names_of_the_domain() {
    use RecordType as T;
    let mut f = fixture();
    let ok = |data: &[&str]| (ResponseCode::NoError, data.iter().map(|text| text.to_string()).collect(), 0);
    let nothing = (ResponseCode::NoError, Vec::new(), 1);
    let unknown = (ResponseCode::NXDomain, Vec::new(), 1);
    assert_eq!(f.outcome("web.weave.local.", T::A), ok(&["10.32.0.1"]));
    assert_eq!(f.outcome("WEB.Weave.LOCAL.", T::A), ok(&["10.32.0.1"]));
    assert_eq!(f.outcome("web.weave.local.", T::AAAA), ok(&["fd00::1"]));
    assert_eq!(f.outcome("web.weave.local.", T::ANY), ok(&["10.32.0.1", "fd00::1"]));
    assert_eq!(f.outcome("web.weave.local.", T::MX), nothing, "a type that it has not");
    assert_eq!(f.outcome("a.b.weave.local.", T::AAAA), nothing);
    assert_eq!(f.outcome("b.weave.local.", T::A), nothing, "a name between");
    assert_eq!(f.outcome("weave.local.", T::A), nothing, "the domain itself");
    assert_eq!(f.outcome("weave.local.", T::SOA).0, ResponseCode::NoError);
    assert_eq!(f.outcome("weave.local.", T::SOA).1.len(), 1);
    assert_eq!(f.outcome("db.weave.local.", T::A), unknown);
    assert_eq!(f.outcome("*.weave.local.", T::A), unknown);
    assert_eq!(f.outcome("web\\.weave.local.weave.local.", T::A), unknown, "a dot within a label is no dot");
    assert_eq!(f.outcome("x.web.weave.local.", T::A), unknown);
    assert_eq!(f.outcome("web.", T::A), ok(&["10.32.0.1"]), "a bare name");
    assert_eq!(f.outcome("1.0.32.10.in-addr.arpa.", T::PTR), ok(&["a.b.weave.local.", "web.weave.local."]));
    assert_eq!(f.outcome("1.0.32.10.in-addr.arpa.", T::A), nothing, "the name exists, whatever other servers know of it");
    assert_eq!(f.outcome("1.0.32.10.in-addr.arpa.", T::SOA).1.len(), 1);
    let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.f.ip6.arpa.";
    assert_eq!(f.outcome(six, T::PTR), ok(&["web.weave.local."]));
}

#[test]
fn other_names_are_for_other_servers() {
    let mut f = fixture();
    for (name, kind) in [
        ("example.com.", RecordType::A),
        ("db.", RecordType::A),
        ("b.", RecordType::A),
        (".", RecordType::NS),
        ("notweave.local.", RecordType::A),
        ("9.0.32.10.in-addr.arpa.", RecordType::PTR),
        ("0.32.10.in-addr.arpa.", RecordType::PTR),
    ] {
        assert_eq!(f.judge(&query(name, kind), Transport::Udp), Verdict::Forward(Form { limit: 512, edns: false }), "{name}");
    }
    let large = with_edns(query("example.com.", RecordType::A), 4096);
    assert_eq!(f.judge(&large, Transport::Udp), Verdict::Forward(Form { limit: 1232, edns: true }));
}

#[test]
fn no_is_kept_no_longer_than_yes() {
    let mut f = fixture();
    let answer = f.ask(&query("db.weave.local.", RecordType::A));
    let soa = &answer.authorities[0];
    assert_eq!((soa.name.to_ascii().as_str(), soa.ttl), ("weave.local.", 1));
    let RData::SOA(soa) = &soa.data else { panic!("{soa:?}") };
    assert_eq!((soa.minimum, soa.serial), (1, f.view.serial()));
    // Its owner is the name or stands above it, or nobody would keep it (RFC 2308, 5).
    for (name, kind) in [("a.b.weave.local.", RecordType::MX), ("web.", RecordType::MX), ("1.0.32.10.in-addr.arpa.", RecordType::A)] {
        let answer = f.ask(&query(name, kind));
        assert!(answer.authorities[0].name.zone_of(answer.queries[0].name()), "{answer:?}");
    }
}

#[test]
fn what_a_long_answer_costs_is_bounded_by_what_fits() {
    let mut f = fixture();
    let mut own = Own::new(Domain::DEFAULT.parse().expect("a domain"));
    let many: Vec<IpAddr> = (0..5000u32).map(|n| IpAddr::V4((0x0a21_0000 + n).into())).collect();
    own.add("c", "thousands", &many).expect("room");
    f.view.set_own(own.bodies());
    let asked = query("thousands.weave.local.", RecordType::A);
    let mut seen = BTreeSet::new();
    // The library writes names behind the first 16 kB in full, so of a stream's answer fewer fit than could.
    for (asked, transport, least, most) in [
        (asked.clone(), Transport::Udp, 29, 33),
        (with_edns(asked.clone(), 1232), Transport::Udp, 72, 78),
        (asked.clone(), Transport::Tcp, 1800, 4096),
    ] {
        for _ in 0..5 {
            let before = f.rng.get_word_pos();
            let Verdict::Answer(bytes) = f.judge(&asked, transport) else { panic!("no answer") };
            // Each record that is taken up is drawn once, and once more for its place.
            assert!(f.rng.get_word_pos() - before <= 2 * most, "{}", f.rng.get_word_pos() - before);
            let answer = Message::from_vec(&bytes).expect("an answer");
            let data: BTreeSet<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
            assert!(answer.metadata.truncation && data.len() == answer.answers.len(), "each once");
            assert!((least..=most).contains(&(data.len() as u128)), "{} for {transport:?}", data.len());
            seen.extend(data);
        }
    }
    assert!(seen.len() > 4500, "others each time: {}", seen.len());
}

/// Another router whose host has `there.weave.local`, 10.32.0.9.
const THERE: PeerName = PeerName([4; 6]);

/// What tells of whom something is asked, with that router known.
fn telling(f: &mut Fixture) -> tokio::sync::mpsc::Receiver<PeerName> {
    let (asked, told) = Asked::new(crate::io::clock::Clock::start());
    f.answerer = Answerer::new(&f.view, 1).telling(std::sync::Arc::new(asked));
    let mut there = Own::new(Domain::DEFAULT.parse().expect("a domain"));
    there.add("c", "there", &[[10, 32, 0, 9].into()]).expect("a name");
    f.view.peer(THERE, "there", true);
    f.view.record(THERE, 0, Some(&there.chunks()[0])).expect("a chunk");
    told
}

#[test]
fn whose_names_are_asked_for_is_told() {
    let mut f = fixture();
    let mut told = telling(&mut f);
    for name in ["web.weave.local.", "nobody.weave.local.", "example.com."] {
        f.judge(&query(name, RecordType::A), Transport::Udp);
        assert!(told.try_recv().is_err(), "{name} is no other router's");
    }
    f.judge(&query("1.0.32.10.in-addr.arpa.", RecordType::PTR), Transport::Udp);
    assert!(told.try_recv().is_err(), "that address is no other router's");
    f.ask(&query("THERE.weave.local.", RecordType::AAAA));
    assert_eq!(told.try_recv(), Ok(THERE));
}

#[test]
fn whose_address_is_looked_up_is_told() {
    let mut f = fixture();
    let mut told = telling(&mut f);
    f.ask(&query("9.0.32.10.in-addr.arpa.", RecordType::PTR));
    assert_eq!(told.try_recv(), Ok(THERE));
}

#[test]
fn long_answers_are_cut_and_say_so() {
    let mut f = fixture();
    let asked = query("many.weave.local.", RecordType::A);
    for (asked, limit, least) in [
        (asked.clone(), 512, 29),
        (with_edns(asked.clone(), 700), 700, 40),
        (with_edns(asked.clone(), 100), 512, 29),
        (with_edns(asked.clone(), 1232), 1232, 50),
        (with_edns(asked.clone(), 4096), 1232, 50),
    ] {
        let Verdict::Answer(bytes) = f.judge(&asked, Transport::Udp) else { panic!("no answer") };
        assert!(bytes.len() <= limit, "{} of {limit}", bytes.len());
        let answer = Message::from_vec(&bytes).expect("an answer");
        assert_eq!((answer.metadata.truncation, answer.edns.is_some()), (least < 50, asked.edns.is_some()));
        assert_eq!(answer.answers.len(), least, "as many as fit {limit}");
    }
    let Verdict::Answer(bytes) = f.judge(&asked, Transport::Tcp) else { panic!("no answer") };
    let answer = Message::from_vec(&bytes).expect("an answer");
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (50, false));
    assert_eq!(f.counters.truncated.get(), 3);
}

#[test]
fn every_holder_comes_first_at_times() {
    let mut f = fixture();
    let first = |f: &mut Fixture| f.ask(&with_edns(query("many.weave.local.", RecordType::A), 1232)).answers[0].data.to_string();
    let seen: BTreeSet<String> = (0..1000).map(|_| first(&mut f)).collect();
    assert_eq!(seen.len(), 50);
}

#[test]
fn what_this_server_does_not_do() {
    let mut f = fixture();
    let good = query("web.weave.local.", RecordType::A);
    let code = |f: &mut Fixture, message: &Message| f.ask(message).metadata.response_code;
    let mut update = good.clone();
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&mut f, &update), ResponseCode::NotImp);
    let mut two = good.clone();
    two.add_query(good.queries[0].clone());
    assert_eq!(code(&mut f, &two), ResponseCode::FormErr);
    let mut none = good.clone();
    none.queries.clear();
    assert_eq!(code(&mut f, &none), ResponseCode::FormErr);
    let mut chaos = good.clone();
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&mut f, &chaos), ResponseCode::Refused);
    assert_eq!(code(&mut f, &query("weave.local.", RecordType::AXFR)), ResponseCode::Refused);
    let mut later = with_edns(good.clone(), 1232);
    later.edns.as_mut().expect("just set").set_version(1);
    // 16 has two names.
    assert_eq!(u16::from(code(&mut f, &later)), u16::from(ResponseCode::BADVERS));
    let whole = good.to_vec().expect("a query");
    let Verdict::Answer(cut) = f.judge_bytes(&whole[..whole.len() - 1], Transport::Udp) else { panic!("no answer") };
    assert_eq!(Message::from_vec(&cut).expect("an answer").metadata.response_code, ResponseCode::FormErr);
    assert_eq!(f.judge_bytes(&whole[..11], Transport::Udp), Verdict::Drop);
    let answer = f.ask(&good).to_vec().expect("an answer");
    assert_eq!(f.judge_bytes(&answer, Transport::Udp), Verdict::Drop, "an answer is not answered");
    assert_eq!((f.counters.refused.get(), f.counters.drop_not_a_query.get()), (7, 2));
}

#[test]
fn answers_without_content() {
    let asked = with_edns(query("example.com.", RecordType::A), 1232);
    let bytes = asked.to_vec().expect("a query");
    let failed = Message::from_vec(&failure(&bytes, true).expect("a failure")).expect("it can be read");
    assert_eq!((failed.metadata.response_code, failed.metadata.message_type), (ResponseCode::ServFail, MessageType::Response));
    assert_eq!((failed.metadata.id, &failed.queries), (asked.metadata.id, &asked.queries));
    let size = |answer: &Message| answer.edns.as_ref().map(Edns::max_payload);
    assert_eq!(size(&failed), Some(MAX_UDP), "who speaks EDNS is answered in it");
    let plain = Message::from_vec(&failure(&bytes, false).expect("a failure")).expect("it can be read");
    assert_eq!(size(&plain), None);
    let mut long = asked.clone().into_response();
    for last in 0..100 {
        long.add_answer(Record::from_rdata(asked.queries[0].name().clone(), 60, RData::A(A([10, 0, 0, last].into()))));
    }
    let short = |edns| {
        let short = truncate(&long.to_bytes().expect("an answer"), edns).expect("it has a question");
        Message::from_vec(&short).expect("it can be read")
    };
    assert_eq!((short(true).metadata.truncation, short(true).answers.len(), &short(true).queries), (true, 0, &asked.queries));
    assert_eq!((size(&short(true)), size(&short(false))), (Some(MAX_UDP), None));
    for bad in [&bytes[..20], &[0; 12], &[0; 3]] {
        assert_eq!((failure(bad, true), truncate(bad, true)), (None, None));
    }
}
