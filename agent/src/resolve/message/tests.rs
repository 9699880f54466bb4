use super::*;
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
    assert_eq!(name_of(&[long, long, long, &[b'a'; 61]]).unwrap().len(), 253);
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

#[test]
fn broken_queries_get_the_right_code() {
    use MessageFault as F;
    let raw = Raw::default;
    let long: &[u8] = &[b'a'; 63];
    let edns_1 = [0, 0, 41, 0x10, 0, 0, 1, 0, 0, 0, 0];
    let tsig = [0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0];
    let a_record = [0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4];
    let owned_edns = [1, b'a', 0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
    let twice = Raw {
        tail: &Raw::default().bytes()[12..],
        counts: [2, 0, 0, 0],
        ..raw()
    }
    .bytes();
    let pointer = {
        let mut bytes = Raw {
            labels: &[],
            ..raw()
        }
        .bytes();
        bytes.splice(12..13, [0xc0, 0x0c]);
        bytes
    };
    let cases: Vec<(Vec<u8>, F, Option<u8>)> = vec![
        (vec![], F::NotAQuery, None),
        (vec![0; 11], F::NotAQuery, None),
        (
            Raw {
                flags: [0x81, 0],
                ..raw()
            }
            .bytes(),
            F::NotAQuery,
            None,
        ),
        (vec![0; 12], F::Questions, Some(1)),
        (
            Raw {
                tail: &[0; 2000],
                ..raw()
            }
            .bytes(),
            F::TooLong,
            Some(1),
        ),
        (
            Raw {
                flags: [0x28, 0],
                ..raw()
            }
            .bytes(),
            F::Operation,
            Some(4),
        ),
        (
            Raw {
                flags: [0x10, 0],
                ..raw()
            }
            .bytes(),
            F::Operation,
            Some(4),
        ),
        (twice, F::Questions, Some(1)),
        (
            Raw {
                counts: [0, 0, 0, 0],
                ..raw()
            }
            .bytes(),
            F::Questions,
            Some(1),
        ),
        (
            Raw {
                counts: [u16::MAX, 0, 0, 0],
                ..raw()
            }
            .bytes(),
            F::Questions,
            Some(1),
        ),
        (
            Raw {
                counts: [1, 1, 0, 0],
                tail: &a_record,
                ..raw()
            }
            .bytes(),
            F::Records,
            Some(1),
        ),
        (
            Raw {
                counts: [1, 0, 1, 0],
                tail: &a_record,
                ..raw()
            }
            .bytes(),
            F::Records,
            Some(1),
        ),
        (
            Raw {
                counts: [1, 0, 0, 1],
                tail: &a_record,
                ..raw()
            }
            .bytes(),
            F::Records,
            Some(1),
        ),
        (
            Raw {
                counts: [1, 0, 0, 2],
                tail: &EDNS,
                ..raw()
            }
            .bytes(),
            F::Records,
            Some(1),
        ),
        (
            Raw {
                counts: [1, 0, 0, 1],
                tail: &tsig,
                ..raw()
            }
            .bytes(),
            F::Rest,
            Some(1),
        ),
        (
            Raw {
                counts: [1, 0, 0, 1],
                tail: &owned_edns,
                ..raw()
            }
            .bytes(),
            F::Rest,
            Some(1),
        ),
        (
            Raw {
                counts: [1, 0, 0, 1],
                ..raw()
            }
            .bytes(),
            F::Rest,
            Some(1),
        ),
        (
            Raw {
                tail: b"smuggled",
                ..raw()
            }
            .bytes(),
            F::Rest,
            Some(1),
        ),
        (
            Raw {
                counts: [1, 0, 0, 1],
                tail: &[&EDNS[..], b"smuggled"].concat(),
                ..raw()
            }
            .bytes(),
            F::Rest,
            Some(1),
        ),
        (
            Raw {
                counts: [1, 0, 0, 1],
                tail: &edns_1,
                ..raw()
            }
            .bytes(),
            F::Version,
            Some(0),
        ),
        (Raw { class: 3, ..raw() }.bytes(), F::Class, Some(5)),
        (
            Raw {
                class: 255,
                ..raw()
            }
            .bytes(),
            F::Class,
            Some(5),
        ),
        (pointer, F::Question, Some(1)),
        (
            Raw {
                labels: &[long, long, long, long],
                ..raw()
            }
            .bytes(),
            F::Question,
            Some(1),
        ),
        (
            Raw {
                labels: &[&[b'a'; 64]],
                ..raw()
            }
            .bytes(),
            F::Question,
            Some(1),
        ),
        (raw().bytes()[..20].to_vec(), F::Question, Some(1)),
        (
            raw().bytes()[..raw().bytes().len() - 1].to_vec(),
            F::Question,
            Some(1),
        ),
    ];
    for (bytes, want, code) in cases {
        let malformed = parse(&bytes).unwrap_err();
        assert_eq!(malformed.fault, want, "{bytes:?}");
        let reply = malformed.reply.map(|(reply, _)| reply);
        // The low half of the code; the high half of BADVERS travels in EDNS.
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

    let (bytes, cut) = over(2, Transport::Udp);
    assert!(!cut);
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.id, 0xabcd);
    assert!(message.metadata.recursion_desired && message.metadata.recursion_available);
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

    let (bytes, cut) = over(60, Transport::Udp);
    assert!(cut && bytes.len() <= 512);
    let message = Message::from_vec(&bytes).unwrap();
    assert!(message.metadata.truncation && message.answers.is_empty());
    let (bytes, cut) = over(60, Transport::Tcp);
    assert!(!cut && Message::from_vec(&bytes).unwrap().answers.len() == 60);
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
    assert!(!over(60).1);
    assert!(over(100).1, "4096 was offered, 1232 is used");
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
