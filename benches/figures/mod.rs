//! Figures with a bar beside each, as the benches of the container network print them.

use std::process::ExitCode;

/// What a figure must keep; what is infinite binds nothing.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The median is at least so much.
    pub median_least: f64,
    /// The median is at most so much.
    pub median_most: f64,
    /// None is more than so much.
    pub all_most: f64,
}

impl Limit {
    /// Holds always.
    pub const NONE: Limit = Limit { median_least: f64::NEG_INFINITY, median_most: f64::INFINITY, all_most: f64::INFINITY };

    fn in_words(&self) -> String {
        let all = [("median at least", self.median_least), ("median at most", self.median_most), ("all at most", self.all_most)];
        let bars = all.iter().filter(|(_, bar)| bar.is_finite());
        bars.map(|(what, bar)| format!("{what} {bar}")).collect::<Vec<_>>().join(", ")
    }
}

/// The bars of one bench, as they are held against what was measured.
#[derive(Debug)]
pub struct Figures {
    met: bool,
}

/// True where the bench is to take a moment only, as in CI.
pub fn is_quick() -> bool {
    std::env::args().any(|arg| arg == "--quick" || arg == "--test")
}

impl Figures {
    /// No bar was missed yet.
    pub fn new() -> Figures {
        Figures { met: true }
    }

    /// Says what was measured, and whether it keeps its bar.
    pub fn hold(&mut self, what: &str, unit: &str, limit: Limit, mut samples: Vec<f64>) {
        samples.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (samples.first(), samples.last()) else { panic!("{what}: nothing was measured") };
        let median = samples[samples.len() / 2];
        let met = median >= limit.median_least && median <= limit.median_most && *most <= limit.all_most;
        let verdict = if met { "met" } else { "FALLS SHORT" };
        let bar = Some(limit.in_words()).filter(|words| !words.is_empty()).map(|words| format!("; bar: {words}: {verdict}"));
        let (count, bar) = (samples.len(), bar.unwrap_or_default());
        println!("{what:<58} {median:>9.1} {unit:<9} ({count} from {least:.1} to {most:.1}){bar}");
        self.met &= met;
    }

    /// Exit status 1 where a bar was missed and `--check` asks for that.
    pub fn end(self) -> ExitCode {
        let check = std::env::args().any(|arg| arg == "--check");
        if self.met || !check { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
