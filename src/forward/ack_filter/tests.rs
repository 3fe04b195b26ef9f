use proptest::prelude::*;

use super::*;
use crate::forward::testkit::Recipe;

const NONE: VnetHeader = VnetHeader { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

/// A pure acknowledgement of `number` as the station `source` sends it, with timestamps where `stamp` is one.
fn ack(v6: bool, source: u8, number: u32, stamp: Option<u32>) -> Vec<u8> {
    sack(v6, source, number, stamp, &[])
}

/// The same, which names what came behind a gap, too.
fn sack(v6: bool, source: u8, number: u32, stamp: Option<u32>, blocks: &[(u32, u32)]) -> Vec<u8> {
    let tcp_options = if stamp.is_some() { 3 } else { 0 } + if blocks.is_empty() { 0 } else { 1 + 2 * blocks.len() };
    let recipe = Recipe { v6, source, payload: 0, tcp_options, id: number as u16, ..Recipe::default() };
    let mut bytes = recipe.frame();
    let l4 = l4(&bytes);
    bytes[l4 + NUMBER..l4 + NUMBER + 4].copy_from_slice(&number.to_be_bytes());
    // The window and the checksum differ as well.
    bytes[l4 + 14..l4 + 18].copy_from_slice(&number.wrapping_mul(77).to_be_bytes());
    if let Some(stamp) = stamp {
        bytes[l4 + PLAIN..l4 + PLAIN + 4].copy_from_slice(&STAMPS);
        bytes[l4 + PLAIN + 4..l4 + PLAIN + 8].copy_from_slice(&stamp.to_be_bytes());
    }
    if !blocks.is_empty() {
        let at = l4 + PLAIN + if stamp.is_some() { STAMPED } else { 0 };
        bytes[at..at + 4].copy_from_slice(&[1, 1, 5, 2 + (blocks.len() * BLOCK) as u8]);
        let said: Vec<u8> = blocks.iter().flat_map(|(from, to)| [from.to_be_bytes(), to.to_be_bytes()].concat()).collect();
        bytes[at + 4..at + 4 + said.len()].copy_from_slice(&said);
    }
    bytes
}

fn l4(bytes: &[u8]) -> usize {
    usize::from(parse(bytes).l4)
}

fn parse(bytes: &[u8]) -> Frame {
    Frame::parse(bytes).expect("a frame")
}

fn is_pure(bytes: &[u8]) -> bool {
    is_pure_ack(bytes, &parse(bytes))
}

fn is_needless(old: &[u8], new: &[u8]) -> bool {
    is_pure(old) && is_pure(new) && supersedes(old, new, &parse(new))
}

/// What of a burst goes on.
fn filtered(burst: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (mut filter, mut out) = (AckFilter::default(), Vec::new());
    for bytes in burst {
        let mut verdict = filter.offer(&NONE, bytes, &parse(bytes));
        if verdict == Verdict::Follows {
            out.extend(filter.take().map(|(_, _, kept)| kept.to_vec()));
            verdict = filter.offer(&NONE, bytes, &parse(bytes));
        }
        match verdict {
            Verdict::Goes => out.push(bytes.clone()),
            Verdict::Kept | Verdict::Supersedes => {}
            Verdict::Follows => panic!("nothing is kept any more"),
        }
    }
    out.extend(filter.take().map(|(_, _, kept)| kept.to_vec()));
    out
}

#[test]
fn the_last_of_a_flow_says_what_the_others_do() {
    for v6 in [false, true] {
        for stamp in [None, Some(7)] {
            let acks = [1000, 2000, 90_000].map(|number| ack(v6, 1, number, stamp));
            assert_eq!(filtered(&acks), [acks[2].clone()], "v6 {v6}, {stamp:?}");
        }
    }
    // The number goes round.
    let round = [u32::MAX - 5, 10].map(|number| ack(false, 1, number, Some(1)));
    assert_eq!(filtered(&round), [round[1].clone()]);
}

#[test]
fn what_may_say_more_goes_on() {
    let (old, good) = (ack(false, 1, 1000, Some(5)), ack(false, 1, 2000, Some(6)));
    assert!(is_needless(&old, &good));
    let at = l4(&good);
    let changed = |offset: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at + offset] = value;
        bytes
    };
    for (what, bytes) in [
        ("the same number again: something is missing", ack(false, 1, 1000, Some(6))),
        ("a number that goes back", ack(false, 1, 999, Some(6))),
        ("half the sequence space ahead", ack(false, 1, 1000 + HALF, Some(6))),
        ("another flow", ack(false, 3, 2000, Some(6))),
        ("the other family", ack(true, 1, 2000, Some(6))),
        ("one without timestamps after one with", ack(false, 1, 2000, None)),
        ("FIN", changed(FLAGS, 0x11)),
        ("RST", changed(FLAGS, 0x14)),
        ("PSH", changed(FLAGS, 0x18)),
        ("ECE", changed(FLAGS, 0x50)),
        ("CWR", changed(FLAGS, 0x90)),
        ("AE of AccECN", changed(12, 0x81)),
        ("a sequence number that has moved on", changed(7, 0xee)),
        ("an option that is not timestamps", changed(PLAIN + 2, 30)),
    ] {
        assert!(!is_needless(&old, &bytes), "{what}");
        assert_eq!(filtered(&[old.clone(), bytes.clone()]), [old.clone(), bytes], "{what}");
    }
    // Other options, data, a fragment, another protocol.
    let data = Recipe { payload: 1, tcp_options: 0, ..Recipe::default() }.frame();
    let odd = Recipe { payload: 0, tcp_options: 6, ..Recipe::default() }.frame();
    let mut fragment = ack(false, 1, 2000, None);
    fragment[20] |= 0x20;
    for bytes in [data, odd, fragment, Recipe { payload: 0, tcp: false, ..Recipe::default() }.frame()] {
        assert!(!is_pure(&bytes));
    }
    // Marked by a router on its way (ECN).
    let mut marked = good.clone();
    marked[15] |= 3;
    assert!(!is_needless(&old, &marked));
    // Padding behind the packet is not ours to lose.
    let mut padded = good;
    padded.extend_from_slice(&[0; 6]);
    assert!(!is_pure(&padded));
}

#[test]
fn what_is_missing_is_told_as_well_by_the_later_one() {
    // A gap behind `number`, and `COUNTED` bytes and more behind the gap.
    let old = sack(false, 1, 1000, Some(5), &[(3000, 40_000)]);
    let said = |number: u32, blocks: &[(u32, u32)]| sack(false, 1, number, Some(6), blocks);
    for (what, new, needless) in [
        ("more behind the same gap", said(1000, &[(3000, 41_000)]), true),
        ("another gap", said(1000, &[(42_000, 43_000), (3000, 40_000)]), true),
        ("the gap is filled", ack(false, 1, 40_000, Some(6)), true),
        ("filled, and the next is there", said(40_000, &[(42_000, 43_000)]), true),
        ("half filled", said(2000, &[(3000, 40_000)]), true),
        ("filled, but what came behind is not said", ack(false, 1, 39_999, Some(6)), false),
        ("what came behind is not said", said(2000, &[(3000, 39_999)]), false),
        ("only in part", said(2000, &[(3001, 41_000)]), false),
        ("no more than before", said(1000, &[(3000, 40_000)]), false),
        ("no block at all", ack(false, 1, 1000, Some(6)), false),
    ] {
        assert_eq!(is_needless(&old, &new), needless, "{what}");
        let expected = if needless { vec![new.clone()] } else { vec![old.clone(), new.clone()] };
        assert_eq!(filtered(&[old.clone(), new]), expected, "{what}");
    }
}

#[test]
fn repetitions_that_may_be_counted_go_on() {
    let behind = |bytes: u32| sack(false, 1, 1000, Some(5), &[(3000, 3000 + bytes)]);
    let first = [ack(false, 1, 1000, Some(5)), behind(1448), behind(2 * 1448), behind(3 * 1448)];
    assert_eq!(filtered(&first), first);
    assert!(!is_needless(&behind(COUNTED - 1), &behind(COUNTED)));
    assert!(is_needless(&behind(COUNTED), &behind(COUNTED + 1)));
}

#[test]
fn news_of_copies_go_on() {
    let next = sack(false, 1, 90_000, Some(6), &[(95_000, 99_000)]);
    for blocks in [&[(500, 1000)][..], &[(500, 1500)], &[(50_000, 51_000), (40_000, 80_000)]] {
        let old = sack(false, 1, 1000, Some(5), blocks);
        assert!(is_pure(&old) && !is_needless(&old, &next), "{blocks:?}");
    }
    let fresh = sack(false, 1, 1000, Some(5), &[(50_000, 51_000), (40_000, 45_000)]);
    assert!(is_needless(&fresh, &next));
}

#[test]
fn malformed_blocks_make_it_none() {
    let good = sack(false, 1, 1000, Some(5), &[(3000, 4000), (5000, 6000)]);
    assert!(is_pure(&good));
    let at = l4(&good) + PLAIN + STAMPED;
    for (offset, value) in [(0, 0), (2, 4), (3, 17), (3, 10), (3, 0), (3, 255)] {
        let mut bad = good.clone();
        bad[at + offset] = value;
        assert!(!is_pure(&bad), "{offset}: {value}");
    }
    for block in [(4000, 4000), (4000, 3000)] {
        assert!(!is_pure(&sack(false, 1, 1000, Some(5), &[block])), "{block:?}");
    }
    let round = sack(false, 1, u32::MAX - 10, None, &[(u32::MAX - 5, 20), (100, 200), (300, 400), (500, 600)]);
    assert!(is_pure(&round));
}

#[test]
fn the_longest_fits() {
    let tags = vec![5, 6];
    for recipe in [
        Recipe { v6: true, tags: tags.clone(), payload: 0, tcp_options: 0, ..Recipe::default() },
        Recipe { ip_options: 10, tags, payload: 0, tcp_options: 0, ..Recipe::default() },
        Recipe { ip_options: 10, payload: 0, tcp_options: 0, ..Recipe::default() },
    ] {
        let first = recipe.frame();
        let mut second = first.clone();
        let at = l4(&second) + NUMBER;
        second[at + 2] ^= 1;
        assert_eq!(filtered(&[first, second.clone()]), [second]);
    }
}

/// A frame of a few flows: most of them acknowledgements, which mostly go ahead.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), 1u8..3, 0u32..20, any::<bool>(), 0u8..10).prop_map(|(v6, source, number, stamped, kind)| {
        let mut bytes = ack(v6, source, number * 1000, stamped.then_some(number));
        match kind {
            3 => bytes = sack(v6, source, 5000, stamped.then_some(number), &[(9000, 10_000 + 3000 * number)]),
            0 => bytes = Recipe { v6, source, ..Recipe::default() }.frame(),
            1 => bytes = Recipe { v6, source, tcp: false, ..Recipe::default() }.frame(),
            2 => {
                let at = l4(&bytes) + FLAGS;
                bytes[at] |= 0x40;
            }
            _ => {}
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn only_what_is_needless_is_left_out_and_nothing_changes_places(burst in proptest::collection::vec(frames(), 0..24)) {
        let stays = |(n, bytes): (usize, &Vec<u8>)| burst.get(n + 1).is_none_or(|next| !is_needless(bytes, next));
        let expected: Vec<Vec<u8>> = burst.iter().enumerate().filter(|one| stays((one.0, one.1))).map(|(_, bytes)| bytes.clone()).collect();
        prop_assert_eq!(filtered(&burst), expected);
    }
}

/// Blocks of thousands behind a number of thousands.
fn said() -> impl Strategy<Value = (u32, Vec<(u32, u32)>)> {
    let block = (0u32..40, 1u32..40).prop_map(|(from, length)| (from * 1000, (from + length) * 1000));
    (0u32..40, proptest::collection::vec(block, 0..4)).prop_map(|(number, blocks)| (number * 1000, blocks))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_left_out_is_said_again(old in said(), new in said(), start in prop_oneof![Just(0u32), any::<u32>()]) {
        let shifted = |(number, blocks): &(u32, Vec<(u32, u32)>)| {
            let blocks: Vec<_> = blocks.iter().map(|(from, to)| (from.wrapping_add(start), to.wrapping_add(start))).collect();
            sack(false, 1, number.wrapping_add(start), Some(1), &blocks)
        };
        if is_needless(&shifted(&old), &shifted(&new)) {
            let tells = |(number, blocks): &(u32, Vec<(u32, u32)>), at: u32| at < *number || blocks.iter().any(|(from, to)| (*from..*to).contains(&at));
            for at in (0..80_000).step_by(500) {
                prop_assert!(!tells(&old, at) || tells(&new, at), "{} is not said again", at);
            }
        }
    }
}
