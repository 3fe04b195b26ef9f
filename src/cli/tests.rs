//! The contract of the command line: what scripts may write, and what it means.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::CommandFactory;

use super::options::{Cipher, Topology, What, WithVerb, WithoutVerb};
use super::*;
use crate::io::offload::OffloadPolicy;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn call(line: &str) -> Call {
    try_call(line).unwrap_or_else(|e| panic!("{line}: {e:?}"))
}

fn try_call(line: &str) -> Result<Call, ParseError> {
    let args = std::iter::once("weave-router").chain(line.split_whitespace()).map(OsString::from).collect();
    parse(args, "myhost")
}

fn config(line: &str) -> RunConfig {
    match call(line).action {
        Action::Run(config) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    match try_call(line) {
        Err(ParseError::Config(ConfigError::Usage(sentence))) => sentence,
        Err(ParseError::Clap(e)) if e.exit_code() == 2 => e.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

fn peers(line: &str) -> Vec<String> {
    config(line).peers.iter().map(ToString::to_string).collect()
}

#[test]
fn clap_finds_no_fault() {
    WithVerb::command().debug_assert();
    WithoutVerb::command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_contract() {
    let c = config("");
    assert_eq!((c.port, c.bridge.as_str(), c.tap.as_str(), c.mtu), (6783, "weave", "weave-tap", None));
    assert_eq!((c.network.as_str(), c.nickname.as_str()), ("weave", "myhost"));
    assert_eq!(c.state_dir.to_str(), Some("/var/lib/weave-router"));
    assert_eq!(c.api.to_string(), "unix:/run/weave-router/api.sock");
    assert_eq!(c.status_addr.map(|a| a.to_string()).as_deref(), Some("127.0.0.1:6782"));
    assert_eq!((c.cipher, c.offload, c.conn_limit), (Cipher::Auto, OffloadPolicy::Auto, 16));
    assert_eq!((c.threads, c.busy_poll), (None, Duration::from_micros(100)));
    assert!(c.encryption && c.discovery && c.forwarding && !c.open && !c.authenticated());
    assert!(c.peers.is_empty() && c.bind.is_empty() && c.allow.is_empty() && c.passwords.is_empty());
}

#[test]
fn run_may_be_left_out_and_options_stand_on_both_sides() {
    for line in
        ["--peer a --port 7", "run --peer a --port 7", "launch --peer a --port 7", "--peer a run --port 7", "--port=7 --peer=a launch"]
    {
        let c = config(line);
        assert_eq!((c.port, peers(line)), (7, vec!["a".to_string()]), "{line}");
    }
    assert_eq!(peers("--peer a run --peer b c"), ["a", "b", "c"]);
    assert_eq!(peers("launch a b:7 [fd00::2]:7 a"), ["a", "b:7", "[fd00::2]:7"]);
    assert_eq!(peers("run a --peer b"), ["b", "a"]);
    assert_eq!(peers("--peer run"), ["run"], "the value of an option is no verb");
    assert_eq!(peers("--open run --no-discovery a"), ["a"]);
    assert!(refused("10.0.0.1").contains("--peer"));
    assert!(refused("nonsense").contains("unrecognized"));
    assert!(refused("--port 1 run --port 2").contains("cannot be used multiple times"));
}

#[test]
fn global_options_stand_before_or_after_a_verb() {
    for line in ["--api /a.sock status", "status --api /a.sock", "status connections --json --api /a.sock", "--api=/a.sock run"] {
        assert_eq!(call(line).global.api.to_string(), "unix:/a.sock", "{line}");
    }
    for line in ["--log-level debug --log-format json report", "report --log-format json --log-level debug"] {
        let global = call(line).global;
        assert_eq!((global.log_level, global.log_format), (options::LogLevel::Debug, options::LogFormat::Json));
    }
    assert!(refused("--peer a status").contains("--peer"));
    assert!(refused("status --port 7").contains("--port"));
    assert!(refused("--api 10.0.0.1:6784 status").contains("loopback"));
}

#[test]
fn verbs_and_their_arguments() {
    for (line, what, json) in [
        ("status", None, false),
        ("status --json", None, true),
        ("status macs", Some(What::Macs), false),
        ("status --json peers", Some(What::Peers), true),
    ] {
        assert!(matches!(call(line).action, Action::Status(a) if (a.what, a.json) == (what, json)), "{line}");
    }
    assert!(matches!(call("connect a b:7").action, Action::Connect(t) if t.len() == 2));
    assert!(matches!(call("forget a").action, Action::Forget(t) if t.len() == 1));
    assert!(matches!(call("report").action, Action::Report));
    assert!(matches!(call("version").action, Action::Version));
    assert!(matches!(call("systemd-unit").action, Action::SystemdUnit));
    assert!(matches!(call("show-key --state-dir /x").action, Action::ShowKey(a) if a.state_dir.to_str() == Some("/x")));
    let demo = |hosts, topology, seconds| DemoArgs { hosts, topology, seconds };
    assert!(matches!(call("demo").action, Action::Demo(a) if a == demo(3, Topology::Line, None)));
    assert!(
        matches!(call("demo --hosts 5 --topology full --seconds 10").action, Action::Demo(a) if a == demo(5, Topology::Full, Some(10)))
    );
    for bad in [
        "status bogus",
        "connect",
        "connect a:b:c",
        "forget -x",
        "demo --hosts 1",
        "demo --topology ring --hosts 2",
        "demo --topology mesh",
    ] {
        refused(bad);
    }
}

#[test]
fn values_are_checked() {
    for (line, word) in [
        ("--peer a:b:c", "is not a peer"),
        ("--peer a,b", "is not a peer"),
        ("--port 0", "--port"),
        ("--port 65536", "--port"),
        ("--bind eth0", "IP address"),
        ("--bind 10.0.0.1:6783", "--port"),
        ("--bind 224.0.0.1", "multicast"),
        ("--bridge a234567890123456", "15 bytes"),
        ("--bridge a/b", "printable"),
        ("--tap weave%d", "'%'"),
        ("--tap ..", "taken"),
        ("--tcp-listen 10.0.0.1", "IP:PORT"),
        ("--advertise host.example", "IP:PORT"),
        ("--advertise 127.0.0.1", "loopback"),
        ("--peer udp://a:1", "tcp://"),
        ("--tap weave", "different names"),
        ("--mtu 575", "576..=65521"),
        ("--mtu 65522", "576..=65521"),
        ("--status-addr localhost", "IP:PORT"),
        ("--status-addr 127.0.0.1:0", "IP:PORT"),
        ("--allow 0011", "64 hexadecimal digits"),
        ("--cipher des", "aes256gcm"),
        ("--conn-limit 0", "1..=4096"),
        ("--relay-limit 100", "100mbit"),
        ("--relay-limit 1kbit", "--allow-forwarding=no"),
        ("--offload on", "auto"),
        ("--offload no-tso,no-tos", "'no-tos'"),
        ("--threads 0", "1..=15"),
        ("--threads 16", "1..=15"),
        ("--busy-poll 1001", "1000"),
        ("--fastdp", "--trusted-subnets"),
        ("--trusted-subnets 10.0.0.0", "ADDRESS/BITS"),
        ("--fastdp --no-encryption --fastdp-port 6783", "different ports"),
        ("--busy-poll always", "microseconds"),
        ("--dns-domain a..b", "--dns-domain"),
        ("--dns-listen 0.0.0.0", "single addresses"),
        ("--dns-ttl 86401", "0..=86400"),
        ("--dns-fallback-timeout 0", "1..=60"),
        ("dns-add 10.0.0.1", "--hostname"),
        ("dns-remove", "say what is to go"),
        ("--api tcp:1", "unix:/PATH"),
    ] {
        let sentence = refused(line);
        assert!(sentence.contains(word), "{line}: {sentence}");
    }
    for (option, value) in [("--network", ""), ("--network", " "), ("--nickname", "a\nb"), ("--bridge", "")] {
        let args = ["weave-router", option, value].map(OsString::from).to_vec();
        assert!(matches!(parse(args, "h"), Err(ParseError::Config(ConfigError::Usage(_)))), "{option} {value:?}");
    }
    let long = format!("--network {}", "n".repeat(65));
    assert!(refused(&long).contains("64 bytes"));
}

#[test]
fn values_that_are_good() {
    let line = format!(
        "--bind 10.0.0.1 --bind [fd00::1] --bind 10.0.0.1 --bridge br0 --tap t0 --mtu 65521 --network n --nickname me --state-dir s \
         --allow {KEY} --allow {} --open --cipher aes256gcm --no-encryption --password p --conn-limit 4096 --no-discovery --offload off --busy-poll 50 \
         --threads 15",
        KEY.to_uppercase()
    );
    let c = config(&line);
    assert_eq!(c.bind, ["10.0.0.1".parse::<std::net::IpAddr>().expect("v4"), "fd00::1".parse().expect("v6")]);
    assert_eq!((c.mtu, c.allow.len(), c.conn_limit), (Some(65521), 1, 4096));
    assert_eq!((c.allow[0][0], c.allow[0][31]), (0x00, 0xff));
    assert!(c.open && !c.encryption && !c.discovery && c.authenticated());
    assert_eq!((c.cipher, c.offload), (Cipher::Aes256Gcm, OffloadPolicy::Off));
    assert_eq!((c.threads, c.busy_poll), (Some(15), Duration::from_micros(50)));
    assert!(c.tcp_listen.is_empty());
    let tcp = config("--tcp-listen 443 --tcp-listen 10.0.0.1:8443 --peer tcp://a:443 --peer a");
    assert_eq!(tcp.tcp_listen, [(None, 443), (Some("10.0.0.1".parse::<std::net::IpAddr>().expect("v4")), 8443)]);
    assert!(tcp.peers.iter().any(|peer| peer.tcp && peer.port == Some(443)) && tcp.peers.iter().any(|peer| !peer.tcp));
    let told = config("--port 7 --advertise 203.0.113.5 --advertise [2001:db8::1]:8 --advertise 203.0.113.5:7").advertise;
    assert_eq!(told.iter().map(|told| told.socket_addr().to_string()).collect::<Vec<_>>(), ["203.0.113.5:7", "[2001:db8::1]:8"]);
    assert!(c.advertise.is_empty() && c.fastdp.is_none());
    let fast = config("--fastdp --no-encryption").fastdp.expect("a fast datapath");
    assert_eq!((fast.port, fast.policy.trusted.len()), (6784, 0));
    assert_eq!(config("--trusted-subnets 10.0.0.0/8").trusted.len(), 1);
    let fast = config("--fastdp --trusted-subnets 10.0.0.0/8,fd00::/8 --trusted-subnets 10.0.0.0/8 --fastdp-port 7000").fastdp;
    assert_eq!(fast.map(|fast| (fast.port, fast.policy.trusted.len())), Some((7000, 2)));
    assert_eq!(config("--status-addr=").status_addr, None);
    assert_eq!(["no", "yes", ""].map(|word| config(&format!("--allow-forwarding={word}")).forwarding), [false, true, true]);
    assert_eq!(
        ["", "--relay-limit off", "--relay-limit 2mbit"].map(|line| config(line).relay_limit.per_thread(2)),
        [2_500_000_000, 2_500_000_000, 125_000]
    );
    assert_eq!(config("--offload no-tso,no-gro").offload.to_string(), "no-tso,no-gro");
    assert_eq!(config("--cipher chacha20poly1305").cipher, Cipher::ChaCha20Poly1305);
}

#[test]
fn passwords_are_ordered_trimmed_and_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        format!("--password-file {}", path.display())
    };
    let (new, old, two) = (file("new", "new\n"), file("old", "old\r\n"), file("two", "a\nb\n"));
    let c = config(&format!("{new} {old} --password newest {new}"));
    let passwords: Vec<&[u8]> = c.passwords.iter().map(Password::as_bytes).collect();
    assert_eq!(passwords, [&b"newest"[..], b"new", b"old"]);
    assert!(!format!("{c:?}").contains("newest"), "a password is never printed");
    let failed = |line: String| match try_call(&line) {
        Err(ParseError::Config(ConfigError::Failure(sentence))) => sentence,
        other => panic!("{line}: {other:?}"),
    };
    assert!(failed(file("empty", "\n")).contains("is empty"));
    assert!(failed(two).contains("more than one line"));
    assert!(failed(file("long", &"x".repeat(2000))).contains("longer than 1024"));
    assert!(failed(format!("--password-file {}/none", dir.path().display())).contains("cannot read the password file"));
    let more: Vec<String> = (0..5).map(|i| file(&format!("f{i}"), &format!("p{i}"))).collect();
    assert!(refused(&more.join(" ")).contains("at most 4"));
    assert!(refused("--password=").contains("is empty"));
}

#[test]
fn whether_classic_keys_will_do_and_who_may_revoke() {
    use crate::crypto::Classic;
    assert_eq!((config("").classic, config("").admins.len()), (Classic::Refused, 0));
    assert_eq!(config("--classic-ok").classic, Classic::Accepted);
    assert_eq!(config("--classic-only").classic, Classic::Only);
    assert!(refused("--classic-ok --classic-only").contains("cannot be used"));
    let key = "a5".repeat(32);
    assert_eq!(config(&format!("--admin {key} --admin {key}")).admins, [[0xa5; 32]]);
    assert!(refused("--admin a5").contains("--admin a5"));
    assert!(matches!(call("revoke h1 h2 --admin-key f").action, Action::Revoke(args) if args.peers.len() == 2 && args.admin_key.is_some()));
    assert!(refused("revoke").contains("NAME"));
}

#[test]
fn every_option_has_a_variable_and_says_its_default() {
    let mut seen = BTreeSet::new();
    let root = WithoutVerb::command();
    let commands: Vec<&clap::Command> = std::iter::once(&root).chain(root.get_subcommands()).collect();
    for arg in commands.iter().flat_map(|c| c.get_arguments()) {
        let Some(long) = arg.get_long() else { continue };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let env = arg.get_env().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
        // Docker's own variable is what its users set.
        assert!(env.starts_with("WEAVE_") || env == "DOCKER_HOST", "--{long} has no variable");
        assert!(!arg.get_default_values().is_empty() && arg.get_action().takes_values() || help.contains("[default: "), "--{long}: {help}");
        seen.insert(long.to_string());
    }
    let contract = [
        "peer port bind tcp-listen bridge tap mtu network nickname state-dir api status-addr password-file password allow open cipher cipher-library",
        "no-encryption fastdp fastdp-port trusted-subnets isolate conn-limit no-discovery offload ack-filter threads busy-poll log-level log-format",
        "advertise relay-limit classic-ok admin admin-key no-dns dns-domain dns-listen dns-ttl dns-fallback-timeout resolv-conf hostname",
    ];
    for option in contract.iter().flat_map(|group| group.split_whitespace()) {
        assert!(seen.contains(option), "--{option} is missing");
    }
    let password = root.get_arguments().find(|a| a.get_long() == Some("password")).expect("--password");
    assert!(password.is_hide_env_values_set());
}
