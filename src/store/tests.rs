//! The state directory through crashes, damage and a second instance.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([7; 32])
}

fn target(text: &str) -> Target {
    text.parse().expect("a target")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn a_directory_is_made_for_its_owner_alone() {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = temp.path().join("a/b");
    let store = StateDir::open(&dir).expect("opens");
    store.seed(&mut rng()).expect("a seed");
    store.next_incarnation().expect("an incarnation");
    store.set_peers(&[target("h2")]).expect("written");
    assert_eq!(mode(&dir), 0o700);
    for name in [LOCK, SEED, INCARNATION, PEERS] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 4, "no unfinished file stays");
}

#[test]
fn a_seed_stays_and_is_closed_to_others() {
    let temp = tempfile::tempdir().expect("a directory");
    let store = StateDir::open(temp.path()).expect("opens");
    assert!(read_seed(temp.path()).expect("readable").is_none());
    let seed = store.seed(&mut rng()).expect("made");
    fs::set_permissions(temp.path().join(SEED), fs::Permissions::from_mode(0o644)).expect("opened to others");
    assert_eq!(store.seed(&mut ChaCha20Rng::from_seed([8; 32])).expect("read"), seed);
    assert_eq!(mode(&temp.path().join(SEED)), 0o600);
    assert_eq!(read_seed(temp.path()).expect("readable"), Some(seed));
}

#[test]
fn a_damaged_seed_is_refused_and_left_alone() {
    let temp = tempfile::tempdir().expect("a directory");
    let store = StateDir::open(temp.path()).expect("opens");
    for content in [&[1; 31][..], &[1; 33][..], &[][..], &[0; 32][..]] {
        fs::write(temp.path().join(SEED), content).expect("written");
        let e = store.seed(&mut rng()).expect_err("damaged").to_string();
        assert!(e.contains("is damaged") && e.contains("backup"), "{e}");
        assert_eq!(fs::read(temp.path().join(SEED)).expect("there"), content);
    }
}

#[test]
fn incarnations_only_grow() {
    let temp = tempfile::tempdir().expect("a directory");
    let store = StateDir::open(temp.path()).expect("opens");
    assert_eq!(store.next_incarnation().expect("first"), 1);
    assert_eq!(store.next_incarnation().expect("second"), 2);
    drop(store);
    let store = StateDir::open(temp.path()).expect("opens again");
    assert_eq!(store.next_incarnation().expect("third"), 3);
    for bad in ["", "x", "-1", &u64::MAX.to_string()] {
        fs::write(temp.path().join(INCARNATION), bad).expect("written");
        let e = store.next_incarnation().expect_err(bad).to_string();
        assert!(e.contains("is damaged"), "{e}");
    }
}

#[test]
fn peers_are_remembered_and_damage_is_set_aside() {
    let temp = tempfile::tempdir().expect("a directory");
    let store = StateDir::open(temp.path()).expect("opens");
    assert_eq!(store.peers().expect("none yet"), (Vec::new(), None));
    let peers = vec![target("h2:7000"), target("[fd00::2]:6783"), target("fd00::3")];
    store.set_peers(&peers).expect("written");
    assert_eq!(store.peers().expect("read"), (peers, None));
    for damage in ["", "{\"version\":1,\"pee", "{\"version\":2,\"peers\":[]}", "{\"version\":1,\"peers\":[\"a:b:c\"]}"] {
        fs::write(temp.path().join(PEERS), damage).expect("written");
        let (peers, warning) = store.peers().expect("not fatal");
        assert!(peers.is_empty());
        assert!(warning.expect("a warning").contains("is damaged"));
        assert_eq!(fs::read_to_string(temp.path().join("peers.json.damaged")).expect("aside"), damage);
        assert_eq!(store.peers().expect("gone"), (Vec::new(), None));
    }
}

#[test]
fn a_killed_write_leaves_the_old_content() {
    let temp = tempfile::tempdir().expect("a directory");
    let store = StateDir::open(temp.path()).expect("opens");
    store.set_peers(&[target("h2")]).expect("written");
    drop(store);
    let half = temp.path().join(".peers.json.unfinished");
    fs::write(&half, "{\"vers").expect("written");
    let store = StateDir::open(temp.path()).expect("opens");
    assert!(!half.exists());
    assert_eq!(store.peers().expect("old").0, [target("h2")]);
    fs::write(&half, "{\"vers").expect("written");
    store.set_peers(&[target("h3")]).expect("written over it");
    assert_eq!(store.peers().expect("new").0, [target("h3")]);
    assert!(!half.exists());
}

#[test]
fn a_second_instance_is_refused_until_the_first_ends() {
    let temp = tempfile::tempdir().expect("a directory");
    let first = StateDir::open(temp.path()).expect("opens");
    let e = StateDir::open(temp.path()).expect_err("locked").to_string();
    assert!(e.contains(&format!("in use by another weave-router (pid {})", std::process::id())), "{e}");
    drop(first);
    StateDir::open(temp.path()).expect("free again");
}

#[test]
fn what_is_in_the_way_is_named() {
    let temp = tempfile::tempdir().expect("a directory");
    let file = temp.path().join("file");
    fs::write(&file, "").expect("written");
    for dir in [file.clone(), file.join("below")] {
        let e = StateDir::open(&dir).expect_err("no directory").to_string();
        assert!(e.contains("cannot make the state directory") && e.contains("in the way"), "{e}");
    }
}

#[test]
fn a_full_disk_is_a_sentence_and_harms_nothing() {
    let full = StoreError::system("write", Path::new("/x/peers.json"), io::Error::from(io::ErrorKind::StorageFull)).to_string();
    assert!(full.starts_with("cannot write /x/peers.json: ") && full.ends_with("make room on that file system"), "{full}");
    // A directory where the unfinished file should be makes the write fail half way, as a full disk does.
    let temp = tempfile::tempdir().expect("a directory");
    let store = StateDir::open(temp.path()).expect("opens");
    store.set_peers(&[target("h2")]).expect("written");
    fs::create_dir(temp.path().join(".peers.json.unfinished")).expect("made");
    assert!(store.set_peers(&[target("h3")]).is_err());
    assert_eq!(store.peers().expect("old").0, [target("h2")]);
}
