//! Randomness: the only place in the crate that asks the operating system for it.

use std::io;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use zeroize::Zeroizing;

use super::sys::random;

/// A generator with a seed of its own from the kernel. Threads get one each.
pub fn generator() -> io::Result<ChaCha20Rng> {
    let mut seed = Zeroizing::new([0; 32]);
    random::fill(&mut *seed)?;
    Ok(ChaCha20Rng::from_seed(*seed))
}

#[cfg(test)]
mod tests {
    use rand_core::Rng;

    use super::*;

    #[test]
    fn generators_differ() {
        let mut a = generator().expect("the kernel has randomness");
        let mut b = generator().expect("the kernel has randomness");
        assert_ne!([a.next_u64(), a.next_u64()], [b.next_u64(), b.next_u64()]);
    }
}
