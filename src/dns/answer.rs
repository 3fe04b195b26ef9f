//! One query, and what is said to it.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand_core::Rng;

use super::DnsCounters;
use super::asked::Asked;
use crate::names::{Families, Found, View, reverse_address};

/// Largest answer over UDP: what every path carries unfragmented (DNS flag day 2020).
pub const MAX_UDP: u16 = 1232;
/// Largest answer where the caller names no size (RFC 1035, 4.2.1).
pub const MIN_UDP: u16 = 512;
/// Bytes of the header (RFC 1035, 4.1.1).
pub const HEADER: usize = 12;

/// Bytes of the smallest record of an answer: a pointer to its name, type, class, TTL, length, and four bytes (RFC 1035, 4.1.3 and 4.1.4).
const SMALLEST: usize = 16;
/// The OPT record of an answer: of the root, with the size that we take, and nothing else (RFC 6891, 6.1.2).
const OPT: [u8; 11] = [0, 0, 41, (MAX_UDP >> 8) as u8, MAX_UDP as u8, 0, 0, 0, 0, 0, 0];

/// What a caller can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The largest answer.
    pub limit: u16,
    /// It speaks EDNS, so every answer must as well (RFC 6891, 7).
    pub edns: bool,
}

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This is the answer.
    Answer(Vec<u8>),
    /// It is for other name servers.
    Forward(Form),
    /// It deserves no answer.
    Drop,
}

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream.
    Tcp,
}

/// How answers are made.
#[derive(Debug)]
pub struct Answerer {
    /// How long an answer may be kept, in seconds.
    ttl: u32,
    zone: Name,
    /// The SOA but for its serial number.
    soa: SOA,
    asked: Option<Arc<Asked>>,
}

/// What is known of the name in a question.
enum Local {
    Addresses(Vec<IpAddr>),
    Names(Vec<String>),
    /// The name of the zone itself, or of a reverse zone of one address.
    Zone,
    Nothing,
    Unknown,
}

impl Answerer {
    /// For the domain of `view`.
    pub fn new(view: &View, ttl: u32) -> Answerer {
        // A Domain is always a name: its labels are short and plain.
        let zone = Name::from_ascii(format!("{}.", view.domain())).unwrap_or_else(|_| Name::root());
        let below = |label: &str| zone.prepend_label(label).unwrap_or_else(|_| zone.clone());
        let hour = 3600;
        let soa = SOA::new(below("ns"), below("hostmaster"), 0, hour, hour, hour, ttl);
        Answerer { ttl, zone, soa, asked: None }
    }

    /// The same, and whose names are asked for is told there.
    pub fn telling(self, asked: Arc<Asked>) -> Answerer {
        Answerer { asked: Some(asked), ..self }
    }

    /// Judges one query.
    pub fn judge(&self, query: &[u8], transport: Transport, view: &View, rng: &mut impl Rng, counters: &DnsCounters) -> Verdict {
        counters.queries.inc();
        let request = match read(query) {
            Ok(request) => request,
            Err(None) => {
                counters.drop_not_a_query.inc();
                return Verdict::Drop;
            }
            Err(Some(refusal)) => {
                counters.refused.inc();
                return Verdict::Answer(refusal);
            }
        };
        let limit = match (transport, &request.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(MIN_UDP, MAX_UDP),
            (Transport::Udp, None) => MIN_UDP,
        };
        let form = Form { limit, edns: request.edns.is_some() };
        if let Some(code) = refusal(&request) {
            counters.refused.inc();
            let mut response = response(&request);
            response.metadata.response_code = code;
            return encode(response, limit, counters);
        }
        // `read` makes sure that there is one.
        let Some(question) = request.queries.first() else { return Verdict::Drop };
        // One more than fit: an answer that is cut short says so.
        let most = usize::from(limit) / SMALLEST + 1;
        let Some(local) = self.look_up(question, view, most, rng) else { return Verdict::Forward(form) };
        counters.answered.inc();
        if matches!(local, Local::Unknown) {
            counters.unknown.inc();
        }
        encode(self.answer(&request, question, local, view.serial()), limit, counters)
    }

    /// What the mesh knows of a question, at most so much of it; `None` where it is not for us to say.
    fn look_up(&self, question: &Query, view: &View, most: usize, rng: &mut impl Rng) -> Option<Local> {
        let (kind, labels, name) = (question.query_type(), question.name().num_labels(), plain(question.name()));
        let wanted = |record: RecordType| kind == record || kind == RecordType::ANY;
        let families = Families { four: wanted(RecordType::A), six: wanted(RecordType::AAAA) };
        let mut found = |relative: &str| match view.choose(relative, families, most, rng) {
            Found::Addresses(addresses) => {
                self.asked.iter().for_each(|asked| asked.note(view.holders(relative)));
                Local::Addresses(addresses)
            }
            Found::Nothing => Local::Nothing,
            Found::Unknown => Local::Unknown,
        };
        if self.zone.zone_of(question.name()) {
            return Some(match name {
                Some(name) if name == view.domain().name() => Local::Zone,
                Some(name) => view.domain().strip(&name).map_or(Local::Unknown, found),
                // Labels that no name of ours has.
                None => Local::Unknown,
            });
        }
        let name = name?;
        if labels == 1 {
            // Resolvers that do not append the search domain ask for bare names.
            return Some(found(&name)).filter(|local| matches!(local, Local::Addresses(_)));
        }
        let address = reverse_address(&name)?;
        let mut names = view.names_of(address).peekable();
        names.peek()?;
        self.asked.iter().for_each(|asked| asked.note(view.holders_of(address)));
        // Another server's "no such name" would be one for every type (RFC 2308, 5).
        Some(if wanted(RecordType::PTR) { Local::Names(names.take(most).collect()) } else { Local::Zone })
    }

    fn answer(&self, request: &Message, question: &Query, local: Local, serial: u32) -> Message {
        let mut response = response(request);
        response.metadata.authoritative = true;
        let (owner, kind) = (question.name(), question.query_type());
        let record = |data: RData| Record::from_rdata(owner.clone(), self.ttl, data);
        match local {
            Local::Addresses(addresses) => {
                let data = |address: IpAddr| match address {
                    IpAddr::V4(four) => RData::A(A(four)),
                    IpAddr::V6(six) => RData::AAAA(AAAA(six)),
                };
                response.answers.extend(addresses.into_iter().map(data).map(record));
            }
            Local::Names(names) => {
                let names = names.iter().filter_map(|name| Name::from_ascii(format!("{name}.")).ok());
                response.answers.extend(names.map(|name| record(RData::PTR(PTR(name)))));
            }
            Local::Zone if matches!(kind, RecordType::SOA | RecordType::ANY) => response.answers.push(record(RData::SOA(self.soa(serial)))),
            Local::Zone | Local::Nothing => {}
            Local::Unknown => response.metadata.response_code = ResponseCode::NXDomain,
        }
        if response.answers.is_empty() {
            // What is outside of the zone is a zone of its own: no SOA speaks for a name that is not below its owner.
            let zone = if self.zone.zone_of(owner) { &self.zone } else { owner };
            // How long "no" may be kept is the least of the record's TTL and its last field (RFC 2308, 5).
            response.authorities.push(Record::from_rdata(zone.clone(), self.ttl, RData::SOA(self.soa(serial))));
        }
        response
    }

    fn soa(&self, serial: u32) -> SOA {
        let mut soa = self.soa.clone();
        soa.serial = serial;
        soa
    }
}

/// Reads a query. `Err(None)`: it deserves no answer; `Err(Some)`: this one.
fn read(bytes: &[u8]) -> Result<Message, Option<Vec<u8>>> {
    let header: &[u8; HEADER] = bytes.first_chunk().ok_or(None)?;
    // An answer to an answer could go on for ever.
    if header[2] & 0x80 != 0 {
        return Err(None);
    }
    let op_code = OpCode::from_u8(header[2] >> 3 & 0x0f);
    let refuse = |code| {
        let message = Message::error_msg(u16::from_be_bytes([header[0], header[1]]), op_code, code);
        message.to_vec().ok()
    };
    if op_code != OpCode::Query {
        return Err(refuse(ResponseCode::NotImp));
    }
    let one_question = header[4..6] == [0, 1] && header[6..8] == [0, 0];
    match Message::from_vec(bytes) {
        Ok(message) if one_question => Ok(message),
        Ok(_) | Err(_) => Err(refuse(ResponseCode::FormErr)),
    }
}

/// Why a well-formed query is not answered, if so.
fn refusal(request: &Message) -> Option<ResponseCode> {
    if request.version() > 0 {
        return Some(ResponseCode::BADVERS);
    }
    let question = request.queries.first()?;
    let transfer = matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR);
    let class = matches!(question.query_class(), DNSClass::IN | DNSClass::ANY);
    (transfer || !class).then_some(ResponseCode::Refused)
}

/// An answer without content.
fn response(request: &Message) -> Message {
    let metadata = Metadata::response_from_request(&request.metadata);
    let mut response = Message::response(metadata.id, metadata.op_code);
    response.metadata = metadata;
    response.metadata.recursion_available = true;
    response.queries.clone_from(&request.queries);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP);
        response.set_edns(edns);
    }
    response
}

/// The bytes of an answer. One that is too long loses records from its end, and says so: what is there still helps resolvers that know no TCP.
fn encode(mut response: Message, limit: u16, counters: &DnsCounters) -> Verdict {
    let limit = usize::from(limit);
    loop {
        let Ok(bytes) = response.to_vec() else {
            counters.drop_unsent.inc();
            return Verdict::Drop;
        };
        if bytes.len() <= limit {
            return Verdict::Answer(bytes);
        }
        if !response.metadata.truncation {
            counters.truncated.inc();
            response.metadata.truncation = true;
        }
        let (count, excess) = (response.answers.len(), bytes.len() - limit);
        if count == 0 {
            if response.authorities.is_empty() {
                // A question alone fits any limit.
                counters.drop_unsent.inc();
                return Verdict::Drop;
            }
            response.authorities.clear();
            continue;
        }
        // A record's share of the whole is more than its length: what this takes too few of, the next round takes.
        let share = bytes.len().div_ceil(count);
        response.answers.truncate(count - excess.div_ceil(share).clamp(1, count));
    }
}

/// An answer of another name server that is larger than the caller takes: the question alone, and the word that there is more.
pub fn truncate(answer: &[u8], edns: bool) -> Option<Vec<u8>> {
    let mut short = answer.get(..question_end(answer)?)?.to_vec();
    short[2] |= 0x02;
    finish(&mut short, edns);
    Some(short)
}

/// An answer that says only that we failed.
pub fn failure(query: &[u8], edns: bool) -> Option<Vec<u8>> {
    let mut failed = query.get(..question_end(query)?)?.to_vec();
    let failure = u8::try_from(u16::from(ResponseCode::ServFail)).ok()?;
    // A response, of the same operation, with recursion available.
    failed[2] = 0x80 | failed[2] & 0x79;
    failed[3] = 0x80 | failed[3] & 0x10 | failure;
    finish(&mut failed, edns);
    Some(failed)
}

/// Ends a message after its question, but for the OPT that a caller with EDNS gets.
fn finish(message: &mut Vec<u8>, edns: bool) {
    message[6..HEADER].fill(0);
    if edns {
        message[HEADER - 1] = 1;
        message.extend_from_slice(&OPT);
    }
}

/// Where the one question of a message ends.
pub fn question_end(message: &[u8]) -> Option<usize> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        let len = usize::from(*message.get(at)?);
        // Nothing stands before the first name that it could point to.
        if len > 63 {
            return None;
        }
        at += 1 + len;
        if len == 0 {
            break;
        }
    }
    Some(at + 4).filter(|end| *end <= message.len())
}

/// A name as the mesh keeps them: lower case, without the last dot; `None` where a label has characters that no name of ours has.
fn plain(name: &Name) -> Option<String> {
    let legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let mut plain = String::with_capacity(name.len());
    for label in name.iter() {
        if !label.iter().all(legal) {
            return None;
        }
        if !plain.is_empty() {
            plain.push('.');
        }
        plain.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
    }
    Some(plain)
}

#[cfg(test)]
mod tests;
