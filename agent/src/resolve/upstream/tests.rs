use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::resolve::Transport;
use crate::resolve::fake::{Act, FakeServer, record, records, reply};

const PATIENCE: Patience = Patience {
    attempt: Duration::from_secs(5),
    total: Duration::from_secs(10),
    rounds: 1,
    max_ttl: 60,
    max_negative_ttl: 10,
};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

async fn ask_for(server: &FakeServer, text: &str) -> Result<Found, Unresolved> {
    resolve(&[server.address], PATIENCE, &name(text), Family::V4).await
}

/// Answers by the question's name: one line of records a name.
async fn zone(lines: &'static [(&'static str, &'static [&'static str])]) -> FakeServer {
    FakeServer::start(|query, _| {
        let asked = query.queries[0].name.to_ascii();
        let answers = lines
            .iter()
            .find(|(name, _)| *name == asked)
            .map_or(&[][..], |l| l.1);
        vec![Act::Send(records(query, answers))]
    })
    .await
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn addresses_of_the_asked_name_are_found() {
    let server = zone(&[(
        "api.example.com.",
        &[
            "API.example.COM 300 A 93.184.216.34",
            "api.example.com 20 A 93.184.216.35",
        ],
    )])
    .await;
    let found = ask_for(&server, "api.example.com").await.unwrap();
    assert_eq!(texts(&found.addresses), ["93.184.216.34", "93.184.216.35"]);
    assert_eq!(
        (found.ttl, found.server, found.exists),
        (20, server.address, true)
    );
    assert_eq!(server.asked(), ["api.example.com. A Udp"]);
}

#[tokio::test]
async fn what_was_not_asked_for_is_ignored() {
    let server = zone(&[(
        "api.example.com.",
        &[
            "other.example.com 300 A 6.6.6.1",
            "bank.example 300 A 6.6.6.2",
            "api.example.com 300 AAAA 2606:4700::1",
            "bank.example 300 CNAME api.example.com",
            "api.example.com 300 A 93.184.216.34",
            "api.example.com 300 A 93.184.216.34",
        ],
    )])
    .await;
    let found = ask_for(&server, "api.example.com").await.unwrap();
    assert_eq!(texts(&found.addresses), ["93.184.216.34"]);
    assert!(found.aliases.is_empty());
}

#[tokio::test]
async fn aliases_are_followed_inside_an_answer_and_beyond() {
    let server = zone(&[
        (
            "api.example.com.",
            &[
                "b.cdn.example 5 CNAME c.cdn.example",
                "api.example.com 300 CNAME b.cdn.example",
                "api.example.com 300 A 6.6.6.6",
            ],
        ),
        ("c.cdn.example.", &["c.cdn.example 40 A 93.184.216.34"]),
    ])
    .await;
    let found = ask_for(&server, "api.example.com").await.unwrap();
    assert_eq!(
        texts(&found.addresses),
        ["93.184.216.34"],
        "an alias owns no addresses"
    );
    assert_eq!(
        found.aliases,
        [name("b.cdn.example"), name("c.cdn.example")]
    );
    assert_eq!(found.ttl, 5);
    assert_eq!(
        server.asked(),
        ["api.example.com. A Udp", "c.cdn.example. A Udp"]
    );
}

#[tokio::test]
async fn bad_aliases_are_refused() {
    let server = zone(&[
        ("self.example.", &["self.example 9 CNAME self.example"]),
        (
            "loop.example.",
            &[
                "loop.example 9 CNAME x.example",
                "x.example 9 CNAME loop.example",
            ],
        ),
        ("far.example.", &["far.example 9 CNAME back.example"]),
        ("back.example.", &["back.example 9 CNAME far.example"]),
        (
            "fork.example.",
            &[
                "fork.example 9 CNAME x.example",
                "fork.example 9 CNAME y.example",
            ],
        ),
        (
            "odd.example.",
            &["odd.example 9 CNAME a@b.example", "a@b.example 9 A 6.6.6.6"],
        ),
        (
            "dot.example.",
            &["dot.example 9 CNAME a|b.example", "a.b.example 9 A 6.6.6.6"],
        ),
        (
            "number.example.",
            &["number.example 9 CNAME 127.1", "127.1 9 A 6.6.6.6"],
        ),
    ])
    .await;
    for (asked, want) in [
        ("self", "loop"),
        ("loop", "loop"),
        ("far", "loop"),
        ("fork", "two targets"),
        ("odd", "not a host name"),
        ("dot", "not a host name"),
        ("number", "not a host name"),
    ] {
        let fault = ask_for(&server, &format!("{asked}.example"))
            .await
            .unwrap_err()
            .fault;
        assert!(matches!(fault, UpstreamFault::Alias { .. }), "{fault}");
        assert!(fault.to_string().contains(want), "{asked}: {fault}");
    }
}

#[tokio::test]
async fn a_chain_of_aliases_is_bounded() {
    // Each answer leads on to the next number.
    let server = FakeServer::start(|query, _| {
        let asked = query.queries[0].name.to_ascii();
        let number: u32 = asked
            .trim_start_matches('n')
            .split('.')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let line = if number == 8 {
            "n8.example 9 A 93.184.216.34".to_owned()
        } else {
            format!("n{number}.example 9 CNAME n{}.example", number + 1)
        };
        vec![Act::Send(records(query, &[&line]))]
    })
    .await;
    let found = ask_for(&server, "n0.example").await.unwrap();
    assert_eq!((found.aliases.len(), found.addresses.len()), (8, 1));
    let fault = ask_for(&server, "n9.example").await.unwrap_err().fault;
    assert!(fault.to_string().contains("too many"), "{fault}");
    assert_eq!(server.asked().len(), 9 + 9);
}

#[tokio::test]
async fn forged_datagrams_are_dropped_and_counted() {
    let server = FakeServer::start(|query, _| {
        let forged = |edit: &dyn Fn(&mut Message)| {
            let mut message = reply(query, ResponseCode::NoError);
            message.add_answer(record("api.example.com 300 A 6.6.6.6"));
            edit(&mut message);
            Act::Send(message.to_vec().unwrap())
        };
        let other = |text: &str| {
            let mut question = query.queries[0].clone();
            question.name = WireName::from_ascii(text).unwrap();
            question
        };
        let right = records(query, &["api.example.com 300 A 93.184.216.34"]);
        let wrong = records(query, &["api.example.com 300 A 6.6.6.6"]);
        vec![
            forged(&|m| m.metadata.id = m.metadata.id.wrapping_add(1)),
            forged(&|m| m.queries = vec![other("evil.example.com.")]),
            forged(&|m| m.queries.clear()),
            forged(&|m| m.queries = vec![other("api.example.com."), other("api.example.com.")]),
            forged(&|m| m.queries[0].query_type = RecordType::TXT),
            forged(&|m| m.queries[0].query_class = DNSClass::CH),
            forged(&|m| m.metadata.message_type = hickory_proto::op::MessageType::Query),
            forged(&|m| m.metadata.op_code = hickory_proto::op::OpCode::Notify),
            Act::Send(wrong[..wrong.len() - 3].to_vec()),
            Act::Send(Vec::new()),
            Act::SendFromElsewhere(wrong),
            Act::Send(right),
        ]
    })
    .await;
    let found = ask_for(&server, "api.example.com").await.unwrap();
    assert_eq!(texts(&found.addresses), ["93.184.216.34"]);
    assert_eq!(
        found.dropped, 10,
        "the kernel itself drops what comes from elsewhere"
    );
}

#[tokio::test]
async fn a_flood_of_guesses_ends_the_question() {
    let server = FakeServer::start(|query, _| {
        let mut message = reply(query, ResponseCode::NoError);
        message.metadata.id = query.metadata.id.wrapping_add(1);
        let bytes = message.to_vec().unwrap();
        (0..80).map(|_| Act::Send(bytes.clone())).collect()
    })
    .await;
    let unresolved = ask_for(&server, "api.example.com").await.unwrap_err();
    assert!(
        matches!(unresolved.fault, UpstreamFault::Flooded { .. }),
        "{unresolved:?}"
    );
    assert_eq!(unresolved.dropped, 65);
}

#[tokio::test]
async fn ids_are_not_reused() {
    let ids = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    let seen = std::sync::Arc::clone(&ids);
    let server = FakeServer::start(move |query, _| {
        seen.lock().unwrap().insert(query.metadata.id);
        vec![Act::Send(records(query, &["a.example 9 A 93.184.216.34"]))]
    })
    .await;
    for _ in 0..32 {
        ask_for(&server, "a.example").await.unwrap();
    }
    assert!(
        ids.lock().unwrap().len() > 28,
        "random ids hardly ever meet"
    );
}

#[tokio::test]
async fn a_truncated_answer_is_asked_again_over_tcp() {
    let server = FakeServer::start(|query, over| {
        let mut message = reply(query, ResponseCode::NoError);
        if over == Transport::Udp {
            message.metadata.truncation = true;
            message.add_answer(record("api.example.com 300 A 6.6.6.6"));
        } else {
            message.add_answers((0..2000_u32).map(|n| {
                record(&format!(
                    "api.example.com 300 A 93.184.{}.{}",
                    n / 250,
                    n % 250 + 1
                ))
            }));
        }
        vec![Act::Send(message.to_vec().unwrap())]
    })
    .await;
    let found = ask_for(&server, "api.example.com").await.unwrap();
    assert_eq!(
        server.asked(),
        ["api.example.com. A Udp", "api.example.com. A Tcp"]
    );
    assert_eq!(found.addresses.len(), MAX_ADDRESSES, "huge answers are cut");
    assert!(!texts(&found.addresses).contains(&"6.6.6.6".to_owned()));
}

#[tokio::test]
async fn wrong_answers_over_tcp_are_refused() {
    for case in 0..3 {
        let server = FakeServer::start(move |query, over| {
            let mut message = reply(query, ResponseCode::NoError);
            message.metadata.truncation = true;
            match (over, case) {
                (Transport::Udp, _) | (_, 0) => {}
                (Transport::Tcp, 1) => message.metadata.id = message.metadata.id.wrapping_add(1),
                (Transport::Tcp, _) => message.queries[0].query_type = RecordType::MX,
            }
            vec![Act::Send(message.to_vec().unwrap())]
        })
        .await;
        let fault = ask_for(&server, "api.example.com").await.unwrap_err().fault;
        assert!(matches!(fault, UpstreamFault::Malformed { .. }), "{fault}");
    }
}

#[tokio::test]
async fn absences_are_told_apart_and_kept_by_their_soa() {
    let server = FakeServer::start(|query, _| {
        let asked = query.queries[0].name.to_ascii();
        let code = if asked.starts_with("no") {
            ResponseCode::NXDomain
        } else {
            ResponseCode::NoError
        };
        let mut message = reply(query, code);
        if asked.contains("soa") {
            message.add_authority(record("example 900 SOA 7"));
        }
        vec![Act::Send(message.to_vec().unwrap())]
    })
    .await;
    for (asked, exists, ttl) in [
        ("nosoa.example", false, 7),
        ("none.example", false, 0),
        ("soa.example", true, 7),
        ("bare.example", true, 0),
    ] {
        let found = ask_for(&server, asked).await.unwrap();
        assert_eq!(
            (found.exists, found.ttl, found.addresses.len()),
            (exists, ttl, 0),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn another_server_is_asked_when_one_fails() {
    let broken = FakeServer::start(|query, _| {
        vec![Act::Send(
            reply(query, ResponseCode::ServFail).to_vec().unwrap(),
        )]
    })
    .await;
    let referring = FakeServer::start(|query, _| {
        let mut message = reply(query, ResponseCode::NoError);
        message.metadata.recursion_available = false;
        vec![Act::Send(message.to_vec().unwrap())]
    })
    .await;
    let closed = {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let good = zone(&[("a.example.", &["a.example 9 A 93.184.216.34"])]).await;
    let servers = [broken.address, closed, referring.address, good.address];
    let found = resolve(&servers, PATIENCE, &name("a.example"), Family::V4)
        .await
        .unwrap();
    assert_eq!(found.server, good.address);

    let none = resolve(&servers[..1], PATIENCE, &name("a.example"), Family::V4).await;
    let fault = none.unwrap_err().fault;
    assert!(
        matches!(fault, UpstreamFault::Code { rcode: 2, .. }),
        "{fault}"
    );
}

#[tokio::test]
async fn a_server_of_before_extensions_is_asked_without() {
    let server = FakeServer::start(|query, _| {
        if query.edns.is_some() {
            return vec![Act::Send(
                reply(query, ResponseCode::FormErr).to_vec().unwrap(),
            )];
        }
        vec![Act::Send(records(query, &["a.example 9 A 93.184.216.34"]))]
    })
    .await;
    assert_eq!(
        ask_for(&server, "a.example").await.unwrap().addresses.len(),
        1
    );
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn silence_is_waited_for_only_so_long() {
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let server = FakeServer::start(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        Vec::new()
    })
    .await;
    let patience = Patience {
        attempt: Duration::from_millis(20),
        rounds: 2,
        ..PATIENCE
    };
    let none = resolve(&[server.address], patience, &name("a.example"), Family::V4).await;
    assert!(matches!(
        none.unwrap_err().fault,
        UpstreamFault::Timeout { .. }
    ));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let patience = Patience {
        total: Duration::from_millis(20),
        ..PATIENCE
    };
    let none = resolve(&[server.address], patience, &name("a.example"), Family::V4).await;
    assert!(matches!(
        none.unwrap_err().fault,
        UpstreamFault::Deadline { .. }
    ));
}
