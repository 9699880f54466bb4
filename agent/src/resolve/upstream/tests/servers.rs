//! Forged, cut, failing and silent servers.

use super::*;

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
