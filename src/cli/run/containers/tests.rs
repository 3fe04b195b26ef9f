use std::future::pending;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::book::{Addresses, Told};
use super::desk::Known;
use super::record::Record;
use super::*;
use crate::api::Denied;
use crate::api::containers::{Attach, EXPOSED};
use crate::store::db::Table;

/// What is waited for comes at once, on a machine that has time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Gives addresses out, or does not, and remembers what was asked of it.
#[derive(Default)]
struct Book {
    asked: Mutex<Vec<String>>,
    /// Something was asked.
    news: Notify,
    /// It gives nothing back.
    broken: bool,
    /// What everybody has.
    given: Vec<IpNet>,
}

impl Book {
    fn note(&self, what: String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        self.news.notify_one();
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn wait_for(&self, what: &str) {
        let asked = async {
            while !self.asked().iter().any(|asked| asked == what) {
                self.news.notified().await;
            }
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("nobody asked for {what}, but for {:?}", self.asked()));
    }

    fn back(&self) -> Result<(), Denied> {
        if self.broken { Err(Denied::now("the disk is full")) } else { Ok(()) }
    }
}

impl Addresses for Book {
    fn allocate<'a>(&'a self, ident: &'a str, _: IpNet) -> Told<'a, IpNet> {
        // Whoever waits for the answer is killed meanwhile.
        self.note(format!("allocate {ident}"));
        pending().boxed()
    }

    fn claim<'a>(&'a self, ident: &'a str, address: IpNet) -> Told<'a, ()> {
        self.note(format!("claim {ident} {address}"));
        async { Ok(()) }.boxed()
    }

    fn lookup<'a>(&'a self, _: &'a str) -> Told<'a, Vec<IpNet>> {
        async { Ok(self.given.clone()) }.boxed()
    }

    fn free<'a>(&'a self, ident: &'a str, address: Option<IpAddr>) -> Told<'a, ()> {
        self.note(format!("free {ident}{}", address.map_or(String::new(), |address| format!(" {address}"))));
        async { self.back() }.boxed()
    }

    fn released<'a>(&'a self, ident: &'a str) -> Told<'a, ()> {
        self.note(format!("released {ident}"));
        async { self.back() }.boxed()
    }

    fn reserve(&self, held: Vec<(String, IpNet)>, _: Vec<IpNet>) -> Told<'_, ()> {
        self.note(format!("reserve {}", held.iter().map(|(ident, address)| format!("{ident} {address}")).collect::<Vec<_>>().join(" ")));
        async { Ok(()) }.boxed()
    }
}

/// The part as it is after a start, with the file of a folder. Nothing on this machine belongs to its bridge.
async fn desk(dir: &Path, book: &Arc<Book>) -> Arc<Desk> {
    let db = loop {
        // The thread of the one before may still be closing the file.
        match Db::open(dir) {
            Ok(db) => break db,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    };
    let subnets = vec!["10.32.0.0/12".parse().expect("a subnet")];
    let settings = Settings { isolate: false, ranges: Vec::new(), subnets, name_server: None };
    let (_, bridges) = watch::channel(BridgeEnd { name: "wr-no-bridge".into(), index: 1 });
    let (_, doorbell) = crate::cli::run::keeper::Keeper::new("wr-no-bridge");
    let poll = mio::Poll::new().expect("a poll");
    let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker"));
    let mailbox = crate::io::mailbox::mailbox(1, waker).0;
    let ends = (Sockets::open().expect("sockets"), doorbell, Far::new(mailbox));
    let books = Books { addresses: Some(Arc::clone(book) as Arc<dyn Addresses>), names: None };
    Arc::new(Desk::new(settings, bridges, ends, db, books))
}

async fn remembered(desk: &Desk) -> Vec<(String, Record)> {
    let rows = desk.db.all(Table::Containers).await.expect("rows");
    rows.into_iter().map(|(ident, bytes)| (ident, Record::from_bytes(&bytes).expect("a record"))).collect()
}

async fn forgotten(desk: &Desk) {
    let empty = async {
        while !remembered(desk).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, empty).await.expect("nothing is remembered any more");
}

fn record(address: &str) -> Record {
    let mut record = Record::default();
    record.add(&[address.parse().expect("an address")], &[]);
    record
}

#[tokio::test]
async fn a_container_is_remembered_before_it_has_an_address_so_that_a_crash_between_loses_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let book = Arc::new(Book::default());
    let first = desk(dir.path(), &book).await;
    let order = Attach {
        ident: "c".into(),
        netns: PathBuf::from("/proc/self/ns/net"),
        interface: "ethwe".into(),
        addresses: Vec::new(),
        names: Vec::new(),
        multicast_route: false,
    };
    tokio::select! {
        done = first.attach(order) => panic!("{done:?}"),
        () = book.wait_for("allocate c") => {}
    }
    assert_eq!(remembered(&first).await.len(), 1, "an address may be on disk from here on");
    drop(first);
    let next = desk(dir.path(), &book).await;
    assert!(next.take_over().await);
    book.wait_for("released c").await;
    forgotten(&next).await;
    let asked = book.asked();
    assert!(asked[1].starts_with("reserve"), "before anything else is said: {asked:?}");
}

#[tokio::test]
async fn who_is_attached_again_during_the_start_is_not_buried() {
    let dir = tempfile::tempdir().expect("a folder");
    let book = Arc::new(Book::default());
    let desk = desk(dir.path(), &book).await;
    for ident in ["b", "c", "d"] {
        desk.remember(ident, Some(&record("10.2.1.1/24"))).await.expect("on disk");
    }
    // Somebody attaches one of them while it is found to be gone.
    let turn = desk.turn("c").await;
    assert!(desk.take_over().await);
    book.wait_for("released b").await;
    desk.lock().insert("c".into(), Known { record: record("10.2.1.7/24"), port: None });
    drop(turn);
    book.wait_for("claim c 10.2.1.7/24").await;
    let asked = book.asked();
    assert!(asked.contains(&"released d".into()) && !asked.contains(&"released c".into()), "{asked:?}");
    let left: Vec<String> = remembered(&desk).await.into_iter().map(|(ident, _)| ident).collect();
    assert_eq!(left, ["c"]);
}

#[tokio::test]
async fn what_the_host_was_to_have_when_it_was_killed_goes_back_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let net = |text: &str| text.parse().expect("an address");
    let book = Arc::new(Book { given: vec![net("10.32.0.1/12"), net("10.32.0.2/12")], ..Book::default() });
    let first = desk(dir.path(), &book).await;
    first.announce_newcomer(EXPOSED).await.expect("on disk");
    drop(first);
    let second = desk(dir.path(), &book).await;
    assert!(second.take_over().await);
    book.wait_for("free weave:expose").await;
    forgotten(&second).await;
    // It had one of the two.
    second.remember(EXPOSED, Some(&record("10.32.0.1/12"))).await.expect("on disk");
    drop(second);
    let third = desk(dir.path(), &book).await;
    assert!(third.take_over().await);
    book.wait_for("free weave:expose 10.32.0.2").await;
    book.wait_for("claim weave:expose 10.32.0.1/12").await;
    let asked = book.asked();
    assert!(!asked.iter().any(|asked| asked.contains("released") || asked == "free weave:expose 10.32.0.1"), "{asked:?}");
}

#[tokio::test]
async fn what_cannot_be_given_back_is_given_back_at_a_later_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let broken = Arc::new(Book { broken: true, ..Book::default() });
    let first = desk(dir.path(), &broken).await;
    let gone = ["10.2.1.1/24".parse().expect("an address")];
    first.settle("c", None, &gone, false).await.expect("remembered instead");
    assert_eq!(remembered(&first).await.iter().map(|(_, record)| record.leaving.clone()).collect::<Vec<_>>(), [gone.to_vec()]);
    drop(first);
    let second = desk(dir.path(), &broken).await;
    assert!(second.take_over().await);
    broken.wait_for("released c").await;
    assert_eq!(remembered(&second).await.len(), 1, "it could not be said");
    drop(second);
    let book = Arc::new(Book::default());
    let third = desk(dir.path(), &book).await;
    assert!(third.take_over().await);
    book.wait_for("released c").await;
    forgotten(&third).await;
}
