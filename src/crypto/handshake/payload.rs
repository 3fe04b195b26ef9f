//! What travels inside handshake messages: a list of TLVs (type 1 byte, length 2, value), unknown types skipped.
//!
//! Type 0 ends the list; whatever follows it is padding.

use super::HandshakeError;
use crate::crypto::identity::PublicIdentity;
use crate::crypto::kem;
use crate::crypto::suite::{self, Suite, SuiteTiming};
use crate::wire::header::{MAX_INDEX, MAX_LANE};

/// Bytes of a nickname that are sent; a longer one is cut.
pub const MAX_NICKNAME: usize = 64;

const END: u8 = 0;
const IDENTITY: u8 = 1;
const STAMP: u8 = 2;
const INDEX: u8 = 3;
const VERSIONS: u8 = 4;
const FEATURES: u8 = 5;
const SUITES: u8 = 6;
const LANES: u8 = 7;
const PLAIN: u8 = 8;
const NICKNAME: u8 = 9;
const PSK_HINT: u8 = 10;
const KEM_KEY: u8 = 11;
const KEM_TEXT: u8 = 12;

/// The bit of [`Offer::features`] that says: this router can do hybrid handshakes.
pub const HYBRID: u32 = 1;

/// When a handshake was started, in the order of its sender's handshakes. An initiator's stamps must increase, or an old
/// message could be replayed; answers cannot be replayed, so theirs only tell the incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Grows with every start of the router.
    pub incarnation: u64,
    /// Grows with every handshake of that run.
    pub counter: u64,
}

/// What one end can do and wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Lowest protocol version spoken.
    pub version_min: u8,
    /// Highest protocol version spoken.
    pub version_max: u8,
    /// Bits of optional features; both ends use what both have.
    pub features: u32,
    /// Allowed suites with what they cost here.
    pub suites: Vec<SuiteTiming>,
    /// Highest lane, 0 to 15: the number of packet threads.
    pub lanes: u8,
    /// True to run without encryption; both ends must want it.
    pub plain: bool,
    /// What the operator calls this router.
    pub nickname: Option<String>,
}

/// What two offers come to.
pub(super) struct Agreed {
    pub(super) version: u8,
    pub(super) suite: Suite,
    pub(super) lanes: u8,
    pub(super) plain: bool,
}

impl Offer {
    /// Both ends compute the same from the two offers.
    pub(super) fn agree(&self, theirs: &Offer) -> Result<Agreed, HandshakeError> {
        let version = self.common_version((theirs.version_min, theirs.version_max))?;
        if self.plain != theirs.plain {
            return Err(HandshakeError::Plain);
        }
        let suite = suite::choose(&self.suites, &theirs.suites).ok_or(HandshakeError::NoCipher)?;
        Ok(Agreed { version, suite, lanes: self.lanes.min(theirs.lanes).min(MAX_LANE), plain: self.plain })
    }

    /// The highest version that both ends speak.
    pub(super) fn common_version(&self, (theirs_min, theirs_max): (u8, u8)) -> Result<u8, HandshakeError> {
        let (ours_min, ours_max) = (self.version_min, self.version_max);
        let version = ours_max.min(theirs_max);
        if version < ours_min.max(theirs_min) {
            return Err(HandshakeError::Version { ours_min, ours_max, theirs_min, theirs_max });
        }
        Ok(version)
    }
}

/// The TLVs of one message; which ones it must hold depends on the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) identity: Option<PublicIdentity>,
    pub(super) stamp: Option<Stamp>,
    pub(super) index: Option<u32>,
    pub(super) versions: Option<(u8, u8)>,
    pub(super) features: u32,
    pub(super) suites: Vec<SuiteTiming>,
    pub(super) lanes: u8,
    pub(super) plain: bool,
    pub(super) nickname: Option<String>,
    pub(super) psk_hint: Option<[u8; 2]>,
    pub(super) kem_key: Option<kem::Key>,
    pub(super) kem_text: Option<kem::Ciphertext>,
}

impl Payload {
    /// A payload that carries `offer`.
    pub(super) fn offering(offer: &Offer) -> Payload {
        Payload {
            versions: Some((offer.version_min, offer.version_max)),
            features: offer.features,
            suites: offer.suites.clone(),
            lanes: offer.lanes,
            plain: offer.plain,
            nickname: offer.nickname.as_deref().and_then(clean_nickname),
            ..Payload::default()
        }
    }

    /// The offer it carries.
    pub(super) fn offer(&self) -> Result<Offer, HandshakeError> {
        let (version_min, version_max) = self.versions.ok_or(HandshakeError::Malformed("it names no protocol versions"))?;
        Ok(Offer {
            version_min,
            version_max,
            features: self.features,
            suites: self.suites.clone(),
            lanes: self.lanes,
            plain: self.plain,
            nickname: self.nickname.clone(),
        })
    }

    /// The wire form, padded with zeros to `pad_to` bytes.
    pub(super) fn to_bytes(&self, pad_to: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(pad_to.max(512));
        if let Some(identity) = &self.identity {
            put(&mut out, IDENTITY, &identity.to_bytes());
        }
        if let Some(stamp) = self.stamp {
            put(&mut out, STAMP, &[stamp.incarnation.to_be_bytes(), stamp.counter.to_be_bytes()].concat());
        }
        if let Some(index) = self.index {
            put(&mut out, INDEX, &index.to_be_bytes()[1..]);
        }
        if let Some((min, max)) = self.versions {
            put(&mut out, VERSIONS, &[min, max]);
        }
        if self.features != 0 {
            put(&mut out, FEATURES, &self.features.to_be_bytes());
        }
        if !self.suites.is_empty() {
            let list: Vec<u8> = self.suites.iter().flat_map(suite_bytes).collect();
            put(&mut out, SUITES, &list);
        }
        if self.lanes != 0 {
            put(&mut out, LANES, &[self.lanes]);
        }
        if self.plain {
            put(&mut out, PLAIN, &[1]);
        }
        if let Some(nickname) = &self.nickname {
            put(&mut out, NICKNAME, nickname.as_bytes());
        }
        if let Some(hint) = &self.psk_hint {
            put(&mut out, PSK_HINT, hint);
        }
        if let Some(key) = &self.kem_key {
            put(&mut out, KEM_KEY, &key[..]);
        }
        if let Some(text) = &self.kem_text {
            put(&mut out, KEM_TEXT, &text[..]);
        }
        if out.len() < pad_to {
            out.resize(pad_to, END);
        }
        out
    }

    /// Parses the wire form.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Payload, HandshakeError> {
        let mut payload = Payload::default();
        while let Some((kind, rest)) = bytes.split_first() {
            if *kind == END {
                break;
            }
            let (value, rest) = take_value(rest).ok_or(HandshakeError::Malformed("a field runs past its end"))?;
            payload.read_field(*kind, value).ok_or(HandshakeError::Malformed("a field has the wrong length or value"))?;
            bytes = rest;
        }
        Ok(payload)
    }

    fn read_field(&mut self, kind: u8, value: &[u8]) -> Option<()> {
        match kind {
            IDENTITY => self.identity = Some(PublicIdentity::from_bytes(value)?),
            STAMP => {
                let (incarnation, counter) = value.split_first_chunk()?;
                let (incarnation, counter) = (u64::from_be_bytes(*incarnation), u64::from_be_bytes(counter.try_into().ok()?));
                self.stamp = Some(Stamp { incarnation, counter });
            }
            INDEX => {
                let [a, b, c] = value.try_into().ok()?;
                // Index 0 means "none yet" in headers, so nobody may ask to be called that.
                self.index = Some(u32::from_be_bytes([0, a, b, c])).filter(|index| *index != 0);
                self.index?;
            }
            VERSIONS => {
                let [min, max] = value.try_into().ok()?;
                self.versions = Some((min, max));
            }
            FEATURES => self.features = u32::from_be_bytes(value.try_into().ok()?),
            SUITES => self.suites = parse_suites(value)?,
            LANES => {
                let [lanes] = value.try_into().ok()?;
                self.lanes = lanes;
            }
            PLAIN => {
                let [plain] = value.try_into().ok()?;
                self.plain = plain != 0;
            }
            NICKNAME => self.nickname = std::str::from_utf8(value).ok().and_then(clean_nickname),
            PSK_HINT => self.psk_hint = Some(value.try_into().ok()?),
            KEM_KEY => self.kem_key = Some(Box::<[u8]>::from(value).try_into().ok()?),
            KEM_TEXT => self.kem_text = Some(Box::<[u8]>::from(value).try_into().ok()?),
            _ => {}
        }
        Some(())
    }
}

/// Parses a payload and what it offers, for fuzzing: behind the encryption no random bytes get here.
pub(in crate::crypto) fn parse_for_fuzzing(bytes: &[u8]) {
    if let Ok(payload) = Payload::parse(bytes) {
        let again = Payload::parse(&payload.to_bytes(0));
        assert_eq!(again.as_ref(), Ok(&payload), "a payload survives being written and read");
        if let Ok(offer) = payload.offer() {
            // The outcome does not matter, only that there is one.
            let _ = offer.agree(&offer);
        }
    }
}

fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("fields are short");
    out.push(kind);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(value);
}

fn take_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

fn suite_bytes(timing: &SuiteTiming) -> [u8; 5] {
    let [a, b, c, d] = timing.nanoseconds.to_be_bytes();
    [timing.suite as u8, a, b, c, d]
}

/// Suites of a later version are left out: we could not use them.
fn parse_suites(value: &[u8]) -> Option<Vec<SuiteTiming>> {
    let (entries, rest) = value.as_chunks::<5>();
    let known = entries.iter().filter_map(|[id, a, b, c, d]| {
        Suite::from_id(*id).map(|suite| SuiteTiming { suite, nanoseconds: u32::from_be_bytes([*a, *b, *c, *d]) })
    });
    rest.is_empty().then(|| known.collect())
}

/// A nickname fit for a terminal: without control characters, cut to its longest. `None` where nothing is left.
fn clean_nickname(text: &str) -> Option<String> {
    let mut clean = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if clean.len() + c.len_utf8() > MAX_NICKNAME {
            break;
        }
        clean.push(c);
    }
    (!clean.is_empty()).then_some(clean)
}

/// True for an index that fits the header and is not "none yet".
pub(super) fn is_index(index: u32) -> bool {
    (1..=MAX_INDEX).contains(&index)
}
