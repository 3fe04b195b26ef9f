//! A router that is killed at any moment of whatever it was asked: what it has acknowledged holds, and nothing of the rest is left half done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use weave_router::host::lab::clock::{Stopwatch, pause};
use weave_router::host::lab::{Lab, Router};
use weave_router::store::db::{Db, Rows, Table};

use crate::attach::{ask, container};
use crate::common::{router, wait_until};
use crate::scene::{PATIENCE, ip, scene, shell};

/// How often it is killed, unless `WEAVE_KILL_ROUNDS` says otherwise.
const ROUNDS: u64 = 6;
/// Longest that it lives with what it was asked in a round, in milliseconds: all of it takes some fifty, or several times as many on a slow machine.
const LIFE: u64 = 200;
/// How long it lives to clear up, at first.
const CLEARING: Duration = Duration::from_millis(250);

/// A number from the environment.
#[expect(clippy::disallowed_methods, reason = "a test is told by its caller how long it may take")]
fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

/// Tells whether something shows.
type Shown = Box<dyn Fn(&Lab, &Router) -> bool>;

/// Something that two verbs switch on and off.
struct Switch {
    on: String,
    off: String,
    /// What shows that it is on.
    shown: Shown,
    /// Whether it is on, where that is known.
    is: Option<bool>,
}

impl Switch {
    fn new(on: String, off: String, shown: impl Fn(&Lab, &Router) -> bool + 'static) -> Switch {
        Switch { on, off, shown: Box::new(shown), is: Some(false) }
    }
}

/// Every verb that changes the state of a host, each pair with a thing of its own.
fn switches(lab: &mut Lab) -> Vec<Switch> {
    let mut all = Vec::new();
    for (name, more) in [("c1", ""), ("c2", " --hostname web"), ("c3", " ip:10.99.1.1/24 net:default")] {
        let netns = container(lab, name);
        let listed = format!("netns:{netns} ");
        let on = format!("attach{more} --netns {netns}");
        all.push(Switch::new(on, format!("detach --all --netns {netns}"), move |_, router| ask(router, "ps").contains(&listed)));
    }
    let exposed = |_: &Lab, router: &Router| ask(router, "ps").contains("weave:expose ");
    all.push(Switch::new("expose ip:10.98.1.1/24 net:default --hostname gate".into(), "hide --all".into(), exposed));
    let named = |_: &Lab, router: &Router| ask(router, "status dns").contains("printer");
    all.push(Switch::new("dns-add 10.97.1.1 --hostname printer".into(), "dns-remove --hostname printer".into(), named));
    let target = |_: &Lab, router: &Router| ask(router, "status targets").contains("10.96.1.1");
    all.push(Switch::new("connect 10.96.1.1".into(), "forget 10.96.1.1".into(), target));
    // There is no verb that parts a single bridge: it is parted by hand after each round.
    let joined = |lab: &Lab, _: &Router| pair(lab).lines().filter(|line| line.contains(" master ")).count() == 2;
    all.push(Switch::new("attach-bridge other0".into(), "ps".into(), joined));
    all
}

/// The pair that joins the other bridge.
fn pair(lab: &Lab) -> String {
    ip(lab, "h1", "-o link show type veth").lines().filter(|line| line.contains(" vethwb")).map(|line| format!("{line}\n")).collect()
}

/// Asks for all at once and kills the router meanwhile; what it acknowledged is noted.
fn kill_amid(router: &mut Router, switches: &mut [Switch], rng: &mut ChaCha8Rng) {
    let process = nix::unistd::Pid::from_raw(i32::try_from(router.process().id()).expect("a pid"));
    let life = Duration::from_micros(rng.next_u64() % (LIFE * 1000));
    let asked: Vec<(bool, String)> = switches
        .iter()
        .map(|switch| {
            let on = !switch.is.unwrap_or_else(|| rng.next_u64().is_multiple_of(2));
            (on, if on { switch.on.clone() } else { switch.off.clone() })
        })
        .collect();
    let shared: &Router = router;
    let done: Vec<bool> = std::thread::scope(|scope| {
        let verb = |words: &str| shared.client(&words.split_whitespace().collect::<Vec<_>>()).is_ok_and(|out| out.status.success());
        let under_way: Vec<_> = asked.iter().map(|(_, words)| scope.spawn(move || verb(words))).collect();
        pause(life);
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).expect("killed");
        under_way.into_iter().map(|verb| verb.join().expect("it ends")).collect()
    });
    router.process().kill().expect("reaped");
    for ((switch, (on, _)), done) in switches.iter_mut().zip(asked).zip(done) {
        switch.is = done.then_some(on);
    }
}

/// What was acknowledged holds; what the kernel has is whole.
fn check_running(lab: &Lab, router: &Router, switches: &mut [Switch]) {
    for switch in switches.iter_mut() {
        match switch.is {
            Some(on) => {
                let words = if on { &switch.on } else { &switch.off };
                wait_until(PATIENCE, &format!("'{words}' was acknowledged, and holds"), || (switch.shown)(lab, router) == on);
            }
            None => switch.is = Some((switch.shown)(lab, router)),
        }
    }
    let (listed, links) = (ask(router, "ps"), ip(lab, "h1", "-o link show type veth"));
    let containers = listed.lines().filter(|line| line.starts_with("netns:")).count();
    assert_eq!(links.lines().filter(|line| line.contains(" vethwe")).count(), containers, "{links}\n{listed}");
    assert!(matches!(pair(lab).lines().count(), 0 | 2) && pair(lab).lines().all(|line| line.contains(" master ")), "{}", pair(lab));
    let on_bridge = ip(lab, "h1", "-o -4 addr show dev weave").lines().filter(|line| line.contains("inet 10.")).count();
    let exposed = listed.lines().find(|line| line.starts_with("weave:expose ")).map_or(0, |line| line.split(' ').count() - 2);
    assert_eq!(on_bridge, exposed, "{listed}");
    let tables = shell(lab, "h1", "nft list tables | grep weave || true");
    assert_eq!(!tables.is_empty(), !listed.is_empty(), "{tables}\n{listed}");
}

/// What is in these tables of a router that does not run.
fn rows<const N: usize>(router: &Router, tables: [Table; N]) -> [Rows; N] {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let clock = Stopwatch::start();
        let db = loop {
            match Db::open(&router.state_dir()) {
                Ok(db) => break db,
                // The thread of the one before may still be closing the file.
                Err(error) => assert!(clock.elapsed() < PATIENCE, "{error}"),
            }
            pause(Duration::from_millis(2));
        };
        let mut all = Vec::new();
        for table in tables {
            all.push(db.all(table).await.expect("rows"));
        }
        drop(db);
        // Its thread closes the file a moment later, and the router is not to start before.
        let file = std::fs::File::open(router.state_dir().join("state.redb")).expect("the file");
        wait_until(PATIENCE, "the file is closed", || file.try_lock().is_ok());
        all.try_into().expect("one of each")
    })
}

/// What is on disk and belongs to nobody: addresses whose container neither is there nor was noted as dead, and records of containers that are not there.
fn leaks(router: &Router, listed: &str) -> Vec<String> {
    let there: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let [ipam, addresses, records, names] = rows(router, [Table::Ipam, Table::Addresses, Table::Containers, Table::Names]);
    let dead: BTreeSet<String> = ipam.into_iter().filter_map(|(key, _)| Some(key.strip_prefix("dead/")?.to_string())).collect();
    let holders = addresses.into_iter().map(|(address, value)| (address, String::from_utf8_lossy(&value[1..]).into_owned()));
    let addresses = holders.filter(|(_, ident)| !there.contains(ident.as_str()) && !dead.contains(ident));
    let records = records.into_iter().filter(|(ident, _)| !there.contains(ident.as_str()));
    let names = names.into_iter().filter(|(key, _)| !key.starts_with("weave:extern "));
    addresses
        .map(|(address, ident)| format!("{address} of {ident}"))
        .chain(records.map(|(ident, _)| format!("the record of {ident}")))
        .chain(names.map(|(key, _)| format!("the name {key}")))
        .collect()
}

/// Lets the router live for a while, and then looks at its disk; again for longer while there is something to clear up.
fn check_disk(router: &mut Router) {
    let (clock, mut life) = (Stopwatch::start(), CLEARING);
    loop {
        pause(life);
        let listed = ask(router, "ps");
        router.process().kill().expect("killed");
        let left = leaks(router, &listed);
        router.restart().expect("started");
        if left.is_empty() {
            return;
        }
        assert!(clock.elapsed() < PATIENCE, "left behind: {left:?}");
        life *= 2;
    }
}

#[test]
fn killed_at_any_moment_of_any_verb_what_was_acknowledged_holds_and_nothing_is_left_behind() {
    let (rounds, seed) = (number("WEAVE_KILL_ROUNDS", ROUNDS), number("WEAVE_KILL_SEED", 1));
    scene(|lab| {
        lab.host("h1").expect("a host");
        let mut switches = switches(lab);
        lab.bridge("h1", "other0", None).expect("a bridge");
        let mut router = router(lab, "h1", &[]);
        ask(&router, "prime");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..rounds {
            kill_amid(&mut router, &mut switches, &mut rng);
            for switch in switches.iter().filter(|switch| switch.is.is_some()) {
                *acknowledged.entry(switch.on.clone()).or_default() += 1;
            }
            router.restart().expect("started");
            check_running(lab, &router, &mut switches);
            check_disk(&mut router);
            shell(lab, "h1", "ip -o link show type veth | grep -o 'vethwbl[0-9a-f]*' | sort -u | xargs -r -n1 ip link del");
            switches.iter_mut().filter(|switch| switch.on.starts_with("attach-bridge")).for_each(|switch| switch.is = Some(false));
        }
        eprintln!("{rounds} rounds, seed {seed}, acknowledged: {acknowledged:?}");
        // And with everything taken away nothing is left.
        ask(&router, "attach-bridge other0");
        ask(&router, "reset");
        for switch in &switches {
            ask(&router, &switch.off);
        }
        assert_eq!((ask(&router, "ps"), ip(lab, "h1", "-o link show type veth").contains("vethw")), (String::new(), false));
        router.process().kill().expect("killed");
        // Addresses of what was cut short go back after their time.
        assert_eq!(leaks(&router, ""), Vec::<String>::new());
        assert_eq!(rows(&router, [Table::Containers, Table::Names]), [vec![], vec![]]);
    });
}
