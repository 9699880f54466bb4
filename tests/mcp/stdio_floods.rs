//! Servers and hosts that say more than anybody can take: all of it arrives where it is allowed, what is held is bounded,
//! the log is not filled, and a session beside it is answered all the while.

use std::cell::Cell;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::daemon::Daemon;
use exeat_tests::process::resident;
use exeat_tests::wait::wait_until;
use serde_json::{Value, json};
use tokio::join;
use tokio::time::{Instant, timeout};

use crate::stdio::{ALL, Wire, alive, policy, wired};
use crate::stdio_faults::{Beside, ask, ended, odd};
use crate::world::LIMIT;

/// Messages of a flood.
const FLOOD: usize = 100_000;
/// Calls beside a flood that must be answered before it is over: one that waits for its end is alone.
const MEANWHILE: u32 = 5;
/// How many times as long as when all is quiet a call may take, on average.
const SLOWER: u32 = 20;

/// The gate and the supervisor.
pub(crate) async fn processes(daemon: &Daemon<'_>) -> [u32; 2] {
    let gate = &daemon.status().await.unwrap()["gate"]["pid"];
    [gate.as_u64().unwrap().try_into().unwrap(), daemon.pid()]
}

/// Asks `beside` for as long as `flood` lasts, which is read by whoever it is for. It is answered all the while, and not
/// much slower than before.
pub(crate) async fn meanwhile<T>(beside: &mut Beside, flood: impl Future<Output = T>) -> T {
    let quiet = Instant::now();
    for _ in 0..MEANWHILE {
        beside.works().await;
    }
    let quiet = quiet.elapsed() / MEANWHILE;
    let (began, over) = (Instant::now(), Cell::new(false));
    let flood = async {
        let came = flood.await;
        over.set(true);
        came
    };
    let asked = async {
        let mut answered = 0;
        while !over.get() {
            beside.works().await;
            answered += u32::from(!over.get());
        }
        answered
    };
    let (came, answered) = join!(flood, asked);
    let took = began.elapsed() / answered.max(1);
    println!("beside it: {answered} calls, {took:?} each; {quiet:?} before");
    assert!(answered >= MEANWHILE, "{answered} answered");
    assert!(took <= quiet * SLOWER, "{took:?}, before {quiet:?}");
    beside.works().await;
    came
}

fn numbered(number: &str) -> String {
    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": number } }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_flood_arrives_whole_and_harms_nobody() {
    let lab = Lab::new().unwrap();
    let script = format!(
        "read line; seq -f '{}' {FLOOD}; exec cat >/dev/null",
        numbered("%.0f")
    );
    let daemon = lab.daemon(&odd(&lab, &script)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = daemon.run("odd").unwrap();
    let flood = async move {
        let begin = json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" });
        session.send(&begin).await.unwrap();
        for number in 1..=FLOOD {
            let line = session.line().await.unwrap().expect("a line");
            assert_eq!(line, numbered(&number.to_string()));
        }
        session
    };
    let mut session = meanwhile(&mut beside, flood).await;
    session.close().await.unwrap();
    assert_eq!(session.line().await.unwrap(), None, "nothing more");
    passed(&daemon, "server", "notifications/message").await;
}

/// All of the flood is counted in the record of its session's end, and few have records of their own.
async fn passed(daemon: &Daemon<'_>, from: &str, method: &str) {
    let end = ended(daemon, "the server ended").await;
    let counts = end["lifecycle"]["counts"].as_array().unwrap();
    let all = json!({ "what": method, "from": from, "count": FLOOD });
    assert!(counts.contains(&all), "{end}");
    let records = daemon.audit().unwrap();
    let told = told(&records, from, method);
    let doubled = (0..=FLOOD.ilog2()).map(|power| 1_u64 << power);
    assert_eq!(told, doubled.collect::<Vec<_>>());
}

/// The counts in the records of what `from` told that passed.
pub(crate) fn told(records: &[Value], from: &str, method: &str) -> Vec<u64> {
    let of = records.iter().filter(|record| {
        record["mcp"]["method"] == method
            && record["mcp"]["from"].as_str().unwrap_or("client") == from
            && record["outcome"]["status"] == "done"
    });
    of.map(|record| record["mcp"]["count"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hosts_flood_arrives_whole_and_harms_nobody() {
    const METHOD: &str = "notifications/progress";
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = wired(&daemon, &mut wire).await;
    let line = |number: usize| {
        let params = json!({ "progressToken": "p", "progress": number });
        json!({ "jsonrpc": "2.0", "method": METHOD, "params": params }).to_string() + "\n"
    };
    let flood = async move {
        let before = wire.heard_bytes();
        let lines: Vec<String> = (0..FLOOD).map(line).collect();
        let bytes = lines.iter().map(String::len).sum::<usize>();
        for some in lines.chunks(1000) {
            session.raw(some.concat().as_bytes()).await.unwrap();
        }
        wait_until("all of it arrives", LIMIT, || {
            wire.heard_bytes() - before >= bytes as u64
        })
        .await
        .unwrap();
        let heard = wire.heard().split_off(usize::try_from(before).unwrap());
        assert_eq!(heard.lines().count(), FLOOD);
        for (heard, sent) in heard.split_inclusive('\n').zip(&lines) {
            assert_eq!(heard, sent);
        }
        (session, wire)
    };
    let (mut session, mut wire) = meanwhile(&mut beside, flood).await;
    let others = alive(&mut session, &mut wire, "end").await;
    assert_eq!(others, Vec::<Value>::new());
    session.close().await.unwrap();
    passed(&daemon, "client", METHOD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_harm_nobody_else() {
    let lab = Lab::new().unwrap();
    // Lines that are no message, messages, and standard error, as fast as it can.
    let script = [
        "read line",
        "yes 'not a message' | head -n 100000",
        r#"yes '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}' | head -n 50000"#,
        "yes 'token ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' | head -n 50000 >&2",
        r#"echo '{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"last"}}'"#,
        "cat >/dev/null",
    ]
    .join("; ");

    let daemon = lab.daemon(&odd(&lab, &script)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = daemon.run("odd").unwrap();
    let flood = async move {
        let begin = json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" });
        session.send(&begin).await.unwrap();
        let mut lines = 0;
        loop {
            let line = session.line().await.unwrap().expect("a line");
            assert!(
                line.starts_with(r#"{"jsonrpc":"2.0","method":"notifications/message""#),
                "{line}"
            );
            lines += 1;
            if line.contains("last") {
                break;
            }
        }
        assert_eq!(lines, 50_001);
        session
    };
    let mut session = meanwhile(&mut beside, flood).await;
    session.close().await.unwrap();
    beside.works().await;
    ended(&daemon, "the server ended").await;
    let mut records = daemon.audit().unwrap();
    records.retain(|record| record["workload"]["name"] == "odd");
    let findings: Vec<&Value> = records
        .iter()
        .filter(|record| record["finding"]["what"] == "stdio_violation")
        .collect();
    assert!(findings.len() < 40, "{}", findings.len());
    assert!(records.len() < 200, "{}", records.len());
    let errors = std::fs::read_to_string(lab.directory().join("run-odd.err")).unwrap();
    assert_eq!(errors.lines().count(), 50_000);
    assert!(!errors.contains("ghp_aaaa"), "secrets are masked");
}

/// Both sides write and neither reads: what the gate holds is bounded, and when one reads again all goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_not_read_from() {
    let lab = Lab::new().unwrap();
    let denied = "rules: [{ id: pings, tools: [none], effect: allow }]";
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, denied)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = wired(&daemon, &mut wire).await;
    // Refusals for the host, which does not read them yet.
    let mut sent = 0;
    let call = format!(
        "{}\n",
        json!({ "jsonrpc": "2.0", "id": "ID", "method": "tools/call", "params": { "name": "x" } })
    );
    while sent < 100_000 {
        let lines: String = (sent..sent + 100)
            .map(|id| call.replace("\"ID\"", &id.to_string()))
            .collect();
        if timeout(Duration::from_secs(2), session.raw(lines.as_bytes()))
            .await
            .is_err()
        {
            break;
        }
        sent += 100;
    }
    assert!(
        sent < 100_000,
        "the gate reads on although it is not read from"
    );
    let [gate, _] = processes(&daemon).await;
    let resident = resident(gate).unwrap();
    assert!(resident < 200 << 20, "{resident} bytes");
    beside.works().await;
    // Requests of the server are refused meanwhile, and neither waits for the other.
    wire.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage" }));
    wire.hears("-31403").await;
    let refusals = async move {
        for _ in 0..sent {
            let answer = session.receive().await.unwrap();
            assert_eq!(answer["error"]["code"], -32602, "{answer}");
        }
    };
    // That may be over before another call is answered.
    join!(refusals, beside.works());
}

/// What is no message of the host's is refused each time, and recorded in a way that no flood fills the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_talks_nonsense_does_not_fill_the_log() {
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, ALL)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = wired(&daemon, &mut wire).await;
    beside.works().await;
    for turn in 0..20 {
        session.raw(b"no message\n").await.unwrap();
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["error"]["code"], -32700, "{answer}");
        let nothing = json!({ "jsonrpc": "2.0", "id": turn, "result": {} });
        session.send(&nothing).await.unwrap();
    }
    beside.works().await;
    alive(&mut session, &mut wire, "end").await;
    session.close().await.unwrap();
    let end = ended(&daemon, "the server ended").await;
    let counts = &end["lifecycle"]["counts"];
    beside.works().await;
    let refused = json!({ "what": "refused", "count": 40 });
    assert!(counts.as_array().unwrap().contains(&refused), "{end}");
    let mut records = daemon.audit().unwrap();
    records.retain(|record| record["mcp"]["method"] == "" && record["outcome"].is_object());
    // Eight, the sixteenth and the thirty-second.
    assert_eq!(records.len(), 10, "{records:?}");
}

/// Those of either side, whatever else was refused before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_notifications_do_not_fill_the_log() {
    const METHOD: &str = "vendor/told";
    let lab = Lab::new().unwrap();
    let none = "rules: [{ id: none, tools: [none], effect: allow }]";
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, none)).await.unwrap();
    let mut beside = Beside::new(&lab).await;
    let mut session = wired(&daemon, &mut wire).await;
    for turn in 0..10 {
        ask(&mut session, turn).await;
        let answer = session.receive().await.unwrap();
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
    let told = json!({ "jsonrpc": "2.0", "method": METHOD });
    let lines = format!("{told}\n").repeat(40);
    session.raw(lines.as_bytes()).await.unwrap();
    wire.raw(lines.as_bytes());
    let others = alive(&mut session, &mut wire, "end").await;
    assert_eq!(others, Vec::<Value>::new());
    assert!(!wire.heard().contains(METHOD), "{}", wire.heard());
    session.close().await.unwrap();
    beside.works().await;
    let end = ended(&daemon, "the server ended").await;
    let refused = json!({ "what": "refused", "count": 90 });
    let counts = end["lifecycle"]["counts"].as_array().unwrap();
    assert!(counts.contains(&refused), "{end}");
    let records = daemon.audit().unwrap();
    for from in ["client", "server"] {
        let records = records.iter().filter(|record| {
            record["mcp"]["method"] == METHOD
                && record["mcp"]["from"].as_str().unwrap_or("client") == from
                && record["decision"]["effect"] == "deny"
        });
        // Eight, the sixteenth and the thirty-second.
        assert_eq!(records.count(), 10, "{from}");
    }
    let calls = records.iter();
    let calls = calls.filter(|record| record["mcp"]["method"] == "tools/call");
    assert_eq!(calls.count(), 10, "each call has its own");
}

/// What passes without an answer is recorded whenever its number has doubled: each method of each side by itself, with what
/// was decided, and where it is only observed as what is refused is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passing_notifications_are_recorded_with_their_numbers() {
    const RULES: &str = "rules:
  - { id: seen, methods: [\"*\"], effect: allow }
  - { id: watched, methods: [vendor/watched], effect: deny, mode: observe }";
    let lab = Lab::new().unwrap();
    let mut wire = Wire::new(&lab, "wire");
    let daemon = lab.daemon(&policy(&lab, RULES)).await.unwrap();
    let mut session = wired(&daemon, &mut wire).await;
    let cases = [
        ("vendor/one", 9, 5),
        ("vendor/other", 1, 2),
        ("vendor/watched", 20, 11),
    ];
    for (method, up, down) in cases {
        let line = format!("{}\n", json!({ "jsonrpc": "2.0", "method": method }));
        session.raw(line.repeat(up).as_bytes()).await.unwrap();
        wire.raw(line.repeat(down).as_bytes());
    }
    let others = alive(&mut session, &mut wire, "end").await;
    assert_eq!(others.len(), 18);
    session.close().await.unwrap();
    let end = ended(&daemon, "the server ended").await;
    let counts = end["lifecycle"]["counts"].as_array().unwrap();
    for (method, up, down) in cases {
        for (from, count) in [("client", up), ("server", down)] {
            let all = json!({ "what": method, "from": from, "count": count });
            assert!(counts.contains(&all), "{end}");
        }
    }
    let records = daemon.audit().unwrap();
    let counts = |from: &str, method: &str| told(&records, from, method);
    assert_eq!(counts("client", "vendor/one"), [1, 2, 4, 8]);
    assert_eq!(counts("server", "vendor/one"), [1, 2, 4]);
    assert_eq!(counts("client", "vendor/other"), [1]);
    assert_eq!(counts("server", "vendor/other"), [1, 2]);
    let eight = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(
        counts("client", "vendor/watched"),
        [&eight[..], &[16]].concat()
    );
    assert_eq!(counts("server", "vendor/watched"), eight);
    for record in records
        .iter()
        .filter(|record| record["mcp"]["count"].is_u64())
    {
        assert_eq!(record["kind"], "mcp", "{record}");
        assert_eq!(record["session"]["id"], end["session"]["id"], "{record}");
        assert_eq!(record["decision"]["effect"], "allow", "{record}");
        let watched = record["mcp"]["method"] == "vendor/watched";
        let would = watched.then_some("watched");
        assert_eq!(record["decision"]["would_rule"].as_str(), would, "{record}");
        if !watched {
            assert_eq!(record["decision"]["rule"], "seen", "{record}");
        }
    }
}
