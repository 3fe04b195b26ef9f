//! Named counters: what was dropped, refused or repaired is a number with a name, never a log line per packet.

/// Declares a struct of atomic counters with a name and help text each, which `/metrics` and `status` print.
#[macro_export]
macro_rules! counters {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[doc = $doc:literal])+ $field:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $crate::counters::Counter,)+
        }

        impl $name {
            /// Every counter as (name, help, value), in order of declaration.
            pub fn read(&self) -> Vec<$crate::counters::Reading> {
                vec![$($crate::counters::Reading {
                    name: stringify!($field),
                    help: concat!($($doc),+).trim(),
                    value: self.$field.get(),
                },)+]
            }
        }
    };
}

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter: any thread adds, any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter as read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Snake-case name.
    pub name: &'static str,
    /// One sentence for the operator.
    pub help: &'static str,
    /// The count.
    pub value: u64,
}

#[cfg(test)]
mod tests {
    counters! {
        /// Test counters.
        pub struct Few {
            /// How many.
            some,
            /// None of them.
            none,
        }
    }

    #[test]
    fn counters_are_read_in_order() {
        let few = Few::default();
        few.some.add(2);
        few.some.inc();
        let read = few.read();
        assert_eq!((read[0].name, read[0].help, read[0].value), ("some", "How many.", 3));
        assert_eq!((read[1].name, read[1].value), ("none", 0));
    }
}
