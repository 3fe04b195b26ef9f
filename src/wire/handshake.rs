//! What follows the clear header in handshake, reject and retry datagrams.
//!
//! ```text
//!  handshake   0..6         6             7     8..11         [11..27]   ..
//!              source name  index|count   type  sender index  token      noise message (or this fragment of it)
//!  reject      0
//!              reason
//!  retry       0..16
//!              token
//! ```
//!
//! The upper half of byte 6 is the number of this fragment and the lower one how many there are: 0x01 for a message that fits one
//! datagram, 0x02 and 0x12 for the first two messages of a hybrid handshake. Each fragment repeats source, type, index and token. The top bit of the type says that a retry token precedes the message. None of this is
//! authenticated: it only finds the handshake that a message belongs to. The header's receiver index is 0 in first
//! messages and the other end's sender index after that.

use std::fmt;

use super::{HEADER_LEN, PeerName};

/// Bytes before the noise message where there is no token.
pub const PREFIX_LEN: usize = 11;
/// Bytes of a retry token.
pub const TOKEN_LEN: usize = 16;
/// Bytes of a message that one datagram takes: with the headers it fits the 1232 bytes that every IPv6 path carries.
pub const FRAGMENT_LEN: usize = 1232 - HEADER_LEN - PREFIX_LEN - TOKEN_LEN;

/// The bit of the type byte that announces a token.
const TOKEN_BIT: u8 = 0x80;

/// Which message of which handshake pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// First contact, initiator's opening.
    XxOne = 1,
    /// First contact, responder's answer.
    XxTwo = 2,
    /// First contact, initiator's proof.
    XxThree = 3,
    /// Known peer, initiator's opening.
    IkOne = 4,
    /// Known peer, responder's answer.
    IkTwo = 5,
    /// A reject body, for an initiator whose message came through relays.
    Reject = 6,
    /// A retry body, for an initiator whose message came through relays.
    Retry = 7,
}

impl Type {
    /// Every type, in order of its number.
    pub const ALL: [Type; 7] = [Type::XxOne, Type::XxTwo, Type::XxThree, Type::IkOne, Type::IkTwo, Type::Reject, Type::Retry];

    /// The type with this number.
    pub fn from_number(number: u8) -> Option<Type> {
        Type::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// True for the messages that start a handshake.
    pub fn is_first(self) -> bool {
        matches!(self, Type::XxOne | Type::IkOne)
    }
}

/// The body of a handshake datagram, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake<'a> {
    /// The router that sent it, as it says.
    pub source: PeerName,
    /// Number of this fragment, below `fragments`.
    pub fragment: u8,
    /// How many fragments the message has, 1 to 15.
    pub fragments: u8,
    /// Which message it is.
    pub kind: Type,
    /// The index by which the sender wants to be answered, 24 bits.
    pub sender_index: u32,
    /// The token of an initiator that was asked to retry.
    pub token: Option<[u8; TOKEN_LEN]>,
    /// The noise message, or this fragment of it.
    pub message: &'a [u8],
}

impl<'a> Handshake<'a> {
    /// An unfragmented message without a token.
    pub fn whole(source: PeerName, kind: Type, sender_index: u32, message: &'a [u8]) -> Handshake<'a> {
        Handshake { source, fragment: 0, fragments: 1, kind, sender_index, token: None, message }
    }

    /// A message in as many fragments, equally long, as it takes.
    pub fn cut(self) -> impl Iterator<Item = Handshake<'a>> {
        let fragments = self.message.len().div_ceil(FRAGMENT_LEN).clamp(1, 15);
        let size = self.message.len().div_ceil(fragments);
        (0..fragments).map(move |n| {
            let (start, end) = (n * size, (n * size + size).min(self.message.len()));
            let mut part = self;
            (part.fragment, part.fragments) = (n as u8, fragments as u8);
            part.message = self.message.get(start..end).unwrap_or(&[]);
            part
        })
    }

    /// Parses what follows the clear header; `None` where it is malformed.
    pub fn parse(body: &'a [u8]) -> Option<Handshake<'a>> {
        let (source, rest) = body.split_first_chunk::<6>()?;
        let ([part, kind, a, b, c], rest) = rest.split_first_chunk::<5>()?;
        let (fragment, fragments) = (part >> 4, part & 0x0f);
        if fragment >= fragments {
            return None;
        }
        let (token, message) = if kind & TOKEN_BIT == 0 {
            (None, rest)
        } else {
            let (token, rest) = rest.split_first_chunk::<TOKEN_LEN>()?;
            (Some(*token), rest)
        };
        Some(Handshake {
            source: PeerName(*source),
            fragment,
            fragments,
            kind: Type::from_number(kind & !TOKEN_BIT)?,
            sender_index: u32::from_be_bytes([0, *a, *b, *c]),
            token,
            message,
        })
    }

    /// Appends the body to `datagram`, which holds the clear header.
    pub fn write(&self, datagram: &mut Vec<u8>) {
        let [_, a, b, c] = self.sender_index.to_be_bytes();
        let token_bit = if self.token.is_some() { TOKEN_BIT } else { 0 };
        datagram.extend_from_slice(&self.source.0);
        datagram.extend_from_slice(&[self.fragment << 4 | self.fragments & 0x0f, self.kind as u8 | token_bit, a, b, c]);
        if let Some(token) = &self.token {
            datagram.extend_from_slice(token);
        }
        datagram.extend_from_slice(self.message);
    }
}

/// Why a handshake was refused, as told to the other end. Unauthenticated: good for a log line and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reject {
    /// None of the reasons below, or one that this version does not know.
    Other = 0,
    /// No password in common.
    Password = 1,
    /// Another network, or a message that was changed on the way.
    Network = 2,
    /// No protocol version in common.
    Version = 3,
    /// Only one end runs with `--no-encryption`.
    Plain = 4,
    /// No cipher in common.
    Cipher = 5,
    /// The sender's handshake key is not certified by its key.
    Certificate = 6,
    /// The sender is the receiver.
    OwnKey = 7,
    /// The sender's key is not among those allowed.
    NotAllowed = 8,
    /// The receiver takes no more links.
    Full = 9,
    /// A different router with the same name is known.
    NameClash = 10,
    /// The sender is unauthenticated and its address is not private.
    Unauthenticated = 11,
    /// Incarnation and counter were used before.
    Stale = 12,
    /// The sender's keys rest on X25519 alone.
    Classic = 13,
    /// The receiver can do nothing but that.
    Hybrid = 14,
    /// The sender's key was revoked.
    Revoked = 15,
}

impl Reject {
    /// Every reason, in order of its number.
    pub const ALL: [Reject; 16] = [
        Reject::Other,
        Reject::Password,
        Reject::Network,
        Reject::Version,
        Reject::Plain,
        Reject::Cipher,
        Reject::Certificate,
        Reject::OwnKey,
        Reject::NotAllowed,
        Reject::Full,
        Reject::NameClash,
        Reject::Unauthenticated,
        Reject::Stale,
        Reject::Classic,
        Reject::Hybrid,
        Reject::Revoked,
    ];

    /// Parses a reject body; reasons of later versions are [`Reject::Other`]. `None` for an empty body.
    pub fn parse(body: &[u8]) -> Option<Reject> {
        let reason = *body.first()?;
        Some(Reject::ALL.into_iter().find(|known| *known as u8 == reason).unwrap_or(Reject::Other))
    }

    /// The reject body.
    pub fn to_bytes(self) -> [u8; 1] {
        [self as u8]
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reject::Other => "it gave no reason that this version knows: compare the versions of both routers",
            Reject::Password => "it uses another password: start both routers with the same --password",
            Reject::Network => "it could not read the message: start both routers with the same --network",
            Reject::Version => "it speaks another protocol version: upgrade the older router",
            Reject::Plain => "only one of the two runs with --no-encryption: start both with it or both without",
            Reject::Cipher => "it has no cipher in common with this router: compare --cipher on both",
            Reject::Certificate => "it could not verify this router's certificate",
            Reject::OwnKey => "it has the same key as this router: give each host its own state directory",
            Reject::NotAllowed => "it does not allow this router's key: add it there with --allow",
            Reject::Full => "it takes no more links",
            Reject::NameClash => "it knows a different router with the same name: give one of them a new identity",
            Reject::Unauthenticated => "it takes unauthenticated links from private addresses only: set a --password on both",
            Reject::Stale => "it has seen a later handshake of this router: the state directory may be an old copy",
            Reject::Classic => {
                "it wants post-quantum keys too, which this router does not speak: upgrade this one, or start the other with --classic-ok"
            }
            Reject::Hybrid => "it speaks X25519 only: upgrade it, or accept such routers here with --classic-ok",
            Reject::Revoked => "this router's key was revoked there: give this router a new identity, if it may come back",
        })
    }
}

/// Parses a retry body.
pub fn parse_retry(body: &[u8]) -> Option<[u8; TOKEN_LEN]> {
    body.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bodies() {
        let mut body = Vec::new();
        let plain = Handshake::whole(PeerName([0x7a, 0x3c, 1, 2, 3, 4]), Type::XxOne, 0x00ab_cdef, b"noise");
        plain.write(&mut body);
        assert_eq!(body, b"\x7a\x3c\x01\x02\x03\x04\x01\x01\xab\xcd\xefnoise");
        assert_eq!(Handshake::parse(&body), Some(plain));

        body.clear();
        let token = Handshake { fragment: 1, fragments: 3, kind: Type::IkOne, token: Some([0x55; TOKEN_LEN]), ..plain };
        token.write(&mut body);
        assert_eq!(body, b"\x7a\x3c\x01\x02\x03\x04\x13\x84\xab\xcd\xefUUUUUUUUUUUUUUUUnoise");
        assert_eq!(Handshake::parse(&body), Some(token));
    }

    #[test]
    fn messages_are_cut_into_equal_parts_that_every_path_carries() {
        let bytes: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
        for (len, sizes) in
            [(0, &[0][..]), (400, &[400]), (FRAGMENT_LEN, &[1189]), (1190, &[595, 595]), (1601, &[801, 800]), (3000, &[1000; 3])]
        {
            let whole = Handshake { token: Some([9; 16]), ..Handshake::whole(PeerName([2; 6]), Type::XxOne, 7, &bytes[..len]) };
            let parts: Vec<Handshake<'_>> = whole.cut().collect();
            assert_eq!(parts.iter().map(|part| part.message.len()).collect::<Vec<_>>(), sizes);
            assert_eq!(parts.iter().flat_map(|part| part.message.to_vec()).collect::<Vec<_>>(), bytes[..len]);
            for (n, part) in parts.iter().enumerate() {
                let mut body = Vec::new();
                part.write(&mut body);
                assert!(HEADER_LEN + body.len() <= 1232);
                assert_eq!(body[6], (n as u8) << 4 | parts.len() as u8);
                assert_eq!(Handshake::parse(&body).as_ref(), Some(part));
            }
        }
    }

    #[test]
    fn refuses_what_is_malformed() {
        let mut good = Vec::new();
        Handshake::whole(PeerName([2; 6]), Type::IkTwo, 1, b"").write(&mut good);
        assert!(Handshake::parse(&good).is_some());
        for len in 0..good.len() {
            assert_eq!(Handshake::parse(&good[..len]), None, "{len} bytes");
        }
        for (at, value) in [(6, 0x00), (6, 0x11), (6, 0xff), (7, 0x00), (7, 0x08), (7, 0x85)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Handshake::parse(&bad), None, "byte {at} = {value:#x}");
        }
    }

    #[test]
    fn rejects_and_retries_round_trip() {
        for reason in Reject::ALL {
            assert_eq!(Reject::parse(&reason.to_bytes()), Some(reason));
        }
        assert_eq!(Reject::parse(&[200, 1]), Some(Reject::Other));
        assert_eq!(Reject::parse(&[]), None);
        assert_eq!(parse_retry(&[7; 15]), None);
        assert_eq!(parse_retry(&[7; 17]), Some([7; 16]));
        for kind in Type::ALL {
            assert_eq!(Type::from_number(kind as u8), Some(kind));
        }
    }
}
