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
        ("1.0.32.10.in-addr.arpa.", RecordType::SOA),
        ("0.32.10.in-addr.arpa.", RecordType::PTR),
    ] {
        assert_eq!(f.judge(&query(name, kind), Transport::Udp), Verdict::Forward(512), "{name}");
    }
    assert_eq!(f.judge(&with_edns(query("example.com.", RecordType::A), 4096), Transport::Udp), Verdict::Forward(1232));
}

#[test]
fn no_is_kept_no_longer_than_yes() {
    let mut f = fixture();
    let answer = f.ask(&query("db.weave.local.", RecordType::A));
    let soa = &answer.authorities[0];
    assert_eq!((soa.name.to_ascii().as_str(), soa.ttl), ("weave.local.", 1));
    let RData::SOA(soa) = &soa.data else { panic!("{soa:?}") };
    assert_eq!((soa.minimum, soa.serial), (1, f.view.serial()));
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
    let failed = Message::from_vec(&failure(&bytes).expect("a failure")).expect("it can be read");
    assert_eq!((failed.metadata.response_code, failed.metadata.message_type), (ResponseCode::ServFail, MessageType::Response));
    assert_eq!((failed.metadata.id, &failed.queries), (asked.metadata.id, &asked.queries));
    let mut long = asked.clone().into_response();
    for last in 0..100 {
        long.add_answer(Record::from_rdata(asked.queries[0].name().clone(), 60, RData::A(A([10, 0, 0, last].into()))));
    }
    let short = truncate(&long.to_bytes().expect("an answer")).expect("it has a question");
    let short = Message::from_vec(&short).expect("it can be read");
    assert_eq!((short.metadata.truncation, short.answers.len(), &short.queries), (true, 0, &asked.queries));
    for bad in [&bytes[..20], &[0; 12], &[0; 3]] {
        assert_eq!((failure(bad), truncate(bad)), (None, None));
    }
}
