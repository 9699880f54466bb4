//! Answers with arbitrary damage: never a panic, never an address that is not in the bytes.

use proptest::prelude::*;

use super::*;

fn question() -> ask::Outgoing {
    let server = "127.0.0.1:53".parse().unwrap();
    ask::Outgoing::new(server, &name("api.example.com"), Family::V4, true).unwrap()
}

fn chain() -> Chain {
    Chain {
        asked: name("api.example.com"),
        links: Vec::new(),
        ttl: 60,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn damaged_answers_are_read_or_dropped(
        damage in proptest::collection::vec((2_usize..260, any::<u8>()), 0..6),
        cut in 0_usize..80,
    ) {
        let query = question();
        let mut message = Message::from_vec(&query.bytes).unwrap().into_response();
        message.add_answers([
            record("api.example.com 300 CNAME b.cdn.example"),
            record("b.cdn.example 300 CNAME c.cdn.example"),
            record("c.cdn.example 300 A 93.184.216.34"),
            record("c.cdn.example 300 AAAA 2606:4700::1"),
        ]);
        message.add_authority(record("example 900 SOA 7"));
        let mut bytes = message.to_vec().unwrap();
        for (at, byte) in damage {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(bytes.len() - cut / 2);
        if let Some(message) = query.matching(&bytes) {
            let mut chain = chain();
            if let Ok((_, addresses)) = read(&message, &mut chain, Family::V4) {
                prop_assert!(addresses.len() <= MAX_ADDRESSES);
                prop_assert!(chain.links.len() <= MAX_ALIASES && chain.ttl <= 60);
            }
        }
    }

    #[test]
    fn arbitrary_answers_are_read_or_dropped(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let query = question();
        let mut bytes = query.id.to_be_bytes().to_vec();
        bytes.extend(tail);
        if let Some(message) = query.matching(&bytes) {
            drop(read(&message, &mut chain(), Family::V4));
        }
    }
}
