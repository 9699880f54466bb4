//! What must hold for every sequence of bytes that a workload sends as a query; run by the fuzz target, and by tests
//! over its corpus.

use hickory_proto::op::{Message, MessageType, ResponseCode};

use super::message::{MessageFault, parse};
use super::outcome::Transport;

/// What is taken is what another reader reads, and whatever is answered is an answer to it and to nothing else.
pub fn query(bytes: &[u8]) {
    let answered = |answer: &[u8]| {
        let answer = Message::from_vec(answer);
        let is_ours = answer.as_ref().is_ok_and(|answer| {
            let id = answer.metadata.id.to_be_bytes();
            bytes.starts_with(&id) && answer.metadata.message_type == MessageType::Response
        });
        assert!(is_ours, "an answer that nobody asked for");
        answer.ok()
    };
    match parse(bytes) {
        Ok(query) => {
            let lenient = Message::from_vec(bytes).ok();
            let questions = lenient.map(|message| message.queries).unwrap_or_default();
            assert!(questions.len() == 1, "another number of questions");
            for transport in [Transport::Udp, Transport::Tcp] {
                let answer = query.answer(ResponseCode::NXDomain, &[], 1, transport);
                let answer = answer.and_then(|(answer, _)| answered(&answer));
                let same = answer.is_some_and(|answer| answer.queries == questions);
                assert!(same, "an answer to another question");
            }
        }
        Err(malformed) => match malformed.reply {
            Some((reply, _)) => drop(answered(&reply)),
            None => assert!(
                malformed.fault == MessageFault::NotAQuery,
                "a query without an answer"
            ),
        },
    }
}
