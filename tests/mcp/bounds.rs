//! What one server's rules do not reach: other paths of its origin, other sessions than it opened, and methods that
//! stand in a header.

use std::net::{Ipv4Addr, SocketAddr};

use exeat_tests::Lab;
use exeat_tests::lab::WORLD;
use hyper::header::HeaderValue;

use crate::scripted::{Scripted, plain};
use crate::talk::{FAR, Place, Talker};
use crate::world::{URL, World};

const CALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{}}}"#;

fn at(path: &'static str) -> Place {
    Place {
        host: "localhost",
        port: 3947,
        tls: false,
        path,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reached_at_its_own_url() {
    let lab = Lab::new().unwrap();
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), at("/").port);
    let server = Scripted::near(&lab, address, plain).unwrap();
    let rules = r"rules: [{ id: safe, tools: [safe], effect: allow }]";
    let own = [("own", "http://localhost:3947/own")];
    let world = World::new(&lab, &own, rules).await.unwrap();
    let talker = world.talker().await.unwrap();
    for path in [
        "/other",
        "/ownother",
        "/",
        "//own",
        "/own/../other",
        "/%6fwn/%2e%2e/other",
    ] {
        let reply = talker.post(at(path), &[], CALL).await.unwrap();
        assert_eq!(reply.status, 403, "{path}");
        assert!(server.take().is_empty(), "{path}");
    }
    for path in ["/own", "/own/x"] {
        let reply = talker.post(at(path), &[], CALL).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.code()), (200, None), "{path}");
        assert_eq!(server.take().len(), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_client_made_up_has_no_count_of_its_own() {
    let lab = Lab::new().unwrap();
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), at("/").port);
    let server = Scripted::near(&lab, address, plain).unwrap();
    let rules = "rules: [{ id: safe, tools: [safe], effect: allow }]\n\
                 limits: [{ per: [session], calls: 2 }]";
    let own = [("own", "http://localhost:3947/own")];
    let world = World::new(&lab, &own, rules).await.unwrap();
    let talker = world.talker().await.unwrap();
    for (number, session) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let headers = [("mcp-session-id", session)];
        let reply = talker.post(at("/own"), &headers, CALL).await.unwrap();
        assert_eq!(reply.code().is_none(), number < 2, "{session}");
    }
    assert_eq!(server.take().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_anothers_session_uses_up_none_of_its_count() {
    let lab = Lab::new().unwrap();
    let server = Scripted::far(&lab, FAR.host, SocketAddr::new(WORLD, 443), |asked| {
        let mut answer = plain(asked);
        if asked.json()["method"] == "initialize" {
            let name = HeaderValue::from_static("opened");
            answer.headers_mut().insert("mcp-session-id", name);
        }
        answer
    });
    let server = server.unwrap();
    let rules = "rules: [{ id: safe, tools: [safe], effect: allow }]\n\
                 limits: [{ per: [session], calls: 2 }]";
    let world = World::new(&lab, &[("far", URL)], rules).await.unwrap();
    let one = world.talker().await.unwrap();
    let other = world.talker_of("nobody").await.unwrap();
    let first = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#;
    let opened = one.post(FAR, &[], first).await.unwrap();
    assert_eq!(opened.code(), None, "{opened:?}");
    let passes = async |who: &Talker, headers: &[(&str, &str)]| {
        let reply = who.post(FAR, headers, CALL).await.unwrap();
        reply.code().is_none()
    };
    let named = [("mcp-session-id", "opened")];
    // Of their own there is one count, whatever they name.
    assert!(passes(&other, &named).await);
    assert!(passes(&other, &[]).await);
    assert!(!passes(&other, &named).await);
    for goes in [true, true, false] {
        assert_eq!(passes(&one, &named).await, goes);
    }
    for goes in [true, true, false] {
        assert_eq!(passes(&one, &[]).await, goes, "beside the session");
    }
    // Users without names are told apart as well.
    for number in ["54321", "54322"] {
        let unnamed = world.talker_of(number).await.unwrap();
        for goes in [true, true, false] {
            assert_eq!(passes(&unnamed, &named).await, goes, "{number}");
        }
    }
    assert_eq!(server.take().len(), 11);
}
