//! Passwords, stretched once at start into the pre-shared keys of the handshake.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Passwords that may be in use at once, so that a network changes its password host by host.
pub const MAX_PSKS: usize = 4;
/// Argon2id's memory in KiB, passes and lanes: OWASP's first recommendation, some 20 ms once at start.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// What the salt of a network's passwords is hashed with.
const SALT_LABEL: &[u8] = b"weave-router password salt v1";
/// What the key of a network without a password is hashed with.
const NONE_LABEL: &[u8] = b"weave-router no password v1";
/// What a hint is keyed with beside the key.
const HINT_LABEL: &[u8] = b"weave-router psk hint v1";

/// A 32-byte pre-shared key.
#[derive(Clone)]
pub struct Psk {
    key: Zeroizing<[u8; 32]>,
    secret: bool,
}

/// Why a password yields no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PskError {
    /// An empty password.
    #[error("cannot use an empty password: leave --password out to run without one")]
    Empty,
    /// More passwords than may be in use at once.
    #[error("cannot use {0} passwords: at most {MAX_PSKS} may be in use at once, so drop the oldest")]
    TooMany(usize),
    /// Argon2 refused, for want of memory or because the password is too long.
    #[error("cannot derive a key from the password: {0}")]
    Derive(String),
}

impl Psk {
    /// The key of `password` in `network`, by Argon2id.
    pub fn derive(password: &str, network: &str) -> Result<Psk, PskError> {
        if password.is_empty() {
            return Err(PskError::Empty);
        }
        let (memory, passes, lanes) = COST;
        let salt: [u8; 32] = Sha256::new().chain_update(SALT_LABEL).chain_update(network).finalize().into();
        let mut key = Zeroizing::new([0; 32]);
        Params::new(memory, passes, lanes, Some(key.len()))
            .and_then(|params| {
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(password.as_bytes(), &salt, &mut *key)
            })
            .map_err(|error| PskError::Derive(error.to_string()))?;
        Ok(Psk { key, secret: true })
    }

    /// The key of `network` without a password: known to everybody, it only keeps two networks apart.
    pub fn none(network: &str) -> Psk {
        let key: [u8; 32] = Sha256::new().chain_update(NONE_LABEL).chain_update(network).finalize().into();
        Psk { key: Zeroizing::new(key), secret: false }
    }

    /// A key that was derived elsewhere, as simulations do to spare Argon2's cost.
    pub fn from_key(key: [u8; 32]) -> Psk {
        Psk { key: Zeroizing::new(key), secret: true }
    }

    /// True if it takes a password to know this key.
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Sixteen bits by which somebody who has this key tells it from his others. `salt` makes it another one in every
    /// handshake; being so short it confirms no guess of a password.
    pub(super) fn hint(&self, salt: &[u8]) -> [u8; 2] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.key).expect("HMAC takes keys of any length");
        mac.update(HINT_LABEL);
        mac.update(salt);
        let tag: [u8; 32] = mac.finalize().into_bytes().into();
        [tag[0], tag[1]]
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secret { "Psk(secret)" } else { "Psk(none)" })
    }
}

/// The keys in use, newest first; never empty.
#[derive(Clone, Debug)]
pub struct Psks(Vec<Psk>);

impl Psks {
    /// The keys of `passwords`, newest first; with none of them the network's open key alone.
    pub fn from_passwords<P: AsRef<str>>(passwords: &[P], network: &str) -> Result<Psks, PskError> {
        if passwords.is_empty() {
            return Ok(Psks::none(network));
        }
        if passwords.len() > MAX_PSKS {
            return Err(PskError::TooMany(passwords.len()));
        }
        passwords.iter().map(|password| Psk::derive(password.as_ref(), network)).collect::<Result<_, _>>().map(Psks)
    }

    /// The keys of a network without a password.
    pub fn none(network: &str) -> Psks {
        Psks(vec![Psk::none(network)])
    }

    /// Keys derived elsewhere: `first` is the newest.
    pub fn new(first: Psk, others: Vec<Psk>) -> Result<Psks, PskError> {
        let mut all = vec![first];
        all.extend(others);
        if all.len() > MAX_PSKS { Err(PskError::TooMany(all.len())) } else { Ok(Psks(all)) }
    }

    /// How many there are, 1 to 4.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The key at `index`, 0 being the newest.
    pub fn get(&self, index: usize) -> Option<&Psk> {
        self.0.get(index)
    }

    /// All keys, newest first.
    pub fn iter(&self) -> std::slice::Iter<'_, Psk> {
        self.0.iter()
    }

    /// The key that `hint` means, with its index.
    pub(super) fn by_hint(&self, salt: &[u8], hint: [u8; 2]) -> Option<(usize, &Psk)> {
        self.0.iter().enumerate().find(|(_, psk)| psk.hint(salt) == hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_salted_with_the_network() {
        let key = |password, network| *Psk::derive(password, network).expect("derived").key();
        let golden = key("correct horse", "weave");
        assert_eq!(
            golden.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "7bbafe7802d59a51500c5b1f6e1db10b165160ccaa2e0b3e6fd9ce987a96a09b"
        );
        assert_ne!(key("correct horse", "other"), golden);
        assert_ne!(key("correct horsf", "weave"), golden);
    }

    #[test]
    fn no_password_is_no_secret() {
        assert!(!Psk::none("weave").is_secret());
        assert_ne!(Psk::none("weave").key(), Psk::none("other").key());
        assert_eq!(format!("{:?}", Psk::from_key([7; 32])), "Psk(secret)");
        let none: &[&str] = &[];
        assert!(!Psks::from_passwords(none, "weave").expect("the open key").get(0).expect("one").is_secret());
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        assert_eq!(Psk::derive("", "weave").err(), Some(PskError::Empty));
        assert_eq!(Psks::from_passwords(&["a"; 5], "weave").err(), Some(PskError::TooMany(5)));
        assert_eq!(Psks::new(Psk::none("a"), vec![Psk::none("b"); 4]).err(), Some(PskError::TooMany(5)));
    }

    #[test]
    fn hints_find_their_key() {
        let psks = Psks::new(Psk::from_key([1; 32]), vec![Psk::from_key([2; 32])]).expect("two");
        let hint = psks.get(1).expect("two").hint(b"salt");
        assert_eq!(psks.by_hint(b"salt", hint).map(|(index, _)| index), Some(1));
        assert!(psks.by_hint(b"pepper", hint).is_none());
    }
}
