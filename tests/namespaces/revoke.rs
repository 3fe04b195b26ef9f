//! `revoke`: a member that is put out of the mesh by its administrator, for good.

use std::path::PathBuf;

use weave_router::crypto::Identity;
use weave_router::host::lab::Router;

use crate::common::wait_until;
use crate::scene::{PATIENCE, Setting, connected_pair, connections, is_silent, lines, scene};

#[track_caller]
fn call(router: &Router, words: &[&str]) {
    let output = router.client(words).expect("the client runs");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file that goes with the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_revoked_member_loses_its_link_and_does_not_come_back_after_restarts() {
    scene(|lab| {
        let file = Scratch(std::env::temp_dir().join(format!("weave-admin-{}", lab.namespace("x"))));
        std::fs::write(&file.0, "07".repeat(32)).expect("written");
        let path = file.0.to_str().expect("UTF-8").to_string();
        let admin = Identity::from_seed(&[7; 32]).public().key.to_string();
        let options = ["--admin", &admin];
        let mut pair = connected_pair(lab, &Setting { first: &options, second: &options, ..Setting::default() });
        let wrong = pair.r1.client(&["revoke", "nobody", "--admin-key", &path]).expect("the client runs");
        assert_eq!(wrong.status.code(), Some(1));
        call(&pair.r1, &["revoke", "h2", "--admin-key", &path]);
        wait_until(PATIENCE, "the link is gone", || connections(&pair.r1, "established").is_empty());
        wait_until(PATIENCE, "the member is told why", || !lines(&pair.r2, "was revoked there").is_empty());
        let status = pair.r1.status("").expect("an answer");
        assert_eq!(status["revoked"][0]["by"], "admin", "{status}");
        pair.r1.stop().expect("stopped");
        pair.r1.restart().expect("started");
        wait_until(PATIENCE, "it tries and is refused", || {
            pair.r1.status("connections").is_some_and(|rows| rows.to_string().contains("revoked by the administrator"))
        });
        assert!(connections(&pair.r1, "established").is_empty());
        assert!(is_silent(lab, "c1", pair.c2.ip), "nothing passes");
    });
}
