//! One keyed AEAD, its context built once: seals and opens datagrams in place without an allocation.

use super::suite::Suite;
use crate::wire::TAG_LEN;

/// Bytes of a key, in both suites.
pub const KEY_LEN: usize = 32;
/// Bytes of associated data: the clear header.
const AAD_LEN: usize = crate::wire::HEADER_LEN;

/// A keyed AEAD. The key's bytes live only inside the library's context, which wipes them when it is dropped.
pub enum AeadKey {
    /// AES-256-GCM by aws-lc.
    #[cfg(feature = "aws-lc")]
    Aes256Gcm(aws_lc_rs::aead::LessSafeKey),
    /// ChaCha20-Poly1305 by aws-lc.
    #[cfg(feature = "aws-lc")]
    ChaCha20Poly1305(aws_lc_rs::aead::LessSafeKey),
    /// ChaCha20-Poly1305 in pure Rust, for builds without C and assembly.
    #[cfg(not(feature = "aws-lc"))]
    ChaCha20Poly1305(Box<chacha20poly1305::ChaCha20Poly1305>),
}

/// The tag does not match: the datagram was not sealed with this key, nonce and header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

/// The nonce of a counter: eight zero bytes and the counter. Unique because a key serves one lane in one direction,
/// where no counter is used twice.
fn nonce(counter: u32) -> [u8; 12] {
    let [a, b, c, d] = counter.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

#[cfg(feature = "aws-lc")]
impl AeadKey {
    /// A key for `suite`; `None` where this build lacks the suite.
    pub fn new(suite: Suite, key: &[u8; KEY_LEN]) -> Option<AeadKey> {
        use aws_lc_rs::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
        let bound = |algorithm| UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new);
        match suite {
            Suite::Aes256Gcm => bound(&AES_256_GCM).map(AeadKey::Aes256Gcm),
            Suite::ChaCha20Poly1305 => bound(&CHACHA20_POLY1305).map(AeadKey::ChaCha20Poly1305),
        }
    }

    /// Seals in place: `body` is the plaintext followed by 16 bytes of room for the tag.
    pub fn seal_in_place(&self, counter: u32, aad: &[u8; AAD_LEN], body: &mut [u8]) {
        use aws_lc_rs::aead::{Aad, Nonce};
        let (AeadKey::Aes256Gcm(key) | AeadKey::ChaCha20Poly1305(key)) = self;
        let (text, room) = split_tag(body);
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce(counter)), Aad::from(aad), text)
            .expect("a datagram is far below the AEAD's length limit");
        room.copy_from_slice(tag.as_ref());
    }

    /// Opens in place: `body` is ciphertext and tag, the plaintext inside it is returned. What `body` holds after a
    /// failure is undefined.
    pub fn open_in_place<'a>(&self, counter: u32, aad: &[u8; AAD_LEN], body: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        use aws_lc_rs::aead::{Aad, Nonce};
        let (AeadKey::Aes256Gcm(key) | AeadKey::ChaCha20Poly1305(key)) = self;
        key.open_in_place(Nonce::assume_unique_for_key(nonce(counter)), Aad::from(aad), body).map_err(|_| Forged)
    }
}

#[cfg(not(feature = "aws-lc"))]
impl AeadKey {
    /// A key for `suite`; `None` where this build lacks the suite.
    pub fn new(suite: Suite, key: &[u8; KEY_LEN]) -> Option<AeadKey> {
        use chacha20poly1305::KeyInit;
        match suite {
            Suite::Aes256Gcm => None,
            Suite::ChaCha20Poly1305 => Some(AeadKey::ChaCha20Poly1305(Box::new(chacha20poly1305::ChaCha20Poly1305::new(&(*key).into())))),
        }
    }

    /// Seals in place: `body` is the plaintext followed by 16 bytes of room for the tag.
    pub fn seal_in_place(&self, counter: u32, aad: &[u8; AAD_LEN], body: &mut [u8]) {
        use chacha20poly1305::AeadInOut;
        let AeadKey::ChaCha20Poly1305(key) = self;
        let (text, room) = split_tag(body);
        let tag =
            key.encrypt_inout_detached(&nonce(counter).into(), aad, text.into()).expect("a datagram is far below the AEAD's length limit");
        room.copy_from_slice(&tag);
    }

    /// Opens in place: `body` is ciphertext and tag, the plaintext inside it is returned. What `body` holds after a
    /// failure is undefined.
    pub fn open_in_place<'a>(&self, counter: u32, aad: &[u8; AAD_LEN], body: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        use chacha20poly1305::AeadInOut;
        let AeadKey::ChaCha20Poly1305(key) = self;
        let at = body.len().checked_sub(TAG_LEN).ok_or(Forged)?;
        let (text, tag) = body.split_at_mut(at);
        let tag: [u8; TAG_LEN] = tag.try_into().map_err(|_| Forged)?;
        key.decrypt_inout_detached(&nonce(counter).into(), aad, (&mut *text).into(), &tag.into()).map_err(|_| Forged)?;
        Ok(text)
    }
}

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey")
    }
}

/// Splits a body to be sealed into plaintext and the tag's room.
fn split_tag(body: &mut [u8]) -> (&mut [u8], &mut [u8]) {
    let at = body.len().checked_sub(TAG_LEN).expect("the caller leaves room for the tag");
    body.split_at_mut(at)
}

/// A key of `suite` to time it with; worthless for anything else. `None` where this build lacks the suite.
pub fn sample_key(suite: Suite) -> Option<AeadKey> {
    AeadKey::new(suite, &[0x5a; KEY_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_independent_implementation() {
        use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
        for (len, counter) in [(0usize, 0u32), (1, 1), (63, 0xffff), (64, 7), (1424, u32::MAX)] {
            let key = [len as u8; KEY_LEN];
            let aad = [counter as u8; AAD_LEN];
            let plaintext: Vec<u8> = (0..len).map(|i| i as u8).collect();

            let mut ours = plaintext.clone();
            ours.extend_from_slice(&[0; TAG_LEN]);
            AeadKey::new(Suite::ChaCha20Poly1305, &key).expect("in every build").seal_in_place(counter, &aad, &mut ours);

            let mut theirs = plaintext.clone();
            let tag = ChaCha20Poly1305::new(&key.into())
                .encrypt_inout_detached(&nonce(counter).into(), &aad, theirs.as_mut_slice().into())
                .expect("sealed");
            theirs.extend_from_slice(&tag);
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        for suite in Suite::available() {
            let key = sample_key(*suite).expect("available");
            let mut sealed = *b"sixteen and more0123456789abcdef";
            key.seal_in_place(9, &[1; AAD_LEN], &mut sealed);
            assert_eq!(key.open_in_place(9, &[1; AAD_LEN], &mut { sealed }).as_deref(), Ok(&b"sixteen and more"[..]));
            assert_eq!(key.open_in_place(8, &[1; AAD_LEN], &mut { sealed }), Err(Forged));
            assert_eq!(key.open_in_place(9, &[2; AAD_LEN], &mut { sealed }), Err(Forged));
            for at in 0..sealed.len() {
                let mut bent = sealed;
                bent[at] ^= 0x40;
                assert_eq!(key.open_in_place(9, &[1; AAD_LEN], &mut bent), Err(Forged), "byte {at}");
            }
            for short in 0..TAG_LEN {
                assert_eq!(key.open_in_place(9, &[1; AAD_LEN], &mut { sealed }[..short]), Err(Forged));
            }
        }
    }
}
