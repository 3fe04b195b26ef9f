//! What neighbours say to each other to agree on the records of the mesh.
//!
//! ```text
//! 1 ROOT     hash 8
//! 2 TREE     depth 1, prefix 1, 16 × hash 8                                  the children of a node of the tree
//! 3 KEYS     depth 1, prefix 1, after id 9, until id 9, n × (id 9, edition 24)  what the sender has under a node
//! 4 WANT     n × id 9
//! 5 RECORDS  n × (length 2, record)
//! 6 PUSH     wanted 1                        whether the receiver is to pass on at once what it hears from others: 0 no, 1 yes
//! ```
//!
//! The tree is 16-ary with two levels below the root: depth 0 is the root, depth 1 has 16 nodes, depth 2 has
//! the 256 leaves. A KEYS message is complete for the ids above `after` up to and including `until`, so each page of
//! a long list can be used, or lost, alone.

use super::record::{Edition, RecordId};

/// Children of a node of the tree.
pub const FANOUT: usize = 16;
/// Leaves of the tree.
pub const LEAVES: usize = 256;
/// Bytes of a KEYS message before its entries.
const KEYS_HEAD: usize = 3 + 2 * RecordId::LEN;
/// Bytes of an entry of a KEYS message.
const KEY_LEN: usize = RecordId::LEN + 24;

const ROOT: u8 = 1;
const TREE: u8 = 2;
const KEYS: u8 = 3;
const WANT: u8 = 4;
const RECORDS: u8 = 5;
const PUSH: u8 = 6;

/// A node of the agreement tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreeNode {
    depth: u8,
    prefix: u8,
}

impl TreeNode {
    /// The root.
    pub const ROOT: TreeNode = TreeNode { depth: 0, prefix: 0 };

    /// The node at `depth` with `prefix`, where there is one.
    pub fn new(depth: u8, prefix: u8) -> Option<TreeNode> {
        let exists = match depth {
            0 => prefix == 0,
            1 => prefix < 16,
            2 => true,
            _ => false,
        };
        exists.then_some(TreeNode { depth, prefix })
    }

    /// True for a leaf.
    pub fn is_leaf(self) -> bool {
        self.depth == 2
    }

    /// Child number `index` (0 to 15) of an inner node.
    pub fn child(self, index: u8) -> Option<TreeNode> {
        match self.depth {
            0 => TreeNode::new(1, index),
            1 if index < 16 => TreeNode::new(2, self.prefix << 4 | index),
            _ => None,
        }
    }

    /// The leaves below this node (a leaf: itself).
    pub fn leaves(self) -> std::ops::Range<usize> {
        let prefix = usize::from(self.prefix);
        match self.depth {
            0 => 0..LEAVES,
            1 => prefix * FANOUT..(prefix + 1) * FANOUT,
            _ => prefix..prefix + 1,
        }
    }
}

/// One line of a KEYS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which record.
    pub id: RecordId,
    /// Which edition of it.
    pub edition: Edition,
}

/// A message, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The sender's root hash.
    Root(u64),
    /// The hashes of a node's children.
    Tree(TreeNode, [u64; FANOUT]),
    /// All records the sender has under a node, from (exclusive) and until (inclusive) an id.
    Keys {
        /// The node.
        node: TreeNode,
        /// Complete above this id.
        after: RecordId,
        /// Complete up to this id.
        until: RecordId,
        /// The records, ascending by id.
        keys: Vec<Key>,
    },
    /// Records the sender asks for.
    Want(Vec<RecordId>),
    /// Records, each still to be parsed.
    Records(Vec<&'a [u8]>),
    /// Whether the sender wants to be told at once what the receiver hears from others.
    Push(bool),
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMessage {
    /// The lengths do not add up, or a node or order is impossible.
    Malformed,
    /// A type this build does not know.
    Unknown,
}

impl<'a> Message<'a> {
    /// Parses a message.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, BadMessage> {
        let (code, rest) = bytes.split_first().ok_or(BadMessage::Malformed)?;
        let message = match *code {
            ROOT => rest.try_into().ok().map(|hash| Message::Root(u64::from_be_bytes(hash))),
            TREE => parse_tree(rest),
            KEYS => parse_keys(rest),
            WANT => parse_ids(rest).map(Message::Want),
            RECORDS => parse_records(rest).map(Message::Records),
            PUSH => match rest {
                [wanted @ (0 | 1)] => Some(Message::Push(*wanted == 1)),
                _ => None,
            },
            _ => return Err(BadMessage::Unknown),
        };
        message.ok_or(BadMessage::Malformed)
    }
}

fn parse_node(rest: &mut &[u8]) -> Option<TreeNode> {
    let [depth, prefix] = take(rest)?;
    TreeNode::new(depth, prefix)
}

fn parse_tree(mut rest: &[u8]) -> Option<Message<'_>> {
    let node = parse_node(&mut rest).filter(|node| !node.is_leaf())?;
    let mut hashes = [0; FANOUT];
    for hash in &mut hashes {
        *hash = u64::from_be_bytes(take(&mut rest)?);
    }
    rest.is_empty().then_some(Message::Tree(node, hashes))
}

fn parse_keys(mut rest: &[u8]) -> Option<Message<'_>> {
    let node = parse_node(&mut rest)?;
    let after = RecordId::from_bytes(&take(&mut rest)?);
    let until = RecordId::from_bytes(&take(&mut rest)?);
    let mut keys = Vec::with_capacity(rest.len() / KEY_LEN);
    while !rest.is_empty() {
        let id = RecordId::from_bytes(&take(&mut rest)?);
        let edition = Edition {
            incarnation: u64::from_be_bytes(take(&mut rest)?),
            sequence: u64::from_be_bytes(take(&mut rest)?),
            digest: u64::from_be_bytes(take(&mut rest)?),
        };
        keys.push(Key { id, edition });
    }
    let ascending = keys.is_sorted_by(|a, b| a.id < b.id);
    let within = keys.iter().all(|key| key.id > after && key.id <= until && node.leaves().contains(&usize::from(key.id.bucket())));
    (ascending && within && after < until).then_some(Message::Keys { node, after, until, keys })
}

fn parse_ids(mut rest: &[u8]) -> Option<Vec<RecordId>> {
    let mut ids = Vec::with_capacity(rest.len() / RecordId::LEN);
    while !rest.is_empty() {
        ids.push(RecordId::from_bytes(&take(&mut rest)?));
    }
    Some(ids)
}

fn parse_records(mut rest: &[u8]) -> Option<Vec<&[u8]>> {
    let mut records = Vec::new();
    while !rest.is_empty() {
        let len = usize::from(u16::from_be_bytes(take(&mut rest)?));
        let (record, after) = rest.split_at_checked(len)?;
        records.push(record);
        rest = after;
    }
    Some(records)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// Writes a ROOT message.
pub fn root(hash: u64) -> Vec<u8> {
    [&[ROOT][..], &hash.to_be_bytes()].concat()
}

/// Writes a TREE message.
pub fn tree(node: TreeNode, hashes: &[u64; FANOUT]) -> Vec<u8> {
    let mut out = vec![TREE, node.depth, node.prefix];
    out.extend(hashes.iter().flat_map(|hash| hash.to_be_bytes()));
    out
}

/// Writes a PUSH message.
pub fn push(wanted: bool) -> Vec<u8> {
    vec![PUSH, u8::from(wanted)]
}

/// How many keys fit a KEYS message of at most `limit` bytes.
pub fn keys_per_message(limit: usize) -> usize {
    (limit.saturating_sub(KEYS_HEAD) / KEY_LEN).max(1)
}

/// Writes as many KEYS messages of at most `limit` bytes as it takes to say that `keys` (ascending) is all there is under `node`.
pub fn keys(node: TreeNode, keys: &[Key], limit: usize) -> Vec<Vec<u8>> {
    let mut pages: Vec<&[Key]> = keys.chunks(keys_per_message(limit)).collect();
    if pages.is_empty() {
        pages.push(&[]);
    }
    let (mut after, count) = (RecordId::FIRST, pages.len());
    let mut messages = Vec::with_capacity(count);
    for (index, page) in pages.into_iter().enumerate() {
        let last = page.last().filter(|_| index + 1 < count);
        let until = last.map_or(RecordId::LAST, |key| key.id);
        let mut out = vec![KEYS, node.depth, node.prefix];
        out.extend_from_slice(&after.to_bytes());
        out.extend_from_slice(&until.to_bytes());
        for Key { id, edition } in page {
            out.extend_from_slice(&id.to_bytes());
            for number in [edition.incarnation, edition.sequence, edition.digest] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        messages.push(out);
        after = until;
    }
    messages
}

/// Writes WANT messages of at most `limit` bytes.
pub fn want(ids: &[RecordId], limit: usize) -> Vec<Vec<u8>> {
    let per_message = (limit.saturating_sub(1) / RecordId::LEN).max(1);
    let message = |page: &[RecordId]| {
        let mut out = vec![WANT];
        out.extend(page.iter().flat_map(|id| id.to_bytes()));
        out
    };
    ids.chunks(per_message).map(message).collect()
}

/// Packs whole records into RECORDS messages of at most `limit` bytes (a record that alone is longer still gets its own).
pub fn records<'a>(records: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for record in records {
        let Ok(len) = u16::try_from(record.len()) else { continue };
        let fits = |out: &&mut Vec<u8>| out.len() + 2 + record.len() <= limit;
        let out = match messages.last_mut().filter(fits) {
            Some(out) => out,
            None => {
                let mut message = Vec::with_capacity(limit);
                message.push(RECORDS);
                messages.push(message);
                messages.last_mut().expect("a message was just pushed")
            }
        };
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(record);
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PeerName;

    const GOLDEN_BUCKETS: [u8; 3] = [241, 18, 92];

    fn key(n: u16) -> Key {
        let id = RecordId { name: PeerName([2, 0, 0, 0, 0, 1]), kind: 3, chunk: n };
        Key { id, edition: Edition { incarnation: 1, sequence: u64::from(n), digest: 7 } }
    }

    #[test]
    fn golden_messages() {
        assert_eq!(root(0x0102), [1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(tree(TreeNode::ROOT, &[3; FANOUT])[..11], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        let one = keys(TreeNode::ROOT, &[key(2)], 1000);
        let head = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        let line = [2, 0, 0, 0, 0, 1, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(one, [[&head[..], &line].concat()]);
        assert_eq!(want(&[key(2).id], 1000), [[4, 2, 0, 0, 0, 0, 1, 3, 0, 2]]);
        assert_eq!(records([&b"ab"[..], b"c"], 1000), [[5, 0, 2, b'a', b'b', 0, 1, b'c']]);
        assert_eq!((push(true), push(false)), (vec![6, 1], vec![6, 0]));
        // Routers that fill the leaves differently could not compare them.
        assert_eq!([1, 2, 3].map(|chunk| key(chunk).id.bucket()), GOLDEN_BUCKETS);
    }

    #[test]
    fn messages_round_trip() {
        assert_eq!(Message::parse(&root(9)), Ok(Message::Root(9)));
        let node = TreeNode::new(1, 15).expect("a node");
        assert_eq!(Message::parse(&tree(node, &[4; FANOUT])), Ok(Message::Tree(node, [4; FANOUT])));
        let ids = [key(1).id, key(2).id];
        assert_eq!(Message::parse(&want(&ids, 500)[0]), Ok(Message::Want(ids.to_vec())));
        assert_eq!(Message::parse(&records([&b"ab"[..], b"c"], 10)[0]), Ok(Message::Records(vec![b"ab", b"c"])));
        assert_eq!(Message::parse(&push(true)), Ok(Message::Push(true)));
        for bad in [&[][..], &[6], &[6, 2], &[6, 0, 0]] {
            assert_eq!(Message::parse(bad), Err(BadMessage::Malformed));
        }
        assert_eq!(Message::parse(&[7, 0]), Err(BadMessage::Unknown));
        assert_eq!(Message::parse(&[2, 3, 0]), Err(BadMessage::Malformed));
    }

    #[test]
    fn pages_of_keys_cover_every_id_once() {
        let all: Vec<Key> = (0..100).map(key).collect();
        let messages = keys(TreeNode::ROOT, &all, 400);
        let (mut seen, mut end) = (Vec::new(), RecordId::FIRST);
        for message in &messages {
            assert!(message.len() <= 400);
            let Ok(Message::Keys { after, until, keys, .. }) = Message::parse(message) else { panic!("not keys") };
            assert_eq!(after, end);
            (end, seen) = (until, [seen, keys].concat());
        }
        assert_eq!((seen, end), (all, RecordId::LAST));
        assert_eq!(keys(TreeNode::ROOT, &[], 400).len(), 1, "an empty list is told too");
    }

    #[test]
    fn keys_must_ascend_and_belong_to_the_node() {
        let swapped = keys(TreeNode::ROOT, &[key(2), key(1)], 1000);
        assert_eq!(Message::parse(&swapped[0]), Err(BadMessage::Malformed));
        let elsewhere = TreeNode::new(2, key(1).id.bucket().wrapping_add(1)).expect("a leaf");
        assert_eq!(Message::parse(&keys(elsewhere, &[key(1)], 1000)[0]), Err(BadMessage::Malformed));
    }

    #[test]
    fn nodes_cover_the_leaves() {
        let mut covered = Vec::new();
        for inner in 0..16 {
            let node = TreeNode::ROOT.child(inner).expect("an inner node");
            covered.extend((0..16).filter_map(|leaf| node.child(leaf)).flat_map(TreeNode::leaves));
        }
        assert_eq!(covered, TreeNode::ROOT.leaves().collect::<Vec<_>>());
        assert_eq!((TreeNode::ROOT.child(16), TreeNode::new(0, 1), TreeNode::new(3, 0)), (None, None, None));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(code in 0u8..8, body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let bytes = [&[code][..], &body].concat();
            let _parsed = Message::parse(&bytes);
        }
    }
}
