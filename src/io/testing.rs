//! Network namespaces for tests: a thread of the test moves into a new one, and the namespace is gone when the thread is.

use std::thread;

use super::sys::{link, netns};

/// Runs `test` on a thread in a network namespace of its own, with loopback up. Without the privilege to make one the test is
/// skipped aloud, except where `CI` is set: there it fails.
pub fn in_own_namespace(name: &str, test: impl FnOnce() + Send + 'static) {
    let run = thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(error) = netns::unshare() {
            assert!(!is_ci(), "a network namespace is needed: {error}");
            eprintln!("SKIPPED: cannot make a network namespace ({error}); run the tests as root");
            return;
        }
        link::set_up("lo", true).expect("loopback can be set up");
        test();
    });
    if let Err(panic) = run.expect("a thread").join() {
        std::panic::resume_unwind(panic);
    }
}

#[expect(clippy::disallowed_methods, reason = "CI is declared by the CI, not by our command line")]
fn is_ci() -> bool {
    std::env::var_os("CI").is_some()
}
