//! Honest, odd, broken and arbitrary queries.

use super::*;
use crate::decode::corpus;
use crate::resolve::oracle;
use proptest::prelude::*;

/// A query's bytes: flags, counts, question name as labels, type, class, and what follows.
struct Raw<'a> {
    flags: [u8; 2],
    counts: [u16; 4],
    labels: &'a [&'a [u8]],
    kind: u16,
    class: u16,
    tail: &'a [u8],
}

impl Default for Raw<'_> {
    fn default() -> Self {
        Self {
            flags: [1, 0],
            counts: [1, 0, 0, 0],
            labels: &[b"api", b"example", b"com"],
            kind: 1,
            class: 1,
            tail: &[],
        }
    }
}

impl Raw<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, self.flags[0], self.flags[1]];
        bytes.extend(self.counts.iter().flat_map(|count| count.to_be_bytes()));
        for label in self.labels {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend_from_slice(label);
        }
        bytes.push(0);
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(self.class.to_be_bytes());
        bytes.extend_from_slice(self.tail);
        bytes
    }
}

/// EDNS of version 0 with a payload size of 4096 and no options.
const EDNS: [u8; 11] = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];

fn name_of(labels: &[&[u8]]) -> Option<String> {
    let query = parse(
        &Raw {
            labels,
            ..Raw::default()
        }
        .bytes(),
    )
    .unwrap();
    query.name.map(|name| name.to_string())
}

#[test]
fn honest_queries_are_taken() {
    let query = parse(&Raw::default().bytes()).unwrap();
    assert_eq!(query.name.as_ref().unwrap().as_str(), "api.example.com");
    assert_eq!(query.kind(), RecordType::A);
    let raw = Raw {
        counts: [1, 0, 0, 1],
        tail: &EDNS,
        flags: [1, 0x20],
        ..Raw::default()
    };
    assert_eq!(parse(&raw.bytes()).unwrap().edns, Some((4096, false)));
    // dig's cookie, an option that is read over.
    let cookie = [&EDNS[..10], &[12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
    parse(
        &Raw {
            counts: [1, 0, 0, 1],
            tail: &cookie,
            ..Raw::default()
        }
        .bytes(),
    )
    .unwrap();
}

#[test]
fn names_are_host_names_or_nothing() {
    assert_eq!(
        name_of(&[b"API", b"Example", b"COM"]).unwrap(),
        "api.example.com"
    );
    assert_eq!(name_of(&[b"_acme", b"example"]).unwrap(), "_acme.example");
    let long: &[u8] = &[b'a'; 63];
    assert_eq!(
        name_of(&[long, long, long, &[b'a'; 61]]).unwrap().len(),
        253
    );
    let odd: [&[&[u8]]; 17] = [
        &[],
        &[b"a.b", b"com"],
        &[b"evil\0", b"com"],
        &[b"e%76il", b"com"],
        &[b"a\r\nb", b"com"],
        &["f\u{fc}r".as_bytes(), b"de"],
        &["\u{ff41}".as_bytes(), b"com"],
        &[b"a b", b"com"],
        &[b"*", b"com"],
        &[b"a\\", b"com"],
        &[b"-a", b"com"],
        &[b"a/b", b"com"],
        &[b"127", b"1"],
        &[b"0x7f", b"1"],
        &[b"2130706433"],
        &[b"0177", b"0", b"0", b"1"],
        &[b"a", b"0x7f000001"],
    ];
    for labels in odd {
        assert_eq!(name_of(labels), None, "{labels:?}");
    }
}

fn flags(first: u8) -> Vec<u8> {
    Raw {
        flags: [first, 0],
        ..Raw::default()
    }
    .bytes()
}

fn counts(counts: [u16; 4], tail: &[u8]) -> Vec<u8> {
    Raw {
        counts,
        tail,
        ..Raw::default()
    }
    .bytes()
}

fn labels(labels: &[&[u8]]) -> Vec<u8> {
    Raw {
        labels,
        ..Raw::default()
    }
    .bytes()
}

fn class(class: u16) -> Vec<u8> {
    Raw {
        class,
        ..Raw::default()
    }
    .bytes()
}

/// Refused with this fault, and with this low half of the code in the answer, if any.
fn refused(bytes: &[u8], want: MessageFault, code: Option<u8>) {
    let malformed = parse(bytes).unwrap_err();
    assert_eq!(malformed.fault, want, "{bytes:?}");
    let reply = malformed.reply.map(|(reply, _)| reply);
    assert_eq!(
        reply.as_ref().map(|reply| reply[3] & 0x0f),
        code,
        "{want:?}"
    );
    if let Some(reply) = reply {
        assert_eq!(reply[..2], bytes[..2], "the id is the query's");
        assert_eq!(reply[2] & 0x80, 0x80, "an answer");
    }
}

#[test]
fn what_is_not_a_standard_query_is_refused() {
    use MessageFault as F;
    refused(&[], F::NotAQuery, None);
    refused(&[0; 11], F::NotAQuery, None);
    refused(&flags(0x81), F::NotAQuery, None);
    refused(&flags(0x28), F::Operation, Some(4));
    refused(&flags(0x10), F::Operation, Some(4));
    refused(&class(3), F::Class, Some(5));
    refused(&class(255), F::Class, Some(5));
}

#[test]
fn broken_questions_are_refused() {
    use MessageFault as F;
    let long: &[u8] = &[b'a'; 63];
    let good = Raw::default().bytes();
    refused(&[0; 12], F::Questions, Some(1));
    refused(&counts([0, 0, 0, 0], &[]), F::Questions, Some(1));
    refused(&counts([2, 0, 0, 0], &good[12..]), F::Questions, Some(1));
    refused(&counts([u16::MAX, 0, 0, 0], &[]), F::Questions, Some(1));
    refused(
        &labels(&[long, long, long, &[b'a'; 62]]),
        F::Question,
        Some(1),
    );
    refused(&labels(&[long, long, long, long]), F::Question, Some(1));
    refused(&labels(&[&[b'a'; 64]]), F::Question, Some(1));
    refused(&good[..20], F::Question, Some(1));
    refused(&good[..good.len() - 1], F::Question, Some(1));
    let mut pointer = labels(&[]);
    pointer.splice(12..13, [0xc0, 0x0c]);
    refused(&pointer, F::Question, Some(1));
}

#[test]
fn records_and_junk_behind_the_question_are_refused() {
    use MessageFault as F;
    let record = [0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4];
    refused(&counts([1, 1, 0, 0], &record), F::Records, Some(1));
    refused(&counts([1, 0, 1, 0], &record), F::Records, Some(1));
    refused(&counts([1, 0, 0, 1], &record), F::Records, Some(1));
    refused(&counts([1, 0, 0, 2], &EDNS), F::Records, Some(1));
    let signature = [0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0];
    refused(&counts([1, 0, 0, 1], &signature), F::Rest, Some(1));
    let owned = [1, b'a', 0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
    refused(&counts([1, 0, 0, 1], &owned), F::Rest, Some(1));
    refused(&counts([1, 0, 0, 1], &[]), F::Rest, Some(1));
    refused(&counts([1, 0, 0, 0], b"smuggled"), F::Rest, Some(1));
    refused(
        &counts([1, 0, 0, 1], &[&EDNS[..], b"smuggled"].concat()),
        F::Rest,
        Some(1),
    );
    refused(&counts([1, 0, 0, 0], &[0; 2000]), F::TooLong, Some(1));
    // BADVERS is 16: its high half travels in EDNS.
    let version_1 = [0, 0, 41, 0x10, 0, 0, 1, 0, 0, 0, 0];
    refused(&counts([1, 0, 0, 1], &version_1), F::Version, Some(0));
}

#[test]
fn answers_echo_the_question_and_fit() {
    let raw = Raw {
        labels: &[b"ApI", b"example", b"com"],
        ..Raw::default()
    };
    let query = parse(&raw.bytes()).unwrap();
    let addresses: Vec<IpAddr> = (1..=60).map(|n| IpAddr::from([93, 184, 216, n])).collect();
    let over = |count, transport| {
        let addresses = &addresses[..count];
        query
            .answer(ResponseCode::NoError, addresses, 30, transport)
            .unwrap()
    };

    let (bytes, given) = over(2, Transport::Udp);
    assert_eq!(given, 2);
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.id, 0xabcd);
    assert!(message.metadata.recursion_desired && message.metadata.recursion_available);
    assert!(!message.metadata.truncation);
    assert!(
        message.queries[0].name.eq_case(&query.question.name),
        "spelt as asked"
    );
    assert_eq!(message.answers.len(), 2);
    assert!(
        message
            .answers
            .iter()
            .all(|r| r.ttl == 30 && r.name.eq_case(&query.question.name))
    );
    assert!(message.edns.is_none(), "not offered, not given");

    let (bytes, given) = over(60, Transport::Udp);
    assert!(
        bytes.len() <= 512 && bytes.len() > 512 - 28,
        "as many as fit"
    );
    let message = Message::from_vec(&bytes).unwrap();
    assert!(message.metadata.truncation && message.answers.len() == given && given < 60);
    let (bytes, given) = over(60, Transport::Tcp);
    assert!(given == 60 && Message::from_vec(&bytes).unwrap().answers.len() == 60);
}

#[test]
fn extensions_raise_the_limit_up_to_ours() {
    let raw = Raw {
        counts: [1, 0, 0, 1],
        tail: &EDNS,
        ..Raw::default()
    };
    let query = parse(&raw.bytes()).unwrap();
    let addresses: Vec<IpAddr> = (1..=100).map(|n| IpAddr::from([93, 184, 216, n])).collect();
    let over = |count| {
        let addresses = &addresses[..count];
        query
            .answer(ResponseCode::NoError, addresses, 30, Transport::Udp)
            .unwrap()
    };
    assert_eq!(over(60).1, 60);
    assert!(over(100).1 < 100, "4096 was offered, 1232 is used");
    let message = Message::from_vec(&over(1).0).unwrap();
    assert_eq!(message.edns.unwrap().max_payload(), MAX_DATAGRAM);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Err(Malformed { reply: Some((reply, _)), .. }) = parse(&bytes) {
            prop_assert!(reply.len() <= 12 + 11, "never more out than a header and EDNS");
            Message::from_vec(&reply).unwrap();
        }
    }

    /// Bytes near a real query go deeper than random ones.
    #[test]
    fn damaged_queries_are_taken_or_refused(
        at in 0_usize..60, byte: u8, cut in 0_usize..60, edns: bool, labels in 0_usize..3,
    ) {
        let names: [&[&[u8]]; 3] = [&[b"api", b"example", b"com"], &[], &[b"x"]];
        let tail: &[u8] = if edns { &EDNS } else { &[] };
        let counts = [1, 0, 0, u16::from(edns)];
        let mut bytes = Raw { counts, tail, labels: names[labels], ..Raw::default() }.bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(bytes.len().max(cut) - cut / 4);
        if let Ok(query) = parse(&bytes) {
            let (answer, _) = query
                .answer(ResponseCode::NXDomain, &[], 0, Transport::Udp)
                .expect("every parsed question can be answered");
            let answer = Message::from_vec(&answer).unwrap();
            prop_assert_eq!(answer.queries.len(), 1);
            if let Some(name) = &query.name {
                prop_assert_eq!(&Name::parse(name.as_str()).unwrap(), name);
            }
        }
    }
}

#[test]
fn the_corpus_of_queries() {
    corpus::run("dns", oracle::query);
}
