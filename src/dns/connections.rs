//! Who may hold TCP connections: so many at once, and each caller a share of them, so that no one caller keeps the others out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections at once; more are closed.
pub const MOST: usize = 256;
/// Connections of one address at once: an eighth of all, and more than any resolver opens.
pub const MOST_OF_ONE: usize = 32;

/// The connections that there are, by the address of the caller.
#[derive(Debug, Default)]
pub struct Connections(Mutex<BTreeMap<IpAddr, usize>>);

/// Leave to hold one connection, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    connections: Arc<Connections>,
    caller: IpAddr,
}

impl Connections {
    /// Takes a connection in; `None` where there are too many, of all callers or of this one.
    pub fn admit(self: &Arc<Connections>, caller: IpAddr) -> Option<Seat> {
        // One caller is the same over both families.
        let caller = caller.to_canonical();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (held.values().sum::<usize>(), held.get(&caller).copied().unwrap_or(0));
        if all >= MOST || own >= MOST_OF_ONE {
            return None;
        }
        held.insert(caller, own + 1);
        Some(Seat { connections: Arc::clone(self), caller })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.caller) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(held.remove(&self.caller)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(last: usize) -> IpAddr {
        IpAddr::from([10, 32, 0, u8::try_from(last).expect("a small number")])
    }

    #[test]
    fn one_caller_has_its_share_and_all_have_theirs() {
        let connections = Arc::<Connections>::default();
        let greedy: Vec<Seat> = std::iter::from_fn(|| connections.admit(caller(1))).collect();
        assert_eq!(greedy.len(), MOST_OF_ONE);
        assert!(connections.admit("::ffff:10.32.0.1".parse().expect("an address")).is_none(), "it is the same caller");
        let others: Vec<Seat> = (2..).map_while(|last| connections.admit(caller(2 + last % 100))).collect();
        assert_eq!(greedy.len() + others.len(), MOST, "the rest is left to others");
        assert!(connections.admit(caller(250)).is_none());
        drop(greedy);
        assert!(connections.admit(caller(1)).is_some() && connections.admit(caller(250)).is_some());
        drop(others);
        assert!(connections.0.lock().expect("nobody panicked").is_empty(), "nothing is kept of callers that are gone");
    }
}
