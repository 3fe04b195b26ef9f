//! The part without a kernel to speak of: who gives addresses out is played by the test.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::ready;
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::book::{Addresses, Books, Told};
use super::super::far::Far;
use super::super::{Settings, Sockets};
use super::*;
use crate::cli::run::keeper::Keeper;
use crate::host::container::BridgeEnd;
use crate::host::lab::clock::Stopwatch;
use crate::store::db::{Db, Table};

/// Gives nothing back while it fails.
#[derive(Default)]
struct Book {
    fails: AtomicBool,
    freed: Mutex<Vec<String>>,
}

impl Book {
    fn give_back(&self, what: String) -> Told<'_, ()> {
        match self.fails.load(Ordering::SeqCst) {
            true => ready(Err(Denied::now("the disk is full"))).boxed(),
            false => {
                self.freed.lock().expect("no panic").push(what);
                ready(Ok(())).boxed()
            }
        }
    }
}

impl Addresses for Book {
    fn allocate<'a>(&'a self, _ident: &'a str, subnet: IpNet) -> Told<'a, IpNet> {
        ready(Ok(subnet)).boxed()
    }

    fn claim<'a>(&'a self, _ident: &'a str, _address: IpNet) -> Told<'a, ()> {
        ready(Ok(())).boxed()
    }

    fn lookup<'a>(&'a self, _ident: &'a str) -> Told<'a, Vec<IpNet>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn free<'a>(&'a self, ident: &'a str, address: Option<std::net::IpAddr>) -> Told<'a, ()> {
        self.give_back(format!("{ident} {address:?}"))
    }

    fn released<'a>(&'a self, ident: &'a str) -> Told<'a, ()> {
        self.give_back(format!("{ident} died"))
    }

    fn reserve(&self, _held: Vec<(String, IpNet)>, _host: Vec<IpNet>) -> Told<'_, ()> {
        ready(Ok(())).boxed()
    }
}

fn desk(directory: &std::path::Path, book: &Arc<Book>) -> (Arc<Desk>, watch::Sender<BridgeEnd>) {
    let settings = Settings { isolate: false, ranges: Vec::new(), subnets: Vec::new(), name_server: None };
    let (bridge, bridges) = watch::channel(BridgeEnd { name: "wr-no-bridge".into(), index: u32::MAX });
    let (_, doorbell) = Keeper::new("wr-no-bridge");
    let books = Books { addresses: Some(Arc::clone(book) as Arc<dyn Addresses>), names: None };
    let db = Db::open(directory).expect("a file");
    let poll = mio::Poll::new().expect("a poll");
    let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker"));
    let mailbox = crate::io::mailbox::mailbox(1, waker).0;
    let ends = (Sockets::open().expect("sockets"), doorbell, Far::new(mailbox));
    (Arc::new(Desk::new(settings, bridges, ends, db, books)), bridge)
}

#[tokio::test]
async fn what_cannot_be_given_back_is_tried_again_until_it_can() {
    let directory = tempfile::tempdir().expect("a directory");
    let book = Arc::new(Book::default());
    let (desk, _bridge) = desk(directory.path(), &book);
    let address: IpNet = "10.32.0.1/12".parse().expect("an address");
    book.fails.store(true, Ordering::SeqCst);
    desk.settle("one", None, &[address], false).await.expect("noted");
    desk.bury("two", false).await.expect_err("not yet");
    let kept = desk.db.all(Table::Containers).await.expect("rows");
    assert_eq!(kept.len(), 1);
    assert_eq!(Record::from_bytes(&kept[0].1).map(|record| record.leaving), Some(vec![address]), "it outlives a restart");
    let debts = |desk: &Desk| desk.debts().len();
    desk.pay();
    sleep(Duration::from_millis(20)).await;
    assert_eq!(debts(&desk), 2);
    assert_eq!(desk.debts().get("one"), Some(&Debt::Addresses(vec![address])));
    book.fails.store(false, Ordering::SeqCst);
    desk.pay();
    let clock = Stopwatch::start();
    while debts(&desk) > 0 && clock.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(5)).await;
    }
    // The record goes after the debt.
    while !desk.db.all(Table::Containers).await.expect("rows").is_empty() && clock.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((debts(&desk), desk.db.all(Table::Containers).await.expect("rows").len()), (0, 0));
    let mut freed = book.freed.lock().expect("no panic").clone();
    freed.sort();
    assert_eq!(freed, ["one Some(10.32.0.1)", "two died"]);
    desk.pay();
    sleep(Duration::from_millis(20)).await;
    assert_eq!(book.freed.lock().expect("no panic").len(), 2, "nothing is given back twice");
}
