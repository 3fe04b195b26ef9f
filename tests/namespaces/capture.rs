//! What somebody on the underlay can read.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use weave_router::host::lab::{Capture, in_namespace};

use crate::scene::{PASSWORD, Setting, connected_pair, scene};

const TEXT: &[u8] = b"The quick brown fox jumps over the lazy dog, known to all and secret to none. ";

/// The longest run of the text that counts as seen.
const SEEN: usize = 12;

/// The underlay's bytes during a transfer of the text.
fn captured(options: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    scene(|lab| {
        let both = [PASSWORD, options].concat();
        let pair = connected_pair(lab, &Setting { both: &both, ..Setting::default() });
        let capture = Capture::start(lab, "h2", &pair.wire.b.interface, "udp port 6783").expect("tcpdump is installed");
        let listener = in_namespace(&pair.c2.namespace, || TcpListener::bind((pair.c2.ip, 0))).expect("a namespace").expect("a socket");
        let target = listener.local_addr().expect("an address");
        let mut near = in_namespace(&pair.c1.namespace, || TcpStream::connect(target)).expect("a namespace").expect("connected");
        let (mut far, _) = listener.accept().expect("accepted");
        let sent = TEXT.repeat(500);
        near.write_all(&sent).expect("sent");
        let mut received = vec![0; sent.len()];
        far.read_exact(&mut received).expect("received");
        assert!(received == sent);
        // Alone in a frame, too.
        near.write_all(&TEXT[..40]).expect("sent");
        far.read_exact(&mut received[..40]).expect("received");
        bytes = capture.bytes().expect("a capture");
    });
    bytes
}

fn holds_text(bytes: &[u8]) -> bool {
    let doubled = TEXT.repeat(2);
    let wanted: std::collections::HashSet<&[u8]> = doubled.windows(SEEN).collect();
    bytes.windows(SEEN).any(|window| wanted.contains(window))
}

#[test]
fn nothing_of_a_transfer_can_be_read_on_the_underlay() {
    for cipher in ["aes256gcm", "chacha20poly1305"] {
        let bytes = captured(&["--cipher", cipher]);
        if bytes.is_empty() {
            return;
        }
        assert!(bytes.len() > 500 * TEXT.len(), "the transfer is in the capture: {} bytes", bytes.len());
        assert!(!holds_text(&bytes), "{cipher}: the text is on the wire");
    }
}

#[test]
fn without_encryption_everything_can_be_read() {
    let bytes = captured(&["--no-encryption"]);
    assert!(bytes.is_empty() || holds_text(&bytes), "so the other test can fail");
}
