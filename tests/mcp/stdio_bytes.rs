//! What reaches a stdio server is what was decided, byte by byte, and what reaches a host too.

use exeat_tests::Lab;
use serde_json::{Value, json};

use crate::smuggling::{Fate, PARSE, SAFE, TEXTS, recorded, report, unreadable};
use crate::stdio::{ALL, Wire, alive, instance, policy, wired};

const RULES: &str = "rules: [{ id: safe, tools: [safe], effect: allow }]";

/// One line's fate: what the server hears of it, and what the host is told.
async fn check(
    session: &mut exeat_tests::stdio::Session,
    wire: &mut Wire,
    row: usize,
    bytes: &[u8],
    want: &Fate,
) -> Result<(), String> {
    let before = wire.heard().len();
    session.raw(bytes).await.unwrap();
    let marker = format!("marker-{row}");
    let ping = json!({ "jsonrpc": "2.0", "id": marker, "method": "ping" });
    session.send(&ping).await.unwrap();
    wire.hears(&marker).await;
    let heard = wire.heard();
    let arrived: Vec<&str> = heard
        .get(before..)
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.contains(&marker))
        .collect();
    for line in &arrived {
        let message: Value = serde_json::from_str(line).unwrap();
        if !message["id"].is_null() {
            wire.answers(&message["id"]);
        }
    }
    wire.answers(&json!(marker));
    let mut told = Vec::new();
    loop {
        let message = session.receive().await.unwrap();
        if message["id"] == marker.as_str() {
            break;
        }
        told.push(message);
    }
    let right = match want {
        Fate::Refused(_, code) => {
            arrived.is_empty() && told.len() == 1 && told[0]["error"]["code"] == *code
        }
        Fate::Dropped => arrived.is_empty() && told.is_empty(),
        Fate::Sent(text) => arrived == [*text] && told.len() == 1 && told[0]["result"].is_object(),
    };
    if right {
        return Ok(());
    }
    Err(format!(
        "{}\n  wanted {want:?}\n  told {told:?}\n  arrived {arrived:?}",
        String::from_utf8_lossy(bytes)
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_arrive_as_they_were_judged() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, RULES)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    let mut rows: Vec<(Vec<u8>, Fate)> = TEXTS
        .iter()
        .filter(|(text, _)| !text.is_empty() && !text.contains(['\r', '\n']))
        .map(|(text, fate)| (text.as_bytes().to_vec(), fate.clone()))
        .collect();
    let parse = || Fate::Refused(400, -32700);
    let danger = r#"{"jsonrpc":"2.0","id":51,"method":"tools/call","params":{"name":"danger"}}"#;
    let ping = r#"{"jsonrpc":"2.0","id":50,"method":"ping"}"#;
    let text = |text: String| text.into_bytes();
    rows.extend([
        // Python's readers end a line at a lone CR: the hidden call would run.
        (text(format!("{ping}\r{danger}")), parse()),
        (
            text(format!("{{\"jsonrpc\":\"2.0\",\"id\":50,\"method\":\"ping\",\"params\":{{\"_meta\":{{\"a\":\r{danger}\r}}}}}}")),
            parse(),
        ),
        (text(SAFE.replace(',', ",\r")), parse()),
        (text(format!("{SAFE}\r")), Fate::Sent(SAFE)),
        (text(format!("\u{feff}{SAFE}")), parse()),
        (text(format!("\0{SAFE}")), parse()),
        (text(format!("{ping}\u{2028}{danger}")), parse()),
        (text(format!("{ping}\u{85}{danger}")), parse()),
        (text(format!("{ping}\u{b}{danger}")), parse()),
        (text(format!("{ping}\u{c}{danger}")), parse()),
        (text(format!("{ping}{danger}")), parse()),
        (text(format!("[{SAFE}]")), Fate::Refused(400, -32600)),
        (text(format!("[{SAFE},{danger}]")), Fate::Refused(400, -32600)),
        (b"\r".to_vec(), Fate::Dropped),
        (Vec::new(), Fate::Dropped),
        (
            text(SAFE.replace("\"safe\"", "\"safe\",\"arguments\":{\"s\":\"a\u{2028}b\u{85}c\"}")),
            Fate::Sent(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{"s":"a\u2028b\u0085c"}}}"#),
        ),
        ([&SAFE.as_bytes()[..20], b"\xff", &SAFE.as_bytes()[20..]].concat(), parse()),
    ]);
    let mut faults = Vec::new();
    for (row, (mut bytes, fate)) in rows.into_iter().enumerate() {
        bytes.push(b'\n');
        faults.push(check(&mut session, &mut wire, row, &bytes, &fate).await);
    }
    // The framing of the Language Server Protocol: its headers are no messages, what follows them is one.
    let before = wire.heard().len();
    session
        .raw(format!("Content-Length: {}\r\n\r\n{SAFE}\n", SAFE.len()).as_bytes())
        .await
        .unwrap();
    wire.hears("tools/call").await;
    let told = session.receive().await.unwrap();
    assert_eq!(told["error"]["code"], -32700, "{told}");
    exeat_tests::wait::wait_until("the call arrives", crate::world::LIMIT, || {
        wire.heard().get(before..) == Some(format!("{SAFE}\n").as_str())
    })
    .await
    .unwrap();
    wire.answers(&json!(1));
    assert_eq!(session.receive().await.unwrap()["id"], 1);
    session.close().await.unwrap();
    report(faults);
}

/// In sessions of so many lines that each has a record of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_readers_disagree_about_are_refused_and_recorded() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy(&lab, RULES)).await.unwrap();
    let rows = unreadable();
    let mut faults = Vec::new();
    for (turn, rows) in rows.chunks(8).enumerate() {
        let name = format!("wire-{turn}");
        let mut wire = Wire::new(&lab, &name);
        let mut session = instance(&lab, &name);
        alive(&mut session, &mut wire, "begin").await;
        for (row, (body, _)) in rows.iter().enumerate() {
            let line = [&body[..], b"\n"].concat();
            faults.push(check(&mut session, &mut wire, row, &line, &PARSE).await);
        }
        session.close().await.unwrap();
    }
    report(faults);
    let said: Vec<&str> = rows.iter().map(|(_, said)| *said).collect();
    recorded(&daemon, &said).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_line_without_its_end_is_nothing() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    let before = wire.heard().len();
    session.raw(SAFE.as_bytes()).await.unwrap();
    session.close().await.unwrap();
    assert_eq!(wire.heard().len(), before);
    daemon
        .record("the unfinished line", |record| {
            record["outcome"]["error"] == "a last line without its end"
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_told_what_was_judged() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    let answer =
        |id: &str, result: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    // What the server says to the call with id 1; what the host reads of it, if anything.
    let rows: Vec<(String, Option<String>)> = vec![
        (answer("1", "{}"), Some(answer("1", "{}"))),
        (
            "{\"result\" : {\"a\":\"\\u0062\"},\"id\":1,\"jsonrpc\":\"2.0\"}\r".into(),
            Some(answer("1", r#"{"a":"b"}"#)),
        ),
        // Clients take one for the other.
        (answer(r#""1""#, "{}"), Some(answer("1", "{}"))),
        (
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":5,"message":"m","data":[1]}}"#.into(),
            Some(r#"{"jsonrpc":"2.0","id":1,"error":{"code":5,"message":"m","data":[1]}}"#.into()),
        ),
        (
            r#"{"jsonrpc":"2.0","error":{"code":5,"message":"m"}}"#.into(),
            Some(r#"{"jsonrpc":"2.0","id":1,"error":{"code":5,"message":"m"}}"#.into()),
        ),
        ("Server started".into(), None),
        (format!("{0}{0}", answer("1", "{}")), None),
        (format!("[{}]", answer("1", "{}")), None),
        (
            format!("{}\r{}", answer("1", "{}"), answer("2", "{}")),
            None,
        ),
        (format!("\u{feff}{}", answer("1", "{}")), None),
        (answer("1.0", "{}"), None),
        (answer("1", "[]"), None),
        (answer("1", r#"{"a":NaN}"#), None),
        (answer("1", r#"{"a":1,"a":2}"#), None),
        (answer("1", r#"{"a":"\ud800"}"#), None),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"m"}}"#.into(),
            None,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{},"method":"ping"}"#.into(),
            None,
        ),
        (answer("2", "{}"), None),
        ("null".into(), None),
        ("5".into(), None),
    ];
    let mut violations = 0;
    for (row, (says, reads)) in rows.iter().enumerate() {
        session
            .send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "safe", "arguments": { "row": row } } }))
            .await
            .unwrap();
        wire.hears(&format!("\"row\":{row}}}")).await;
        wire.raw(format!("{says}\n").as_bytes());
        if let Some(line) = reads {
            let read = session.line().await.unwrap();
            assert_eq!(read.as_ref(), Some(line), "{says}");
            continue;
        }
        violations += 1;
        // It is not ended by it, and the call is still waited for.
        let others = alive(&mut session, &mut wire, &format!("alive-{row}")).await;
        assert_eq!(others, Vec::<Value>::new(), "{says}");
        wire.answers(&json!(1));
        assert_eq!(session.receive().await.unwrap()["id"], 1, "{says}");
    }
    // The first one wins, as clients have it.
    session
        .send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": { "_meta": { "turn": "twice" } } }))
        .await
        .unwrap();
    wire.hears("\"twice\"").await;
    wire.say(&json!({ "jsonrpc": "2.0", "id": 1, "result": { "first": true } }));
    wire.say(&json!({ "jsonrpc": "2.0", "id": 1, "result": { "second": true } }));
    assert_eq!(session.receive().await.unwrap()["result"]["first"], true);
    assert_eq!(
        alive(&mut session, &mut wire, "after").await,
        Vec::<Value>::new()
    );
    violations += 1;
    session.close().await.unwrap();
    let ended = daemon
        .record("the session's end", |record| {
            record["lifecycle"]["event"] == "session_ended"
        })
        .await
        .unwrap();
    let counts = ended["lifecycle"]["counts"].to_string();
    assert!(
        counts.contains(&format!(r#"{{"count":{violations},"what":"violations"}}"#)),
        "{violations} {counts}"
    );
    let records = daemon.audit().unwrap();
    let findings = records
        .iter()
        .filter(|record| record["finding"]["what"] == "stdio_violation")
        .count();
    assert_eq!(
        findings, 9,
        "eight of their own, and one at the sixteenth: {violations}"
    );
}
