//! The house rules that the compiler does not check: floors, file length, where unsafe and the operating system may appear.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules by floor, lowest first. A module may use its own floor and those below.
const FLOORS: [&[&str]; 3] = [
    &["time", "counters", "wire", "crypto"],
    &["forward", "mesh", "ipam", "names", "sim"],
    &["io", "host", "api", "dns", "docker", "cni", "store", "cli"],
];

/// What only the top floor may touch, with the reason.
const OPERATING_SYSTEM: [(&str, &str); 11] = [
    ("Instant", "time is an argument"),
    ("SystemTime", "wall time is never used"),
    ("std::fs", "files belong to store/"),
    ("std::env", "options belong to cli/"),
    ("std::process", "processes belong to the top floor"),
    ("UdpSocket", "sockets belong to io/"),
    ("TcpStream", "sockets belong to io/ and api/"),
    ("OsRng", "randomness is an argument"),
    ("SysRng", "randomness is an argument"),
    ("getrandom", "randomness is an argument"),
    ("RandomState", "hash maps get an injected key"),
];

fn source_files() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).expect("a readable source folder") {
            let path = entry.expect("a folder entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs::read_to_string(&path).expect("a readable source file");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "the source folder was not found");
    found
}

/// The top-level module a file belongs to, and its floor; `None` for lib.rs and main.rs.
fn place(path: &Path) -> Option<(String, usize)> {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("a path below src");
    let first = inside.components().next()?.as_os_str().to_str()?;
    let module = first.trim_end_matches(".rs");
    if matches!(first, "lib.rs" | "main.rs") {
        return None;
    }
    Some((module.to_string(), floor_of(module).unwrap_or_else(|| panic!("{module} stands on no floor; name it in tests/floors.rs"))))
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Names of the crate's own modules that a line refers to by `crate::…`, also inside braces.
fn crate_uses(line: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split(',').map(|item| word(item.trim()))),
            None => found.push(word(rest)),
        }
    }
    found
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in source_files() {
        let Some((module, floor)) = place(&path) else { continue };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for used in crate_uses(line) {
                seen += 1;
                if floor_of(&used).is_some_and(|other| other > floor) {
                    wrong.push(format!("{}:{}: {module} may not know {used}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} imports were seen: the check looks at nothing");
    assert!(wrong.is_empty(), "imports that point up:\n{}", wrong.join("\n"));
}

#[test]
fn lower_floors_know_no_operating_system() {
    let mut wrong = Vec::new();
    for (path, text) in source_files() {
        if place(&path).is_none_or(|(_, floor)| floor == 2) {
            continue;
        }
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for (word, why) in OPERATING_SYSTEM.iter().filter(|(word, _)| line.contains(word)) {
                wrong.push(format!("{}:{}: {word}: {why}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "below the top floor:\n{}", wrong.join("\n"));
}

#[test]
fn files_end_before_line_500() {
    let long: Vec<String> = source_files()
        .iter()
        .filter(|(_, text)| text.lines().count() >= 500)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "split these by meaning:\n{}", long.join("\n"));
}

#[test]
fn unsafe_lives_in_one_folder() {
    let wrong: Vec<String> = source_files()
        .iter()
        .filter(|(path, text)| !path.to_string_lossy().contains("/src/io/sys/") && text.contains("allow(unsafe_code)"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "unsafe code is allowed outside io/sys:\n{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_imports() {
    assert_eq!(crate_uses("use crate::{wire::Header, io, forward::Fib};"), ["wire", "io", "forward"]);
    assert_eq!(crate_uses("let x = crate::io::clock::now();"), ["io"]);
}
