//! Against real iptables and nft in network namespaces; they need root and skip what is not installed.

use ipnet::IpNet;

use super::*;
use crate::host::lab::tests::lab_or_skip;
use crate::host::lab::{Lab, in_namespace};

const OURS: &str = "-i weave -o weave -m comment --comment weave-router -j ACCEPT";

struct Wall {
    _lab: Lab,
    host: String,
}

impl Wall {
    /// A host where `setup` was run by a shell; `None` where there is no root, or a program of `needs` is missing.
    fn new(needs: &[&str], setup: &str) -> Option<Wall> {
        for program in needs {
            if Command::new(program).arg("--version").output().is_err() {
                eprintln!("skipped: {program} is not installed");
                return None;
            }
        }
        let mut lab = lab_or_skip("wrf")?;
        let host = lab.host("h1").expect("a host");
        let wall = Wall { _lab: lab, host };
        wall.shell(setup);
        Some(wall)
    }

    fn shell(&self, script: &str) -> String {
        let output = in_namespace(&self.host, || Command::new("sh").args(["-ec", script]).output()).expect("entered").expect("a shell");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn ensure(&self, firewall: &mut Firewall) -> Checked {
        self.ensure_for(firewall, Some(&[]))
    }

    /// With the host exposed so.
    fn ensure_for(&self, firewall: &mut Firewall, exposed: Option<&[&str]>) -> Checked {
        let exposed: Option<Vec<IpNet>> = exposed.map(|texts| texts.iter().map(|text| text.parse().expect("an address")).collect());
        in_namespace(&self.host, || firewall.ensure(exposed.as_deref())).expect("entered")
    }

    fn remove(&self, firewall: &mut Firewall) {
        let failures = in_namespace(&self.host, || firewall.remove()).expect("entered");
        assert!(failures.is_empty(), "{failures:?}");
    }

    /// Puts the exception in, sees it where it is wanted, once, then takes it out and finds everything as it was.
    fn goes_in_and_out(&self, list: &str, wanted: &[&str], inserted: &[&str]) {
        let before = self.shell(list);
        let mut firewall = Firewall::new("weave");
        let checked = self.ensure(&mut firewall);
        assert_eq!(checked.inserted, inserted);
        assert_eq!(checked.warnings, [""; 0]);
        let during = self.shell(list);
        for line in wanted {
            assert_eq!(during.lines().filter(|l| l.trim() == *line).count(), 1, "{line} in {during}");
        }
        assert_eq!(self.ensure(&mut firewall), Checked::default(), "the second time there is nothing to do");
        self.remove(&mut firewall);
        assert_eq!(self.shell(list), before);
    }
}

#[test]
fn an_open_firewall_is_left_alone() {
    let Some(wall) = Wall::new(&["iptables-nft", "nft"], "iptables-nft -P FORWARD ACCEPT; nft add table inet mine") else { return };
    assert_eq!(wall.ensure(&mut Firewall::new("weave")), Checked::default());
}

#[test]
fn a_dropping_policy_gets_the_rule_at_the_head_of_forward() {
    let setup = "for t in iptables-nft ip6tables-nft; do $t -P FORWARD DROP; $t -A FORWARD -i other -j ACCEPT; done";
    let Some(wall) = Wall::new(&["iptables-nft", "ip6tables-nft"], setup) else { return };
    let wanted = format!("-A FORWARD {OURS}");
    wall.goes_in_and_out("iptables-nft -S FORWARD", &[&wanted], &["iptables-nft filter FORWARD", "ip6tables-nft filter FORWARD"]);
    wall.goes_in_and_out("ip6tables-nft -S FORWARD", &[&wanted], &["iptables-nft filter FORWARD", "ip6tables-nft filter FORWARD"]);
}

#[test]
fn legacy_tables_are_found_where_they_are_loaded() {
    let Some(wall) = Wall::new(&["iptables-legacy"], "iptables-legacy -P FORWARD DROP") else { return };
    wall.goes_in_and_out("iptables-legacy -S FORWARD", &[&format!("-A FORWARD {OURS}")], &["iptables-legacy filter FORWARD"]);
}

#[test]
fn docker_user_is_preferred() {
    let setup = "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER
        iptables-nft -A DOCKER-USER -j RETURN";
    let Some(wall) = Wall::new(&["iptables-nft"], setup) else { return };
    wall.goes_in_and_out("iptables-nft -S", &[&format!("-A DOCKER-USER {OURS}")], &["iptables-nft filter DOCKER-USER"]);
}

#[test]
fn a_native_chain_that_rejects_gets_the_rule() {
    let setup = "nft 'table inet firewalld { chain rest { reject with icmpx admin-prohibited; }
        chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept; ct state established accept; goto rest; }; }'";
    let Some(wall) = Wall::new(&["nft"], setup) else { return };
    let wanted = "iifname \"weave\" oifname \"weave\" accept comment \"weave-router\"";
    wall.goes_in_and_out("nft list table inet firewalld", &[wanted], &["nft inet firewalld filter_FORWARD"]);
}

#[test]
fn while_nothing_changes_nothing_is_looked_at() {
    let Some(wall) = Wall::new(&["iptables-nft", "nft"], "iptables-nft -P FORWARD DROP") else { return };
    let mut firewall = Firewall::new("weave");
    let state = || in_namespace(&wall.host, generation::generation).expect("entered").expect("the kernel tells");
    let settled = |firewall: &Firewall| firewall.settled.as_ref().map(|(_, state)| *state);
    assert_eq!(wall.ensure(&mut firewall).inserted.len(), 1);
    assert_ne!(settled(&firewall), Some(state()), "the router's own rules are a change as any");
    assert_eq!(wall.ensure(&mut firewall), Checked::default());
    assert_eq!(settled(&firewall), Some(state()));
    assert_eq!((wall.ensure(&mut firewall), settled(&firewall)), (Checked::default(), Some(state())), "it runs none of the programs");
    assert_eq!(wall.ensure_for(&mut firewall, Some(&["10.2.1.1/24"])).inserted.len(), 2, "something else is to pass");
    for change in ["iptables-nft -F FORWARD", "nft flush chain ip filter FORWARD"] {
        wall.shell(change);
        assert_eq!(wall.ensure_for(&mut firewall, Some(&["10.2.1.1/24"])).inserted.len(), 3, "{change}");
    }
}

#[test]
fn a_rule_that_others_removed_or_overtook_is_put_back() {
    let Some(wall) = Wall::new(&["iptables-nft"], "iptables-nft -P FORWARD DROP") else { return };
    let mut firewall = Firewall::new("weave");
    assert_eq!(wall.ensure(&mut firewall).inserted.len(), 1);
    wall.shell("iptables-nft -F FORWARD");
    assert_eq!(wall.ensure(&mut firewall).inserted.len(), 1, "flushed");
    wall.shell("iptables-nft -I FORWARD 1 -p udp -j DROP");
    assert_eq!(wall.ensure(&mut firewall).inserted.len(), 1, "overtaken");
    let rules = wall.shell("iptables-nft -S FORWARD");
    assert_eq!(rules.lines().nth(1), Some(format!("-A FORWARD {OURS}").as_str()), "{rules}");
    assert_eq!(rules.lines().count(), 3, "{rules}");
}

#[test]
fn what_an_earlier_life_left_goes_and_where_nothing_was_found_nothing_is_run() {
    let leave = format!("iptables-nft -P FORWARD ACCEPT; iptables-nft -A FORWARD {OURS}");
    let Some(wall) = Wall::new(&["iptables-nft"], &leave) else { return };
    let mut firewall = Firewall::new("weave");
    assert_eq!(wall.ensure(&mut firewall), Checked::default(), "an open firewall needs nothing");
    wall.remove(&mut firewall);
    assert!(!wall.shell("iptables-nft -S FORWARD").contains(OURS));
    let mut firewall = Firewall::new("weave");
    wall.ensure(&mut firewall);
    // Were the programs run, they would take this out.
    wall.shell(&format!("iptables-nft -A FORWARD {OURS}"));
    wall.remove(&mut firewall);
    assert!(wall.shell("iptables-nft -S FORWARD").contains(OURS), "a stop asks nobody");
}

#[test]
fn a_rule_that_drops_before_docker_is_overtaken() {
    let setup = "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -i weave -j DROP
        iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN";
    let Some(wall) = Wall::new(&["iptables-nft"], setup) else { return };
    wall.goes_in_and_out("iptables-nft -S", &[&format!("-A FORWARD {OURS}")], &["iptables-nft filter FORWARD"]);
    wall.shell(&format!("iptables-nft -D FORWARD -i weave -j DROP; iptables-nft -I DOCKER-USER 1 {OURS}"));
    let mut firewall = Firewall::new("weave");
    assert_eq!(wall.ensure(&mut firewall).inserted, [""; 0], "in Docker's chain it is in effect");
    wall.shell("iptables-nft -I FORWARD 1 -i weave -j DROP");
    assert_eq!(wall.ensure(&mut firewall).inserted, ["iptables-nft filter FORWARD"], "and moves where it is overtaken");
    let rules = wall.shell("iptables-nft -S");
    assert_eq!(rules.matches(OURS).count(), 1, "{rules}");
}

#[test]
fn another_bridge_is_another_rule() {
    let Some(wall) = Wall::new(&["iptables-nft"], "iptables-nft -P FORWARD DROP") else { return };
    let (mut one, mut two) = (Firewall::new("weave"), Firewall::new("weave2"));
    wall.ensure(&mut one);
    wall.ensure(&mut two);
    wall.remove(&mut one);
    let rules = wall.shell("iptables-nft -S FORWARD");
    assert!(!rules.contains(OURS) && rules.contains("-i weave2 -o weave2"), "{rules}");
}

#[test]
fn what_an_exposed_host_routes_gets_rules_of_its_own_that_go_with_its_address() {
    let setup = "for t in iptables-nft ip6tables-nft; do $t -P FORWARD DROP; done
        nft 'table inet mine { chain forward { type filter hook forward priority filter; policy drop; }; }'";
    let Some(wall) = Wall::new(&["iptables-nft", "ip6tables-nft", "nft"], setup) else { return };
    let list = "iptables-nft -S FORWARD; ip6tables-nft -S FORWARD; nft list chain inet mine forward";
    let mut firewall = Firewall::new("weave");
    wall.ensure_for(&mut firewall, Some(&[]));
    let before = wall.shell(list);
    let exposed: &[&str] = &["10.2.1.101/24", "fd00:2::101/64"];
    assert_eq!(wall.ensure_for(&mut firewall, Some(exposed)).inserted.len(), 8);
    let during = wall.shell(list);
    for (subnet, family) in [("10.2.1.0/24", "ip"), ("fd00:2::/64", "ip6")] {
        for line in [
            format!("-A FORWARD -s {subnet} -i weave ! -o weave -m comment --comment weave-router -j ACCEPT"),
            format!(
                "-A FORWARD -d {subnet} ! -i weave -o weave -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment weave-router -j ACCEPT"
            ),
            format!("iifname \"weave\" oifname != \"weave\" {family} saddr {subnet} accept comment \"weave-router out of {subnet}\""),
            format!(
                "iifname != \"weave\" oifname \"weave\" {family} daddr {subnet} ct state established,related accept comment \"weave-router back to {subnet}\""
            ),
        ] {
            assert_eq!(during.lines().filter(|l| l.trim() == line).count(), 1, "{line} in {during}");
        }
    }
    assert_eq!(wall.ensure_for(&mut firewall, Some(exposed)), Checked::default(), "the second time there is nothing to do");
    assert_eq!(wall.ensure_for(&mut Firewall::new("weave"), None), Checked::default(), "nor for one that does not know yet");
    wall.shell("iptables-nft -F FORWARD; nft flush chain inet mine forward");
    let inserted = wall.ensure_for(&mut firewall, Some(exposed)).inserted.len();
    assert!(wall.shell(list) == during && inserted >= 6, "put back: {inserted}");
    wall.ensure_for(&mut firewall, Some(&[]));
    assert_eq!(wall.shell(list), before, "hidden");
    wall.ensure_for(&mut firewall, Some(exposed));
    wall.remove(&mut firewall);
    let after = wall.shell(list);
    assert!(!after.contains("weave"), "{after}");
}

#[test]
fn frames_between_two_containers_pass_a_dropping_host() {
    use crate::host::lab::traffic::{Echo, echo_once};
    let Some(mut lab) = lab_or_skip("wrf") else { return };
    if Command::new("iptables-nft").arg("--version").output().is_err() {
        return eprintln!("skipped: iptables-nft is not installed");
    }
    let host = lab.host("h1").expect("a host");
    if !in_namespace(&host, || bridged_traffic_is_filtered(false)).expect("entered") {
        return eprintln!("skipped: this kernel does not show bridged frames to iptables");
    }
    lab.bridge("h1", "weave", None).expect("a bridge");
    let one = lab.container("h1", "c1", "10.32.0.1/24").expect("a container");
    let two = lab.container("h1", "c2", "10.32.0.2/24").expect("a container");
    let echo = Echo::start(&two.namespace, two.ip).expect("an echo service");
    let passes = || echo_once(&one.namespace, echo.address(), 64, std::time::Duration::from_millis(500)).expect("sent").is_some();
    assert!(crate::host::lab::clock::wait_until(std::time::Duration::from_secs(5), passes), "an open host");
    let wall = Wall { _lab: lab, host };
    wall.shell("iptables-nft -P FORWARD DROP");
    assert!(!passes(), "a dropping host");
    let mut firewall = Firewall::new("weave");
    wall.ensure(&mut firewall);
    assert!(passes(), "with the exception");
    wall.remove(&mut firewall);
    assert!(!passes(), "without it again");
}

#[test]
fn a_missing_program_is_one_sentence() {
    let error = run("no-such-program", &[], "let frames pass", "iptables -I FORWARD").expect_err("there is none");
    let sentence = "could not let frames pass: the program 'no-such-program' is not installed; install it, or accept the traffic yourself: \
        iptables -I FORWARD";
    assert_eq!(error.to_string(), sentence);
}
