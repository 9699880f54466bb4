//! What is taken from an answer.

use super::*;

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
