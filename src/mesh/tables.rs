//! How much the mesh plane remembers: every table that grows with what others say or do.

use super::core::Mesh;

impl Mesh {
    /// The tables by name, each with the number of its entries.
    pub fn tables(&self) -> [(&'static str, usize); 20] {
        let kept = self.answers.count() + self.partials.count();
        [
            ("adjacencies", self.adjacencies.len()),
            ("answers", kept),
            ("attempts", self.attempts.len()),
            ("activities", self.activities.len()),
            ("challenges", self.challenges.values().map(Vec::len).sum()),
            ("held", self.apps.held()),
            ("members", self.members.len()),
            ("narrow", self.narrow.len()),
            ("observed", self.observed.len()),
            ("proofs", self.answered_at.len()),
            ("psk_next", self.psk_next.len()),
            ("record_bytes", self.store.stored_bytes()),
            ("refusals", self.refusals.len() + self.told.len()),
            ("relay_budgets", self.relay_budget.len()),
            ("requests", self.store.requests()),
            ("searches", self.ways.searches.len()),
            ("sessions", self.indices.len()),
            ("targets", self.targets.count()),
            ("traces", self.ways.traces.remembered()),
            ("waiting", self.apps.waiting()),
        ]
    }
}
