//! What an address book counts.

crate::counters! {
    /// Counters of the address book.
    pub struct Counters {
        /// Messages and records of other routers that are malformed.
        malformed,
        /// Entries of the ring taken in from others.
        entries_merged,
        /// Entries of the ring refused: forged, of no owner, of no part of what they name.
        entries_refused,
        /// Entries of the ring refused because their author has put in as many as one router may.
        entries_over_budget,
        /// Entries of the ring that came before those that they name, and are asked for again.
        entries_early,
        /// Routers met whose ring was founded apart from ours.
        foreign_mesh,
        /// Routers met that give addresses of another range.
        other_range,
        /// Containers' addresses given up because they belong to another router.
        gave_way,
        /// Changes that the disk did not take at once.
        not_persisted,
        /// Messages to other routers dropped because the disk did not take what they rest on.
        messages_dropped,
        /// Blocks of addresses given to other routers.
        blocks_given,
        /// Requests of other routers for space that were denied.
        asks_denied,
        /// Requests of other routers for space that were denied because they were given addresses very often before.
        asks_over_budget,
        /// Requests that ended without an address.
        requests_refused,
    }
}
