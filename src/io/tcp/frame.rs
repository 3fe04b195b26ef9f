//! Datagrams on a byte stream: a hello from each end, then each datagram behind its length (2 bytes, big endian).
//!
//! The hello says what follows and in which version; the end that was called answers it once it has read the other's. It proves nothing:
//! all that matters is in the datagrams, which are sealed.

use crate::wire::HEADER_LEN;

/// What each end says first: that these are datagrams of ours, and the version of this framing.
pub const HELLO: [u8; 8] = *b"weavetc\x01";
/// Largest datagram carried, in bytes: more than the path MTU search asks for.
pub const MAX_DATAGRAM: usize = 16 << 10;

/// Bytes of data that wait while TCP takes no more. A whole burst from a container fits; more would only be latency.
const MOST_DATA: usize = 128 << 10;
/// The same for control, which has a queue of its own: a link must not die because it is busy.
const MOST_CONTROL: usize = 32 << 10;

/// What came is no datagram behind its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How much of a hello there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// So far so good.
    Part,
    /// All of it; whatever follows is datagrams.
    Whole,
    /// Something else.
    Strange,
}

impl Greeting {
    /// Looks at what came first on a connection.
    pub fn of(bytes: &[u8]) -> Greeting {
        if bytes.iter().zip(HELLO).any(|(got, want)| *got != want) {
            Greeting::Strange
        } else if bytes.len() < HELLO.len() {
            Greeting::Part
        } else {
            Greeting::Whole
        }
    }
}

/// Takes datagrams out of the stream as its pieces come.
#[derive(Debug, Default)]
pub struct Splitter {
    /// A datagram that has not come to its end, with its length.
    partial: Vec<u8>,
}

impl Splitter {
    /// Takes the next piece and hands on what is whole now.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Malformed> {
        while !self.partial.is_empty() {
            let wanted = match self.partial.first_chunk() {
                None => 2,
                Some(length) => 2 + checked(*length)?,
            };
            let (more, rest) = bytes.split_at(bytes.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(more);
            bytes = rest;
            if self.partial.len() < wanted {
                return Ok(());
            }
            if wanted > 2 {
                each(self.partial.get(2..).unwrap_or_default());
                self.partial.clear();
            }
        }
        while let Some((length, rest)) = bytes.split_first_chunk() {
            let Some((datagram, rest)) = rest.split_at_checked(checked(*length)?) else { break };
            each(datagram);
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

fn checked(length: [u8; 2]) -> Result<usize, Malformed> {
    let length = usize::from(u16::from_be_bytes(length));
    if (HEADER_LEN..=MAX_DATAGRAM).contains(&length) { Ok(length) } else { Err(Malformed) }
}

/// Datagrams on their way into the stream. What TCP does not take waits, up to a limit; control goes ahead of data.
#[derive(Debug, Default)]
pub struct Queue {
    control: Vec<u8>,
    data: Vec<u8>,
    /// What is being sent, from `sent` on: a datagram that has begun must end.
    stage: Vec<u8>,
    sent: usize,
}

impl Queue {
    /// Puts the hello on its way.
    pub fn greet(&mut self) {
        self.control.extend_from_slice(&HELLO);
    }

    /// Takes a datagram; false where it is dropped, since there is no room or it could not be read at the other end.
    pub fn push(&mut self, datagram: &[u8]) -> bool {
        let is_control = datagram.first().is_some_and(|first| first & 0x0f < 8);
        let (queue, most) = if is_control { (&mut self.control, MOST_CONTROL) } else { (&mut self.data, MOST_DATA) };
        let fits = (HEADER_LEN..=MAX_DATAGRAM).contains(&datagram.len()) && queue.len() + 2 + datagram.len() <= most;
        if let Some(length) = u16::try_from(datagram.len()).ok().filter(|_| fits) {
            queue.extend_from_slice(&length.to_be_bytes());
            queue.extend_from_slice(datagram);
        }
        fits
    }

    /// What is to be sent next; empty where nothing waits.
    pub fn front(&mut self) -> &[u8] {
        if self.sent >= self.stage.len() {
            self.sent = 0;
            self.stage.clear();
            self.stage.append(&mut self.control);
            self.stage.append(&mut self.data);
        }
        self.stage.get(self.sent..).unwrap_or_default()
    }

    /// So many bytes of it are sent.
    pub fn took(&mut self, bytes: usize) {
        self.sent += bytes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that a queue has to say.
    fn drain(queue: &mut Queue) -> Vec<u8> {
        let mut stream = Vec::new();
        while !queue.front().is_empty() {
            let piece = queue.front().len().min(1000);
            stream.extend_from_slice(&queue.front()[..piece]);
            queue.took(piece);
        }
        stream
    }

    proptest! {
        #[test]
        fn datagrams_come_out_as_they_went_in_however_the_stream_is_cut(
            lengths in proptest::collection::vec(HEADER_LEN..3000, 0..30),
            cuts in proptest::collection::vec(1usize..5000, 1..20),
        ) {
            let datagrams: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(n, length)| vec![n as u8 | 0x08; *length]).collect();
            let mut queue = Queue::default();
            for datagram in &datagrams {
                prop_assert!(queue.push(datagram));
            }
            let stream = drain(&mut queue);
            let (mut splitter, mut got, mut rest, mut cuts) = (Splitter::default(), Vec::new(), &stream[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*cuts.next().expect("a cut")));
                splitter.push(piece, |datagram| got.push(datagram.to_vec())).expect("well-formed");
                rest = after;
            }
            prop_assert_eq!(got, datagrams);
        }

        #[test]
        fn any_bytes_end_in_datagrams_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..4000), cut in 1usize..100) {
            let mut splitter = Splitter::default();
            for piece in bytes.chunks(cut) {
                let mut good = true;
                let pushed = splitter.push(piece, |datagram| good &= (HEADER_LEN..=MAX_DATAGRAM).contains(&datagram.len()));
                prop_assert!(good && splitter.partial.len() < 2 + MAX_DATAGRAM);
                if pushed.is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn lengths_that_no_datagram_has_are_refused_whole_or_in_pieces() {
        for length in [0u16, 15, 16 * 1024 + 1, u16::MAX] {
            let bytes = length.to_be_bytes();
            assert_eq!(Splitter::default().push(&bytes, |_| ()), Err(Malformed), "{length}");
            let mut splitter = Splitter::default();
            assert_eq!(splitter.push(&bytes[..1], |_| ()), Ok(()));
            assert_eq!(splitter.push(&bytes[1..], |_| ()), Err(Malformed), "{length}");
        }
    }

    #[test]
    fn control_goes_ahead_and_both_queues_have_an_end() {
        let (control, data) = ([0x12; 100], [0x18; 1000]);
        let mut queue = Queue::default();
        assert!(queue.push(&data) && queue.push(&control));
        let stream = drain(&mut queue);
        assert_eq!((&stream[..3], stream.len()), (&[0, 100, 0x12][..], 1104));
        let taken = (0..1000).filter(|_| queue.push(&data)).count();
        assert_eq!(taken, MOST_DATA / 1002);
        assert!(queue.push(&control), "however much data waits");
        let taken = (0..1000).filter(|_| queue.push(&control)).count();
        assert_eq!(taken, MOST_CONTROL / 102 - 1);
        drain(&mut queue);
        assert!(queue.push(&data) && !queue.push(&[0x18; MAX_DATAGRAM + 1]) && !queue.push(&[0x18; HEADER_LEN - 1]) && !queue.push(&[]));
    }

    #[test]
    fn a_hello_is_told_from_other_protocols_by_its_first_wrong_byte() {
        assert_eq!(Greeting::of(b""), Greeting::Part);
        assert_eq!(Greeting::of(&HELLO[..7]), Greeting::Part);
        assert_eq!(Greeting::of(&HELLO), Greeting::Whole);
        assert_eq!(Greeting::of(&[&HELLO[..], &[0, 16]].concat()), Greeting::Whole);
        for other in [&b"G"[..], b"GET / HTTP/1.1\r\n", b"weavetc\x02", b"\x16\x03\x01"] {
            assert_eq!(Greeting::of(other), Greeting::Strange);
        }
    }
}
