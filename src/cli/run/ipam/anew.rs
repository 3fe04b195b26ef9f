//! A router that was reset may begin as a new one when it is started again: with no ring, no vote and no addresses, so that it takes another range, or
//! founds the ring anew with others that were reset as well.
//!
//! It does so where nobody could take what it owned, where `--force` said so, or where the ring is not the one that its options speak of. Else it stays a
//! member that owns nothing, which never takes part in a second agreement beside the first. Whatever it does as a member, or others do with it, after the
//! reset takes it back: nothing is lost that came later.

use super::db::Table;
use super::{Change, Ipam};
use crate::ipam::Phase;
use crate::wire::PeerName;

/// Where the mark stands.
const MARK: &str = "reset";
/// Stands for the number of entries of a ring of which this router owns nothing.
const NOTHING: u64 = u64::MAX;

/// What the mark says: forced 1, entries of the ring 8, addresses given 8.
#[derive(Clone, Copy)]
struct Mark {
    forced: bool,
    /// How many entries the ring had, where this router owned something that nobody took.
    entries: u64,
    given: u64,
}

impl Mark {
    fn to_bytes(self) -> Vec<u8> {
        [&[u8::from(self.forced)][..], &self.entries.to_be_bytes(), &self.given.to_be_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Option<Mark> {
        let (forced, rest) = bytes.split_first()?;
        let (entries, given) = rest.split_first_chunk::<8>()?;
        Some(Mark { forced: *forced == 1, entries: u64::from_be_bytes(*entries), given: u64::from_be_bytes(given.try_into().ok()?) })
    }
}

/// The mark of a reset that succeeded.
pub fn mark(ipam: &Ipam, own: PeerName, forced: bool) -> Change {
    let entries = ipam.ring().filter(|ring| ring.owners().contains(&own)).map_or(NOTHING, |ring| ring.len() as u64);
    let mark = Mark { forced, entries, given: ipam.addresses().len() as u64 };
    (Table::Ipam, MARK.into(), Some(mark.to_bytes()))
}

/// Takes the mark back.
pub fn unmark() -> Change {
    (Table::Ipam, MARK.into(), None)
}

/// The mark on disk.
pub fn find(rows: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    rows.iter().find(|(key, _)| key == MARK).map(|(_, value)| value.clone())
}

/// True for a router that is to begin anew.
pub fn is_due(mark: &[u8], ipam: &Ipam, own: PeerName) -> bool {
    let Some(mark) = Mark::read(mark) else { return false };
    let wanted = mark.forced || mark.entries != NOTHING || ipam.status().phase == Phase::Refused;
    // Others may have handed their space over since.
    let untouched = ipam.ring().is_none_or(|ring| match mark.entries {
        NOTHING => !ring.owners().contains(&own),
        entries => entries == ring.len() as u64,
    });
    wanted && untouched && ipam.addresses().len() as u64 <= mark.given
}

/// All rows of the address book go.
pub fn all_gone(ring: &[(String, Vec<u8>)], addresses: &[(String, Vec<u8>)]) -> Vec<Change> {
    let of = |table: Table, rows: &[(String, Vec<u8>)]| rows.iter().map(|(key, _)| (table, key.clone(), None)).collect::<Vec<Change>>();
    [of(Table::Ipam, ring), of(Table::Addresses, addresses)].concat()
}
