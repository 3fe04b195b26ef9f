//! Names as programs in containers ask for them: through the resolvers of glibc and of musl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use weave_router::host::lab::Lab;

use crate::dns::{SERVER, becomes, resolv_conf, route, verb};
use crate::scene::{Pair, Setting, connected_pair, scene};

/// Two hosts, of which the second has names, and what a container on the first has in `/etc/resolv.conf`.
fn named_pair(lab: &mut Lab) -> (Pair, PathBuf) {
    let pair = connected_pair(lab, &Setting::default());
    route(lab, "c1");
    verb(&pair.r2, "dns-add 10.32.0.2 fd00:32::2 --hostname web");
    becomes(lab, "h1", "web.weave.local", &["10.32.0.2"]);
    let conf = resolv_conf(lab, &[SERVER]);
    fs::write(&conf, format!("nameserver {SERVER}\nsearch weave.local\noptions timeout:2 attempts:1\n")).expect("a file");
    (pair, conf)
}

/// Runs a program in the container with that file; what it printed.
fn run(lab: &Lab, conf: &Path, program: &str) -> String {
    let script = format!("mount --bind {} /etc/resolv.conf; {program}", conf.display());
    let output = lab.exec("c1", "unshare", &["-m", "sh", "-ec", &script]).expect("unshare is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn dns_serves_the_resolver_of_glibc() {
    scene(|lab| {
        let (_pair, conf) = named_pair(lab);
        let resolve = |how: &str| run(lab, &conf, &format!("getent {how}"));
        for name in ["web", "WEB.weave.local", "web.weave.local."] {
            assert!(resolve(&format!("ahostsv4 {name}")).starts_with("10.32.0.2 "), "{name}");
            assert!(resolve(&format!("ahostsv6 {name}")).starts_with("fd00:32::2 "), "{name}");
        }
        assert!(resolve("hosts 10.32.0.2").contains("web.weave.local"));
        assert_eq!(resolve("ahosts nobody"), "");
        fs::remove_file(&conf).expect("it is there");
    });
}

/// The addresses of a name; with a second argument the name of an address.
const PROGRAM: &str = r#"
#include <netdb.h>
#include <stdio.h>
int main(int count, char **words) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = count > 2 ? AI_NUMERICHOST : 0 }, *all;
    if (getaddrinfo(words[1], 0, &hints, &all)) return puts("unknown"), 1;
    for (; all; all = all->ai_next) {
        char text[256];
        int error = getnameinfo(all->ai_addr, all->ai_addrlen, text, sizeof text, 0, 0, count > 2 ? NI_NAMEREQD : NI_NUMERICHOST);
        puts(error ? "nameless" : text);
    }
}
"#;

#[test]
fn dns_serves_the_resolver_of_musl() {
    scene(|lab| {
        let (pair, conf) = named_pair(lab);
        let file = |name: &str| std::env::temp_dir().join(format!("{}{name}", lab.namespace("")));
        let (source, program) = (file("resolve.c"), file("resolve"));
        fs::write(&source, PROGRAM).expect("a file");
        let compiled =
            Command::new("musl-gcc").args(["-static", "-o"]).args([&program, &source]).output().expect("musl-tools is installed");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let resolve = |words: &str| -> Vec<String> {
            let said = run(lab, &conf, &format!("{} {words}", program.display()));
            let mut lines: Vec<String> = said.lines().map(String::from).collect();
            lines.sort_unstable();
            lines
        };
        for name in ["web", "WEB.weave.local", "web.weave.local."] {
            assert_eq!(resolve(name), ["10.32.0.2", "fd00:32::2"], "{name}");
        }
        assert_eq!(
            (resolve("10.32.0.2 name"), resolve("fd00:32::2 name")),
            (vec!["web.weave.local".into()], vec!["web.weave.local".into()])
        );
        assert_eq!((resolve("nobody"), resolve("10.32.0.99 name")), (vec!["unknown".to_string()], vec!["nameless".to_string()]));
        // It knows neither EDNS nor, before 1.2.4, TCP: what fits a datagram is better than nothing.
        let many: Vec<String> = (1..=50).map(|n| format!("10.32.1.{n}")).collect();
        verb(&pair.r1, &format!("dns-add {} --hostname many", many.join(" ")));
        let found = resolve("many");
        assert!(found.len() > 20 && found.iter().all(|address| many.contains(address)), "{found:?}");
        [&conf, &source, &program].into_iter().for_each(|file| fs::remove_file(file).expect("it is there"));
    });
}
