//! Containers that are named as Docker names them.

use std::net::IpAddr;
use std::process::Command;

use weave_router::host::lab::{Lab, Process, Router};

use crate::attach::{address, ask};
use crate::common::{router, wait_until};
use crate::engine::{Engine, Told};
use crate::scene::{PASSWORD, PATIENCE, scene};

/// A process with a network of its own, which ends with it, as the first process of a Docker container has it.
fn process(lab: &Lab) -> Process {
    let process = lab.spawn("h1", Command::new("unshare").args(["--net", "sleep", "300"])).expect("a process");
    let comm = format!("/proc/{}/comm", process.id());
    wait_until(PATIENCE, "it is in its network", || std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() == "sleep"));
    process
}

fn id(first: char) -> String {
    format!("{first}{}", "0123456789abcdef".repeat(4).get(..63).expect("digits"))
}

/// Runs a verb with this engine, and answers with what it prints, or with its sentence where it fails.
fn say(router: &Router, engine: &Engine, words: &str) -> Result<String, String> {
    let host = engine.host();
    let words: Vec<&str> = words.split_whitespace().chain(["--docker-host", &host]).collect();
    let output = router.client(&words).expect("the client runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// Whether one container reaches another.
fn pings(lab: &Lab, from: &Process, to: IpAddr) -> bool {
    let (pid, to) = (from.id().to_string(), to.to_string());
    let output = lab.exec("h1", "nsenter", &["--net", "--target", &pid, "ping", "-c", "1", "-W", "1", &to]);
    output.expect("nsenter is installed").status.success()
}

/// One that runs and has a name of its own in the domain, and one that is paused.
fn web_and_db(web_pid: u32, status: &'static str, db_pid: u32) -> [Told; 2] {
    let web = Told { id: id('a'), name: "web", pid: web_pid, status, hostname: "www", domainname: "weave.local", network: "bridge" };
    let db = Told { id: id('b'), name: "db_1", pid: db_pid, status: "paused", hostname: "b01234567890", domainname: "", network: "bridge" };
    [web, db]
}

#[test]
fn attach_detach_and_ps_take_docker_s_names_and_ids() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let mut router = router(lab, "h1", PASSWORD);
        let engine = Engine::start();
        let (mut web, mut db) = (process(lab), process(lab));
        let (web_id, db_id) = (id('a'), id('b'));
        let told = |web_pid: u32, status: &'static str, db_pid: u32| engine.tell(&web_and_db(web_pid, status, db_pid));
        told(web.id(), "running", db.id());
        let say = |router: &Router, words: &str| say(router, &engine, words).unwrap_or_else(|sentence| panic!("{words}: {sentence}"));
        assert_eq!(say(&router, "attach ip:10.2.1.1/24 web"), "10.2.1.1/24\n");
        assert_eq!(say(&router, &format!("attach ip:10.2.1.2/24 {}", &db_id[..12])), "10.2.1.2/24\n", "a paused one has a network as well");
        assert_eq!(say(&router, &format!("attach ip:10.2.1.1/24 {web_id}")), "10.2.1.1/24\n", "once more by its whole id");
        wait_until(PATIENCE, "they reach each other", || pings(lab, &web, address("10.2.1.2")) && pings(lab, &db, address("10.2.1.1")));
        let rows = ask(&router, "ps");
        let idents: Vec<&str> = rows.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(idents, [&web_id[..12], &db_id[..12]], "as `docker ps` has them");
        for name in ["db_1", &db_id[..6], &db_id[..]] {
            assert_eq!(say(&router, &format!("ps {name}")), rows.lines().nth(1).expect("a line").to_string() + "\n", "{name}");
        }
        // Both its names, its own and that of its host in the domain; the usual host name is no name.
        for (name, found) in [("web", "10.2.1.1"), ("www", "10.2.1.1"), ("db_1.weave.local", "10.2.1.2")] {
            assert_eq!(ask(&router, &format!("dns-lookup {name}")).trim(), found, "{name}");
        }
        assert!(!ask(&router, "status dns").contains("b01234567890"));
        // A router that is started anew asks nobody.
        router.process().kill().expect("killed");
        router.restart().expect("started");
        assert_eq!(ask(&router, "ps"), rows);
        let known = |router: &Router, name: &str| router.client(&["dns-lookup", name]).is_ok_and(|out| out.stdout == b"10.2.1.1\n");
        wait_until(PATIENCE, "its names are known again", || known(&router, "www") && known(&router, "web"));
        // By a name given here only that one counts; detached is detached, by whatever name, and as often as one likes.
        assert_eq!(say(&router, "detach net:10.2.1.0/24 web"), "10.2.1.1/24\n");
        assert_eq!(say(&router, "detach net:10.2.1.0/24 web"), "");
        assert!(!ask(&router, "status dns").contains("10.2.1.1 "));
        assert_eq!(say(&router, "attach ip:10.2.1.1/24 --hostname shop web"), "10.2.1.1/24\n");
        let names = ask(&router, "status dns");
        assert!(names.contains("shop") && !names.contains("www"), "{names}");
        // It stops, is started again, and is another process with another network.
        web.kill().expect("killed");
        wait_until(PATIENCE, "it is gone", || !ask(&router, "ps").contains(&web_id[..12]));
        told(0, "exited", db.id());
        assert_eq!(say(&router, "detach web"), "", "a stopped one has nothing");
        let web = process(lab);
        told(web.id(), "running", db.id());
        assert_eq!(say(&router, "attach ip:10.2.1.1/24 web"), "10.2.1.1/24\n");
        wait_until(PATIENCE, "it is reached", || pings(lab, &db, address("10.2.1.1")));
        // What Docker has forgotten, or cannot say, is taken off by its id.
        engine.tell(&[]);
        assert_eq!(say(&router, &format!("detach net:10.2.1.0/24 {}", &web_id[..12])), "10.2.1.1/24\n");
        drop(engine);
        assert_eq!(ask(&router, &format!("detach --all --docker-host unix:///no/such/socket {}", &db_id[..12])), "10.2.1.2/24\n");
        assert_eq!(ask(&router, "ps"), "");
        db.kill().expect("killed");
    });
}

#[test]
fn attach_says_why_a_docker_container_cannot_be() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let router = router(lab, "h1", PASSWORD);
        let engine = Engine::start();
        let host = lab.spawn("h1", Command::new("sleep").arg("300")).expect("a process");
        let on = |name: &'static str, status: &'static str, pid: u32, network: &'static str, first: char| Told {
            id: id(first),
            name,
            status,
            pid,
            network,
            ..Told::default()
        };
        let far = Told { id: "c".repeat(64), ..on("far", "created", 0, "bridge", 'c') };
        let shared = on("shared", "running", host.id(), "container:1", 'e');
        engine.tell(&[on("stopped", "exited", 0, "bridge", 'a'), on("again", "restarting", 0, "bridge", 'b'), far]);
        let said = |words: &str| say(&router, &engine, words).expect_err("refused");
        for (name, sentence) in [
            ("stopped", "the Docker container stopped is not running (exited); start it first"),
            ("again", "the Docker container again is not running (restarting); start it first"),
            ("far", "the Docker container far is not running (created); start it first"),
            ("nobody", "Docker knows no container nobody; `docker ps` lists them"),
            ("broken", "HTTP status 500 Internal Server Error: layer does not exist"),
            ("no%name", "Docker knows no container 'no%name'"),
        ] {
            let heard = said(&format!("attach ip:10.2.1.1/24 {name}"));
            assert!(heard.contains(sentence) && heard.lines().count() == 1, "{name}: {heard}");
        }
        engine.tell(&[on("host", "running", host.id(), "host", 'd'), shared, on("other", "exited", 0, "bridge", 'd')]);
        for (name, sentence) in [
            ("host", "the Docker container host has the host's own network; put the host on the network with `weave-router expose`"),
            ("shared", "the host's own"),
        ] {
            let heard = said(&format!("attach ip:10.2.1.1/24 {name}"));
            assert!(heard.contains(sentence), "{name}: {heard}");
        }
        let twice = Told { id: format!("{}0", &id('d')[..63]), ..on("twice", "exited", 0, "bridge", 'd') };
        engine.tell(&[on("host", "running", host.id(), "host", 'd'), twice]);
        for verb in ["attach ip:10.2.1.1/24", "detach", "ps"] {
            let heard = said(&format!("{verb} {}", &id('d')[..12]));
            assert!(heard.contains("is the beginning of the ids of several Docker containers"), "{verb}: {heard}");
            assert!(said(&format!("{verb} nobody")).contains("Docker knows no container nobody"), "{verb}");
        }
        assert_eq!(ask(&router, "ps"), "", "and nobody is attached");
    });
}
