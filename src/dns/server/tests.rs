use std::fs;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use super::super::connections::MOST_OF_ONE;
use super::*;
use crate::names::{Domain, Own};
use crate::wire::PeerName;

/// A running name server.
struct Fixture {
    address: SocketAddr,
    ears: Ears,
    counters: Arc<DnsCounters>,
    conf: TempDir,
    _places: watch::Sender<BTreeSet<Place>>,
}

/// Nobody has this port while the guard lives.
async fn free_port() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

async fn start(patience: Duration) -> Fixture {
    let domain: Domain = Domain::DEFAULT.parse().expect("a domain");
    let mut own = Own::new(domain.clone());
    let many: Vec<IpAddr> = (1..=50).map(|last| [10, 32, 0, last].into()).collect();
    own.add("c", "many", &many).expect("a name");
    let mut view = View::new(domain, PeerName([2; 6]), "here");
    view.set_own(own.bodies());
    let conf = tempfile::tempdir().expect("a folder");
    let config = Config { ttl: 1, resolv_conf: conf.path().join("resolv.conf"), patience, in_flight: 100 };
    let (ears, counters) = (Ears::default(), Arc::new(DnsCounters::default()));
    let server = Server::new(&config, Arc::new(RwLock::new(view)), ears.clone(), Clock::start(), Arc::clone(&counters));
    let (held, address) = free_port().await;
    drop(held);
    let (places, receiver) = watch::channel(BTreeSet::from([Place::plain(address)]));
    tokio::spawn(server.expect("the kernel has randomness").run(receiver));
    while !ears.listens(address) {
        tokio::task::yield_now().await;
    }
    Fixture { address, ears, counters, conf, _places: places }
}

fn query(name: &str) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
    message
}

async fn over_udp(server: SocketAddr, query: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.connect(server).await.expect("loopback");
    socket.send(&query.to_vec().expect("a query")).await.expect("loopback");
    let mut buffer = [0; 2000];
    let len = timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await.expect("an answer in time").expect("an answer");
    Message::from_vec(&buffer[..len]).expect("an answer")
}

async fn over_tcp(stream: &mut TcpStream, query: &Message) -> Message {
    send(stream, &query.to_vec().expect("a query")).await.expect("loopback");
    Message::from_vec(&receive(stream).await.expect("an answer")).expect("an answer")
}

/// What the name server of a test does with a query: hands back the datagrams it sends.
type Behaviour = fn(Message) -> Vec<Vec<u8>>;

/// Answers every question with 192.0.2.7.
fn honest(query: Message) -> Message {
    let mut answer = query.into_response();
    let name = answer.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(name, 77, RData::A(A([192, 0, 2, 7].into()))));
    answer
}

/// A name server of a test.
async fn upstream(socket: UdpSocket, behaviour: Behaviour, asked: Arc<AtomicBool>) {
    let mut buffer = [0; 2000];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        asked.store(true, Ordering::Relaxed);
        for answer in behaviour(Message::from_vec(&buffer[..len]).expect("a query")) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

#[tokio::test]
async fn datagrams_and_streams_are_answered() {
    let f = start(Duration::from_secs(1)).await;
    let short = over_udp(f.address, &query("many.weave.local.")).await;
    assert!(short.metadata.truncation && !short.answers.is_empty());
    let mut stream = TcpStream::connect(f.address).await.expect("it listens");
    for _ in 0..3 {
        let whole = over_tcp(&mut stream, &query("many.weave.local.")).await;
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (50, false));
    }
    let unknown = over_tcp(&mut stream, &query("none.weave.local.")).await;
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!((f.counters.queries.get(), f.counters.answered.get(), f.counters.unknown.get()), (5, 5, 1));
}

/// Connects from an address of the loopback network.
async fn connect_from(source: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("a loopback address");
    socket.connect(server).await.expect("it listens")
}

#[tokio::test]
async fn one_caller_does_not_keep_others_from_the_stream() {
    let f = start(Duration::from_secs(1)).await;
    let mut greedy = Vec::new();
    for _ in 0..MOST_OF_ONE {
        greedy.push(connect_from([127, 0, 0, 1], f.address).await);
    }
    // What is taken in is taken in order: once the last is served, so are all.
    for stream in &mut greedy {
        assert_eq!(over_tcp(stream, &query("many.weave.local.")).await.answers.len(), 50);
    }
    let mut one_more = connect_from([127, 0, 0, 1], f.address).await;
    assert!(receive(&mut one_more).await.is_err(), "it is closed");
    assert_eq!(f.counters.drop_connections.get(), 1);
    let mut other = connect_from([127, 0, 0, 2], f.address).await;
    assert_eq!(over_tcp(&mut other, &query("many.weave.local.")).await.answers.len(), 50);
    // A place is free some moments after its caller hung up.
    drop(greedy.pop());
    loop {
        let mut again = connect_from([127, 0, 0, 1], f.address).await;
        let asked = bytes(&query("many.weave.local."));
        if send(&mut again, &asked).await.is_ok() && receive(&mut again).await.is_ok() {
            break;
        }
    }
}

/// Both ends of a connection whose far end the name server of `f` serves until it has ended.
async fn conversation(inner: Arc<Inner>, idle: Duration) -> (TcpStream, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("loopback");
    let (far, _) = listener.accept().await.expect("it is there");
    (near, tokio::spawn(async move { converse(&inner, far, idle).await }))
}

/// A name server that listens nowhere and asks the server of `conf`, if any, on `port`.
fn inner(servers: &[SocketAddr]) -> (Arc<Inner>, TempDir) {
    let (upstream, counters, folder) = asker(servers, Duration::from_secs(5), Ears::default());
    let mut own = Own::new(Domain::DEFAULT.parse().expect("a domain"));
    own.add("c", "web", &[[10, 32, 0, 1].into()]).expect("a name");
    let mut view = View::new(own.domain().clone(), PeerName([2; 6]), "here");
    view.set_own(own.bodies());
    let (answerer, rng) = (Answerer::new(&view, 1), Mutex::new(entropy::generator().expect("the kernel has randomness")));
    let (view, upstream) = (Arc::new(RwLock::new(view)), Arc::new(upstream));
    (Arc::new(Inner { view, answerer, upstream, connections: Arc::default(), rng, counters }), folder)
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_too_little_is_closed() {
    let (inner, _folder) = inner(&[]);
    let (mut silent, ended) = conversation(Arc::clone(&inner), Duration::from_millis(50)).await;
    assert_eq!(over_tcp(&mut silent, &query("web.weave.local.")).await.answers.len(), 1);
    ended.await.expect("no panic");
    assert!(receive(&mut silent).await.is_err());
    let (mut slow, ended) = conversation(inner, Duration::from_millis(50)).await;
    slow.write_all(&[0, 40, 1]).await.expect("loopback");
    ended.await.expect("no panic");
}

#[tokio::test]
async fn a_query_that_waits_for_others_holds_up_no_other_and_is_answered_to_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (inner, _folder) = inner(&[listener.local_addr().expect("an address")]);
    let (mut stream, ended) = conversation(inner, Duration::from_secs(10)).await;
    let (elsewhere, here) = (query("example.com."), query("web.weave.local."));
    for asked in [&elsewhere, &here] {
        send(&mut stream, &bytes(asked)).await.expect("loopback");
    }
    let first = Message::from_vec(&receive(&mut stream).await.expect("an answer")).expect("it can be read");
    assert_eq!(first.metadata.id, here.metadata.id, "while the other server thinks");
    // Nothing more is asked, and the answer still comes.
    stream.shutdown().await.expect("loopback");
    let (mut upstream, _) = listener.accept().await.expect("it is asked");
    let asked = Message::from_vec(&receive(&mut upstream).await.expect("a query")).expect("it can be read");
    send(&mut upstream, &bytes(&honest(asked))).await.expect("loopback");
    let second = Message::from_vec(&receive(&mut stream).await.expect("an answer")).expect("it can be read");
    assert_eq!((second.metadata.id, second.answers.len()), (elsewhere.metadata.id, 1));
    ended.await.expect("no panic");
}

#[tokio::test]
async fn without_other_servers_the_answer_is_failure() {
    let f = start(Duration::from_secs(1)).await;
    let asked = query("example.com.");
    let answer = over_udp(f.address, &asked).await;
    assert_eq!((answer.metadata.response_code, answer.queries), (ResponseCode::ServFail, asked.queries));
    assert_eq!(f.counters.forward_failed.get(), 1);
    assert!(f.ears.listens(f.address));
}

/// The servers of these addresses, asked in this order.
fn asker(servers: &[SocketAddr], patience: Duration, ears: Ears) -> (Upstream, Arc<DnsCounters>, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let lines: String = servers.iter().map(|server| format!("nameserver {}\n", server.ip())).collect();
    let conf = folder.path().join("resolv.conf");
    fs::write(&conf, lines).expect("a file");
    let counters = Arc::new(DnsCounters::default());
    let rng = entropy::generator().expect("the kernel has randomness");
    let port = servers.first().map_or(53, SocketAddr::port);
    let upstream = Upstream::new(&conf, patience, 10, ears, rng, Clock::start(), Arc::clone(&counters)).with_port(port);
    (upstream, counters, folder)
}

/// Name servers on 127.0.0.1, .2, … and one port.
async fn servers(behaviours: &[Behaviour]) -> (Vec<SocketAddr>, Vec<Arc<AtomicBool>>) {
    let (first, address) = free_port().await;
    let mut sockets = vec![first];
    for last in 2..=behaviours.len() as u8 {
        sockets.push(UdpSocket::bind(SocketAddr::from(([127, 0, 0, last], address.port()))).await.expect("a port"));
    }
    let mut asked = Vec::new();
    let mut addresses = Vec::new();
    for (socket, behaviour) in sockets.into_iter().zip(behaviours) {
        let flag = Arc::new(AtomicBool::new(false));
        addresses.push(socket.local_addr().expect("an address"));
        tokio::spawn(upstream(socket, *behaviour, Arc::clone(&flag)));
        asked.push(flag);
    }
    (addresses, asked)
}

async fn ask(upstream: &Upstream, query: &Message) -> Message {
    let answer = upstream.ask(&query.to_vec().expect("a query"), Transport::Udp, false).await;
    Message::from_vec(&answer.expect("an answer")).expect("it can be read")
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("a message")
}

#[tokio::test]
async fn answers_pass_through() {
    let (addresses, _) = servers(&[|query| vec![bytes(&honest(query))]]).await;
    let (upstream, counters, _folder) = asker(&addresses, Duration::from_secs(5), Ears::default());
    let asked = query("Example.com.");
    assert_eq!(ask(&upstream, &asked).await, honest(asked));
    assert_eq!((counters.forwarded.get(), counters.upstream_failures.get()), (1, 0));
}

#[tokio::test]
async fn a_silent_server_is_asked_last_from_then_on() {
    let (addresses, asked) = servers(&[|_| Vec::new(), |query| vec![bytes(&honest(query))]]).await;
    let (upstream, counters, _folder) = asker(&addresses, Duration::from_secs(2), Ears::default());
    assert_eq!(upstream.servers(), addresses);
    assert_eq!(ask(&upstream, &query("example.com.")).await.answers.len(), 1);
    assert!(asked[0].swap(false, Ordering::Relaxed));
    assert_eq!(counters.upstream_failures.get(), 1);
    assert_eq!(upstream.servers(), [addresses[1], addresses[0]]);
    assert_eq!(ask(&upstream, &query("example.com.")).await.answers.len(), 1);
    assert!(!asked[0].load(Ordering::Relaxed), "nobody waits for it a second time");
}

#[tokio::test]
async fn an_unwilling_server_is_no_reason_to_give_up() {
    let unwilling: Behaviour = |query| {
        let mut answer = query.into_response();
        answer.metadata.response_code = ResponseCode::Refused;
        vec![bytes(&answer)]
    };
    let (addresses, _) = servers(&[unwilling, |query| vec![bytes(&honest(query))]]).await;
    let (upstream, _, _folder) = asker(&addresses, Duration::from_secs(5), Ears::default());
    assert_eq!(ask(&upstream, &query("example.com.")).await.answers.len(), 1);
    let (alone, _, _folder) = asker(&addresses[..1], Duration::from_secs(5), Ears::default());
    assert_eq!(ask(&alone, &query("example.com.")).await.metadata.response_code, ResponseCode::Refused, "its word is passed on");
}

#[tokio::test]
async fn forged_answers_are_not_taken() {
    let forger: Behaviour = |query| {
        let good = honest(query);
        let mut id = good.clone();
        id.metadata.id ^= 1;
        let mut question = good.clone();
        question.queries[0].set_name(Name::from_ascii("example.org.").expect("a name"));
        let mut no_answer = good.clone();
        no_answer.metadata.message_type = MessageType::Query;
        vec![bytes(&id), bytes(&question), bytes(&no_answer), vec![1, 2, 3], bytes(&good)]
    };
    let (addresses, _) = servers(&[forger]).await;
    let (upstream, counters, _folder) = asker(&addresses, Duration::from_secs(5), Ears::default());
    let asked = query("example.com.");
    assert_eq!(ask(&upstream, &asked).await, honest(asked));
    assert_eq!(counters.drop_wrong_answer.get(), 4);
}

#[tokio::test]
async fn ids_are_not_the_callers() {
    let echo: Behaviour = |query| {
        let id = query.metadata.id;
        let mut answer = honest(query);
        answer.answers[0].data = RData::A(A([0, 0, (id >> 8) as u8, id as u8].into()));
        vec![bytes(&answer)]
    };
    let (addresses, _) = servers(&[echo]).await;
    let (upstream, _, _folder) = asker(&addresses, Duration::from_secs(5), Ears::default());
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let mut asked = query("example.com.");
        asked.metadata.id = 1;
        let answer = ask(&upstream, &asked).await;
        assert_eq!(answer.metadata.id, 1);
        ids.insert(answer.answers[0].data.to_string());
    }
    assert!(ids.len() > 15, "{ids:?}");
}

#[tokio::test]
async fn it_never_asks_itself() {
    let f = start(Duration::from_secs(1)).await;
    let (upstream, _, _folder) = asker(&[f.address], Duration::from_secs(1), f.ears.clone());
    assert!(upstream.servers().is_empty());
    let (other, _, _folder) = asker(&[f.address], Duration::from_secs(1), Ears::default());
    assert_eq!(other.servers(), [f.address], "another program on this address may be asked");
    drop(f.conf);
}

#[tokio::test]
async fn only_so_many_wait() {
    let (upstream, counters, _folder) = asker(&[], Duration::from_secs(1), Ears::default());
    let held: Vec<_> = (0..10).map(|_| upstream.admit().expect("a slot")).collect();
    assert!(upstream.admit().is_none());
    assert_eq!(counters.drop_busy.get(), 1);
    drop(held);
    assert!(upstream.admit().is_some());
}
