//! Callers that are known by their tokens: two issuers side by side, and everything that is wrong with a token.

use std::fs;
use std::process::Command;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::{Daemon, binary};
use exeat_tests::lab::WORLD;
use exeat_tests::process::{Finished, run};
use exeat_tests::wait::{wait_for, wait_until};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::place::LIMIT;
use crate::serving::{Serving, Told, call, curl, user};

const URL: &str = "http://127.0.0.1:3001/mcp";
const A: &str = "https://a.example";
const B: &str = "https://b.example";
const IDENTITIES: &str = "identities: {
  research-agent: { jwt: { issuer: \"https://a.example\", claims: { appid: 7f3c0a } } },
  analysts: { jwt: { issuer: \"https://b.example\", claims: { groups: analysts } } },";
const RULES: &str = "
  { id: by-agent, who: [research-agent], servers: [notes], tools: [work, counted], effect: allow },
  { id: by-staff, who: [staff], servers: [notes], effect: allow }";
const MORE: &str =
    "roles: { reader: { members: [analysts], grants: [{ servers: [notes], tools: [work, counted] }] } }
limits: [{ per: [identity], tools: [counted], calls: 1 }]
";

/// An issuer with one key.
pub(crate) struct Issuer {
    name: &'static str,
    key: KeyPair,
}

impl Issuer {
    pub(crate) fn new(name: &'static str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        Self { name, key }
    }

    /// The setting that names it, its key set in a file.
    pub(crate) fn setting(&self, lab: &Lab, file: &str) -> String {
        let path = lab.directory().join(file);
        fs::write(&path, self.keys(file)).unwrap();
        let (name, path) = (self.name, path.display());
        format!("  - {{ issuer: \"{name}\", audience: mcp, jwks: {{ file: {path} }} }}\n")
    }

    /// Its key set, with the key under this id.
    pub(crate) fn keys(&self, kid: &str) -> String {
        let x = url(self.key.der_bytes());
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x });
        json!({ "keys": [key] }).to_string()
    }

    /// A token of this key under the key id `file`, good for `seconds`.
    pub(crate) fn token(&self, issuer: &str, file: &str, seconds: i64, claims: Value) -> String {
        let exp = clock_gettime(ClockId::Realtime).tv_sec + seconds;
        let mut all = json!({ "iss": issuer, "aud": "mcp", "sub": "somebody", "exp": exp });
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        let header = json!({ "alg": "EdDSA", "kid": file }).to_string();
        let message = format!(
            "{}.{}",
            url(header.as_bytes()),
            url(all.to_string().as_bytes())
        );
        let signature = self.key.sign(message.as_bytes()).unwrap();
        format!("{message}.{}", url(&signature))
    }
}

/// Base64 for URLs, without padding.
fn url(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut word = [0_u8; 4];
        word[1..=group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes(word);
        for shift in [18, 12, 6, 0].iter().take(group.len() + 1) {
            let digit = usize::try_from(word >> shift & 63).unwrap();
            text.push(char::from(LETTERS[digit]));
        }
    }
    text
}

/// A call of `tool` with these `Authorization` headers.
pub(crate) async fn ask(launcher: Command, tool: &str, authorizations: &[&str]) -> Told {
    let params = json!({ "name": tool, "arguments": {} });
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params });
    let text = message.to_string();
    let headers: Vec<String> = authorizations
        .iter()
        .map(|value| format!("authorization: {value}"))
        .collect();
    let mut arguments = vec![
        "--include",
        "--header",
        "content-type: application/json",
        "--header",
        "accept: application/json, text/event-stream",
        "--data",
        &text,
    ];
    for header in &headers {
        arguments.extend(["--header", header]);
    }
    arguments.push(URL);
    curl(launcher, &arguments).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_two_issuers_are_verified_decided_and_recorded() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let (a, b) = (Issuer::new(A), Issuer::new(B));
    let settings = format!("issuers:\n{}{}", a.setting(&lab, "a"), b.setting(&lab, "b"));
    let policy = serving.policy("127.0.0.1:3001", RULES, "") + MORE;
    let policy = policy.replace("identities: {", IDENTITIES);
    let daemon = lab.daemon_with(&policy, &settings).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    let as_user = async |name: &str, tool: &str, token: &str| {
        ask(user(&lab, name), tool, &[&format!("Bearer {token}")]).await
    };

    // The user alone may nothing; with the agent's token it may what the agent may.
    let agent = a.token(A, "a", 300, json!({ "appid": "7f3c0a" }));
    let analyst = b.token(
        B,
        "b",
        300,
        json!({ "groups": ["x", "analysts"], "sub": "ann", "email": "ann@b.example" }),
    );
    assert_eq!(ask(user(&lab, "bin"), "work", &[]).await.status, "403");
    let answer = as_user("bin", "work", &agent).await;
    assert!(answer.body.contains("result"), "{answer:?}");
    let answer = as_user("bin", "work", &analyst).await;
    assert!(answer.body.contains("result"), "{answer:?}");
    assert_eq!(
        serving.requests(),
        ["POST tools/call authorized", "POST tools/call authorized"]
    );
    let of = async |subject: &str| {
        let by = |record: &Value| record["identity"]["subject"] == subject;
        daemon.record("a call by token", by).await.unwrap()
    };
    let called = of("somebody").await;
    assert_eq!(called["identity"]["name"], "research-agent", "{called}");
    assert_eq!(called["identity"]["verified_by"], "jwt", "{called}");
    assert_eq!(called["identity"]["issuer"], A, "{called}");
    assert_eq!(called["identity"]["user"], "bin", "{called}");
    assert_eq!(called["decision"]["rule"], "by-agent", "{called}");
    let called = of("ann").await;
    assert_eq!(called["identity"]["name"], "analysts", "{called}");
    assert_eq!(called["identity"]["roles"], json!(["reader"]), "{called}");
    let claims = json!({ "groups": ["x", "analysts"] });
    assert_eq!(called["identity"]["claims"], claims, "{called}");
    let read = json!(["/groups"]);
    assert_eq!(called["identity"]["claims_read"], read, "{called}");

    // Each subject has its own count, and neither is its user's.
    for token in [&agent, &analyst] {
        let first = as_user("bin", "counted", token).await;
        assert!(first.body.contains("result"), "{first:?}");
        let second = as_user("bin", "counted", token).await;
        assert!(second.body.contains("limit_reached"), "{second:?}");
    }

    // A good token of nobody whom policy knows is not enough.
    let nobody = a.token(A, "a", 300, json!({ "appid": "other" }));
    assert_eq!(as_user("bin", "work", &nobody).await.status, "403");

    // What is wrong with a token is a refusal, even of what its bearer may without one.
    let reached = serving.requests().len();
    let expired = a.token(A, "a", -60, json!({ "appid": "7f3c0a" }));
    let forged = b.token(A, "a", 300, json!({ "appid": "7f3c0a" }));
    let elsewhere = a.token(A, "a", 300, json!({ "aud": "other", "appid": "7f3c0a" }));
    let confused = a.token(B, "a", 300, json!({ "groups": "analysts" }));
    for (token, why) in [
        (&expired, "a token that has expired"),
        (&forged, "a token with a wrong signature"),
        (&elsewhere, "a token for another audience"),
        (
            &confused,
            "a token by a key that its issuer does not publish",
        ),
    ] {
        for name in ["bin", "root"] {
            let answer = as_user(name, "work", token).await;
            assert_eq!(answer.status, "401", "{why}: {answer:?}");
            let challenge = "www-authenticate: Bearer error=\"invalid_token\"";
            assert!(answer.body.contains(challenge), "{answer:?}");
            assert!(
                answer.body.contains(r#""code":"invalid_token""#),
                "{answer:?}"
            );
        }
        let refused = daemon
            .record(why, |record| record["decision"]["reason"] == why)
            .await
            .unwrap();
        assert_eq!(refused["decision"]["effect"], "deny", "{refused}");
        assert_eq!(refused["identity"]["verified_by"], "kernel", "{refused}");
    }
    // A token in the query (RFC 6750 section 2.3) is none.
    let asked = format!("{URL}?access_token={agent}");
    let answer = call(user(&lab, "bin"), &asked, json!({})).await;
    assert_eq!(answer.status, "403", "{answer:?}");
    let bearer = format!("Bearer {agent}");
    let twice = ask(user(&lab, "bin"), "work", &[&bearer, &bearer]).await;
    assert_eq!(twice.status, "401", "{twice:?}");
    assert_eq!(serving.requests().len(), reached);

    // A bearer value that is no token is the server's own.
    let own = as_user("root", "work", "gho_0123456789").await;
    assert!(own.body.contains("result"), "{own:?}");
    let last = serving.requests().last().cloned();
    assert_eq!(last.as_deref(), Some("POST tools/call authorized"));

    // So is a token that nobody could verify, as long as the server gets it.
    let foreign = a.token("https://d.example", "a", 300, json!({}));
    let own = as_user("root", "work", &foreign).await;
    assert!(own.body.contains("result"), "{own:?}");

    // Where policy says so, the server does not get it.
    let strips = policy.replace("listen:", "authorization: strip\n    listen:");
    daemon.replace_policy(&strips).unwrap();
    let mut stripped = false;
    for _ in 0..100 {
        let answer = as_user("bin", "work", &agent).await;
        assert!(answer.body.contains("result"), "{answer:?}");
        stripped = serving
            .requests()
            .last()
            .is_some_and(|line| line == "POST tools/call");
        if stripped {
            break;
        }
    }
    assert!(stripped, "{:?}", serving.requests());
    let reached = serving.requests().len();
    let refused = as_user("root", "work", &foreign).await;
    assert_eq!(refused.status, "401", "{refused:?}");
    let why = "a token of an issuer that neither the configuration nor the policy names";
    let told = |record: &Value| {
        let reason = record["decision"]["reason"].as_str();
        reason.is_some_and(|reason| reason.starts_with(why))
    };
    daemon.record(why, told).await.unwrap();
    assert_eq!(serving.requests().len(), reached);
    let opaque = as_user("root", "work", "gho_0123456789").await;
    assert!(opaque.body.contains("result"), "{opaque:?}");

    replayed(&lab, &daemon, &policy).await;

    // No part of any token is in the log, but the claims that the policy reads.
    let secret = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let records = serde_json::to_string(&daemon.audit().unwrap()).unwrap();
    assert!(!records.contains("ann@b.example"));
    for token in [&agent, &analyst, &expired, &forged, &elsewhere, &confused] {
        assert!(!records.contains(&secret(token)) && !daemon.log().contains(&secret(token)));
    }
}

/// What was recorded of callers with tokens is drafted by their identities, and put to a policy that knows others by the same
/// claims; of claims that were not read, nothing can be told.
async fn replayed(lab: &Lab, daemon: &Daemon<'_>, policy: &str) {
    let file = |name: &str, text: &str| {
        let path = lab.directory().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let old = file("old.yaml", policy);
    let drafted = lab.directory().join("drafted.yaml");
    let arguments = [
        "policy", "draft", "--policy", &old, "--since", "1h", "--output",
    ];
    let done = daemon
        .cli(&[&arguments[..], &[drafted.to_str().unwrap()]].concat())
        .await;
    let done = done.unwrap();
    let text =
        fs::read_to_string(&drafted).unwrap_or_else(|error| panic!("{error}: {}", done.stderr));
    for who in ["who: [research-agent]", "who: [analysts]"] {
        assert!(text.contains(who), "{text}");
    }
    assert!(!done.stderr.contains("token"), "{}", done.stderr);
    let compared = async |name: &str, new: &str| {
        let new = file(name, new);
        let done = daemon.cli(&["policy", "diff", &old, &new]).await.unwrap();
        done.json().unwrap()
    };
    let by_group = policy.replace("groups: analysts", "groups: x");
    let same = compared("by-group.yaml", &by_group).await;
    assert_eq!(
        (&same["changed"], &same["unknown"]),
        (&json!(0), &json!(0)),
        "{same}"
    );
    let others = policy.replace("groups: analysts", "groups: others");
    let refused = compared("others.yaml", &others).await;
    assert!(refused["changed"].as_u64() >= Some(2), "{refused}");
    assert_eq!(refused["unknown"], 0, "{refused}");
    let by_mail = policy.replace("groups: analysts", "email: ann@b.example");
    let unknown = compared("by-mail.yaml", &by_mail).await;
    assert!(unknown["unknown"].as_u64() >= Some(2), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_without_keys_refuses() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let a = Issuer::new(A);
    let policy = serving.policy("127.0.0.1:3001", RULES, "") + MORE;
    let daemon = lab
        .daemon(&policy.replace("identities: {", IDENTITIES))
        .await
        .unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    let token = a.token(A, "a", 300, json!({ "appid": "7f3c0a" }));
    let answer = ask(user(&lab, "root"), "work", &[&format!("Bearer {token}")]).await;
    assert_eq!(answer.status, "401", "{answer:?}");
    let why = "a token of an issuer that `issuers` does not configure";
    wait_until("the refusal's record", LIMIT, || {
        let records = daemon.audit().unwrap();
        records
            .iter()
            .any(|record| record["decision"]["reason"] == why)
    })
    .await
    .unwrap();
    assert_eq!(serving.requests(), [""; 0]);
}

/// What a token opened must not outlast it: neither the wait for an answer, nor a stream of events on which one is to come, nor
/// one that is only listened to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_token_began_ends_when_it_expires() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let a = Issuer::new(A);
    let settings =
        format!("issuers:\n{}", a.setting(&lab, "a")).replace("jwks:", "leeway: 0s, jwks:");
    let policy = serving.policy("127.0.0.1:3001", RULES, "") + MORE;
    let policy = policy.replace("identities: {", IDENTITIES);
    let daemon = lab.daemon_with(&policy, &settings).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    let good_for = |seconds: i64| {
        let token = a.token(A, "a", seconds, json!({ "appid": "7f3c0a" }));
        format!("authorization: Bearer {token}")
    };
    let sent = async |token: &str, arguments: Option<Value>| {
        let text = arguments.map(|arguments| {
            let params = json!({ "name": "work", "arguments": arguments });
            json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params })
                .to_string()
        });
        let mut all = vec![
            "--include",
            "--header",
            token,
            "--header",
            "accept: application/json, text/event-stream",
        ];
        if let Some(text) = &text {
            all.extend(["--header", "content-type: application/json", "--data", text]);
        } else {
            all.extend(["--header", "accept: text/event-stream"]);
        }
        all.push(URL);
        curl(user(&lab, "bin"), &all).await
    };
    let token = good_for(10);
    let (waited, answered, listened) = tokio::join!(
        sent(&token, Some(json!({ "seconds": 30 }))),
        sent(&token, Some(json!({ "stream": true }))),
        sent(&token, None),
    );
    assert_eq!((waited.exit, &*waited.status), (0, "401"), "{waited:?}");
    assert!(
        waited
            .body
            .contains("www-authenticate: Bearer error=\"invalid_token\""),
        "{waited:?}"
    );
    assert!(
        waited.body.contains(r#""reason":"invalid_token""#),
        "{waited:?}"
    );
    assert_eq!(
        (answered.exit, &*answered.status),
        (0, "200"),
        "{answered:?}"
    );
    assert!(answered.body.contains("begun"), "{answered:?}");
    let last = answered
        .body
        .lines()
        .rfind(|line| line.starts_with("data:"));
    let last = last.unwrap_or_default();
    assert!(
        last.contains(r#""id":7"#) && last.contains("invalid_token"),
        "{answered:?}"
    );
    assert_eq!(
        (listened.exit, &*listened.status),
        (0, "200"),
        "{listened:?}"
    );
    assert!(listened.body.contains("begun"), "{listened:?}");
    let why = "the token that authorised it expired while it was answered";
    wait_until("three records say so", LIMIT, || {
        let records = daemon.audit().unwrap();
        let told = records.iter().filter(|record| {
            record["decision"]["reason"] == why && record["outcome"]["status"] == "refused"
        });
        told.count() == 3
    })
    .await
    .unwrap();
    // One that lasts has its answer.
    let answer = sent(&good_for(300), Some(json!({ "seconds": 4 }))).await;
    assert!(answer.body.contains("result"), "{answer:?}");
}

/// `exeat approvals ARGUMENTS` as this user.
async fn approvals(lab: &Lab, name: &str, arguments: &[&str]) -> Finished {
    let mut command = user(lab, name);
    command
        .arg(binary().unwrap())
        .arg("approvals")
        .args(arguments)
        .arg("--config")
        .arg(lab.directory().join("exeat.yaml"))
        .arg("--json");
    run(&mut command, LIMIT).await.unwrap()
}

/// The id of the call that waits, once one does.
async fn waiting(lab: &Lab) -> String {
    wait_for("a call waits", LIMIT, async || {
        let listed = approvals(lab, "root", &[]).await.json().ok()?;
        listed[0]["id"].as_str().map(str::to_owned)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_token_names_cannot_approve_its_call() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let a = Issuer::new(A);
    let settings = format!("issuers:\n{}", a.setting(&lab, "a"));
    let rules = "
  { id: all, who: [agents], servers: [notes], effect: allow },
  { id: ask, servers: [notes], tools: [work], effect: approve, approvers: [boss, chief, sso] }";
    let identities = format!(
        "identities: {{ agents: {{ jwt: {{ issuer: \"{A}\" }} }},
  boss: {{ user: games }}, chief: {{ user: daemon }},
  sso: {{ user: man, person: olga }}, olga-sso: {{ jwt: {{ issuer: \"{A}\", claims: {{ sub: 00u1 }} }}, person: olga }},"
    );
    let policy = serving.policy("127.0.0.1:3001", rules, "");
    let policy = policy.replace("identities: {", &identities);
    let daemon = lab.daemon_with(&policy, &settings).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    for (own, claims) in [
        ("games", json!({ "sub": "games@corp.example" })),
        (
            "games",
            json!({ "sub": "00u2", "preferred_username": "CORP\\Games" }),
        ),
        ("man", json!({ "sub": "00u1" })),
    ] {
        let bearer = format!("Bearer {}", a.token(A, "a", 300, claims.clone()));
        let bearers = [&*bearer];
        let decided = async {
            let id = waiting(&lab).await;
            let done = approvals(&lab, own, &["approve", &id]).await;
            let told = done.stdout + &done.stderr;
            assert!(told.contains("who calls cannot approve"), "{claims} {told}");
            let done = approvals(&lab, "daemon", &["approve", &id]).await;
            assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
        };
        let (told, ()) = tokio::join!(ask(user(&lab, "bin"), "work", &bearers), decided);
        assert!(told.body.contains("\"result\""), "{told:?}");
    }
    let approved = |record: &&Value| record["kind"] == "approval";
    let records = daemon.audit().unwrap();
    for record in records.iter().filter(approved) {
        assert_eq!(record["approval"]["approver"], "daemon", "{record}");
    }
    assert_eq!(records.iter().filter(approved).count(), 3);
}

/// A record says who called as the policy has it that decided in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_named_by_the_policy_that_decides() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let a = Issuer::new(A);
    let settings = format!("issuers:\n{}", a.setting(&lab, "a"));
    let rules = "
  { id: all, who: [agents], servers: [notes], effect: allow },
  { id: ask, servers: [notes], tools: [work], effect: approve, approvers: [chief] }";
    let identities = format!(
        "identities: {{ agents: {{ jwt: {{ issuer: \"{A}\", claims: {{ appid: x }} }} }}, chief: {{ user: daemon }},"
    );
    let policy = serving.policy("127.0.0.1:3001", rules, "");
    let policy = policy.replace("identities: {", &identities);
    let daemon = lab.daemon_with(&policy, &settings).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    let claims = json!({ "appid": "x", "team": "y" });
    let bearer = format!("Bearer {}", a.token(A, "a", 300, claims));
    let bearers = [&*bearer];
    let decided = async {
        let id = waiting(&lab).await;
        let renamed = policy
            .replace("agents", "robots")
            .replace("appid: x", "team: y");
        daemon.put_in_force(&renamed).await.unwrap();
        let done = approvals(&lab, "daemon", &["approve", &id]).await;
        assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    };
    let (told, ()) = tokio::join!(ask(user(&lab, "bin"), "work", &bearers), decided);
    assert!(told.body.contains("\"result\""), "{told:?}");
    let call = |record: &Value| record["mcp"]["name"] == "work" && record["outcome"].is_object();
    let call = daemon.record("the call", call).await.unwrap();
    assert_eq!(call["decision"]["generation"], 2, "{call}");
    let identity = &call["identity"];
    assert_eq!(identity["identities"], json!(["robots"]), "{call}");
    assert_eq!(identity["claims"], json!({ "team": "y" }), "{call}");
    assert_eq!(identity["claims_read"], json!(["/team"]), "{call}");
}

/// What a rule let in must not outlast it, whether it was let in for a user or for a token: a stream that is only listened to
/// asks for nothing that would be decided on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_rule_that_let_it_in() {
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    let a = Issuer::new(A);
    let settings = format!("issuers:\n{}", a.setting(&lab, "a"));
    let with = |rules: &str| {
        let policy = serving.policy("127.0.0.1:3001", rules, "");
        policy.replace("identities: {", &IDENTITIES.replace("https://b.example", A))
    };
    let [both, staff, nobody] = [
        with(RULES),
        with("{ id: by-staff, who: [staff], servers: [notes], effect: allow }"),
        with(""),
    ];
    let daemon = lab.daemon_with(&both, &settings).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    let token = a.token(A, "a", 300, json!({ "appid": "7f3c0a" }));
    let bearer = format!("authorization: Bearer {token}");
    let listen = async |name: &str, header: &str| {
        let accept = "accept: text/event-stream";
        let all = ["--header", accept, "--header", header, URL];
        curl(user(&lab, name), &all).await
    };
    let ended = |count: usize| {
        let records = daemon.audit().unwrap();
        let told = records.iter().filter(|record| {
            record["decision"]["reason"] == "the policy does not allow it any more"
        });
        told.count() == count
    };
    let edited = async {
        let both_listen = || {
            serving
                .requests()
                .iter()
                .filter(|line| line.starts_with("GET "))
                .count()
                == 2
        };
        wait_until("both listen", LIMIT, both_listen).await.unwrap();
        daemon.replace_policy(&staff).unwrap();
        wait_until("the token's ends", LIMIT, || ended(1))
            .await
            .unwrap();
        daemon.replace_policy(&nobody).unwrap();
        wait_until("the user's ends", LIMIT, || ended(2))
            .await
            .unwrap();
    };
    let (by_token, by_user, ()) =
        tokio::join!(listen("bin", &bearer), listen("root", "x-none: 1"), edited);
    for told in [by_token, by_user] {
        assert_eq!((told.exit, &*told.status), (0, "200"), "{told:?}");
        assert!(told.body.contains("begun"), "{told:?}");
    }
}

/// Who calls is told by each request, and by nothing that came before it on its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_of_a_connection_shows_its_own_token() {
    const NAME: &str = "mcp.lab.example";
    let lab = Lab::new().unwrap();
    let host = Cgroup::create(&format!("{}-host", lab.name())).unwrap();
    let upstream = lab.https(&[NAME], (WORLD, 443).into()).unwrap();
    let (a, b) = (Issuer::new(A), Issuer::new(B));
    let settings = format!("issuers:\n{}{}", a.setting(&lab, "a"), b.setting(&lab, "b"));
    let cgroup = host.path().file_name().unwrap().to_str().unwrap();
    let policy = format!(
        "version: 1
servers: {{ notes: {{ purpose: test, owner: lab, url: \"https://{NAME}/mcp\" }} }}
hosts: {{ agent: {{ match: {{ cgroup: /{cgroup} }}, servers: [notes] }} }}
{IDENTITIES} staff: {{ user: root }} }}
rules: [
  {{ id: by-agent, who: [research-agent], servers: [notes], tools: [work], effect: allow }},
  {{ id: by-analyst, who: [analysts], servers: [notes], tools: [work], effect: allow }}]
"
    );
    let daemon = lab.daemon_with(&policy, &settings).await.unwrap();
    let agent = json!({ "appid": "7f3c0a", "sub": "agent" });
    let analyst = json!({ "groups": "analysts", "sub": "analyst" });
    let good = a.token(A, "a", 300, agent.clone());
    let second = b.token(B, "b", 300, analyst);
    let expired = a.token(A, "a", -60, agent.clone());
    let foreign = b.token(A, "a", 300, agent.clone());
    let elsewhere = a.token(A, "a", 300, json!({ "aud": "other", "appid": "7f3c0a" }));
    // The token, what its answer says, and whom its record names.
    let (passes, anonymous) = ("\"result\"", "Unknown tool");
    let shown = [
        (Some(&good), passes, Some("agent")),
        (Some(&expired), "invalid_token", None),
        (Some(&good), passes, Some("agent")),
        (Some(&foreign), "invalid_token", None),
        (Some(&good), passes, Some("agent")),
        (Some(&elsewhere), "invalid_token", None),
        (Some(&good), passes, Some("agent")),
        (None, anonymous, None),
        (Some(&second), passes, Some("analyst")),
        (None, anonymous, None),
        (Some(&good), passes, Some("agent")),
    ];
    for version in ["--http1.1", "--http2"] {
        let mut command = host.launcher(lab.direct());
        command.arg("curl");
        let path = |number: usize| format!("/mcp?{version}={number}");
        for (number, (token, _, _)) in shown.iter().enumerate() {
            let message = json!({ "jsonrpc": "2.0", "id": number, "method": "tools/call",
                "params": { "name": "work", "arguments": {} } });
            if number > 0 {
                command.arg("--next");
            }
            command.args(["--silent", "--insecure", version, "--max-time", "20"]);
            // How many connections it took stands after each answer.
            command.args(["--write-out", " %{num_connects}\\n"]);
            command.args(["--header", "content-type: application/json"]);
            command.args(["--header", "accept: application/json, text/event-stream"]);
            if let Some(token) = token {
                command.args(["--header", &format!("authorization: Bearer {token}")]);
            }
            command.args(["--data", &message.to_string()]);
            command.arg(format!("https://{NAME}{}", path(number)));
        }
        let done = run(&mut command, LIMIT).await.unwrap();
        let told: Vec<&str> = done.stdout.lines().collect();
        assert_eq!(told.len(), shown.len(), "{version}: {}", done.stdout);
        for (number, (told, (_, came, subject))) in told.into_iter().zip(shown).enumerate() {
            let connections = u32::from(number == 0).to_string();
            assert!(told.ends_with(&connections), "{version} {number}: {told}");
            assert!(told.contains(came), "{version} {number}: {told}");
            let own = daemon.record("the call", |record| record["http"]["path"] == path(number));
            let own = own.await.unwrap();
            let subject = subject.map_or(Value::Null, |subject| json!(subject));
            assert_eq!(own["identity"]["subject"], subject, "{own}");
            let status = if came == passes { "done" } else { "refused" };
            assert_eq!(own["outcome"]["status"], status, "{own}");
        }
    }
    let passed = shown.iter().filter(|(_, came, _)| *came == passes);
    assert_eq!(upstream.seen().len(), 2 * passed.count());
}
