//! What tests with real routers in network namespaces need; the tools themselves are in `weave_router::host::lab`.

use std::path::Path;
use std::time::Duration;

use weave_router::host::HostError;
use weave_router::host::lab::clock::{self, Stopwatch};
use weave_router::host::lab::{Lab, Router};

/// A wait of this length is told: `--nocapture` shows where the time of a test goes.
const WORTH_TELLING: Duration = Duration::from_millis(500);

/// A laboratory of one's own, after all other tests have given theirs back: they would disturb each other's timing. Without root it answers
/// `None` and says why; in continuous integration it fails instead, since there a skipped test is a hole.
#[expect(clippy::disallowed_methods, reason = "a test asks whether it runs in continuous integration")]
pub fn laboratory() -> Option<Lab> {
    Lab::sweep("wrt");
    match Lab::exclusive("wrt") {
        Ok(lab) => Some(lab),
        Err(HostError::Permission { attempted }) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: root is needed to {attempted}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The program under test, running on a host of the laboratory and answering.
#[track_caller]
pub fn router(lab: &Lab, host: &str, arguments: &[&str]) -> Router {
    Router::up(lab, host, Path::new(env!("CARGO_BIN_EXE_weave-router")), arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until the closure says yes; fails the test with `what` when it does not in time.
#[track_caller]
pub fn wait_until(patience: Duration, what: &str, asked: impl FnMut() -> bool) {
    let clock = Stopwatch::start();
    assert!(clock::wait_until(patience, asked), "not within {patience:?}: {what}");
    let took = clock.elapsed();
    if took >= WORTH_TELLING {
        println!("{:.1} s until: {what}", took.as_secs_f64());
    }
}
