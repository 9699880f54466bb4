//! Tokens that are verified and go no further: what a server gets in their place, and where nothing goes.

use std::fs;
use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::Daemon;
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::upstream::{Seen, Upstream};
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::place::LIMIT;
use crate::serving::{Serving, Told, curl, user};
use crate::tokens::Issuer;

const A: &str = "https://a.example";
const BEARER: &str = "bearer.lab.example";
const KEYED: &str = "keyed.lab.example";
const ASKED: &str = "asked.lab.example";
const MOVED: &str = "moved.lab.example";
const OTHER: &str = "other.lab.example";

const OWN: &str = "0wn-S3cret.of-Exeat";
const KEY: &str = "k3y-S3cret.of-Exeat";
const QUERY: &str = "qu3ry/S3cret of=Exeat";

fn policy(lab: &Lab, host: &str) -> String {
    let place = lab.directory().display();
    format!(
        "version: 1
identities: {{ agent: {{ jwt: {{ issuer: \"{A}\" }} }} }}
rules: [{{ id: by-token, who: [agent], effect: allow }}]
credentials:
  own: {{ file: {place}/own, hosts: [{BEARER}, {MOVED}] }}
  key: {{ file: {place}/key, header: X-Api-Key, prefix: 'k ' }}
  asked: {{ file: {place}/asked, query: api_key }}
servers:
  bearer: {{ url: \"https://{BEARER}/mcp\", authorization: {{ credential: own }} }}
  keyed: {{ url: \"https://{KEYED}/mcp\", authorization: {{ credential: key }} }}
  asked: {{ url: \"https://{ASKED}/mcp\", authorization: {{ credential: asked }} }}
  moved: {{ url: \"https://{MOVED}/redirect\", authorization: {{ credential: own }} }}
  other: {{ url: \"https://{OTHER}/mcp\", authorization: strip }}
hosts:
  claude: {{ match: {{ cgroup: /{host} }}, servers: [bearer, keyed, asked, moved, other] }}
"
    )
}

struct Site<'lab> {
    lab: &'lab Lab,
    host: Cgroup,
    there: Upstream,
    other: Upstream,
    token: String,
    settings: String,
}

impl<'lab> Site<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        for (name, secret) in [("own", OWN), ("key", KEY), ("asked", QUERY)] {
            lab.keep(name, secret).unwrap();
        }
        let issuer = Issuer::new(A);
        let names = [BEARER, KEYED, ASKED, MOVED];
        Self {
            lab,
            host: Cgroup::create(&format!("{}host", lab.name())).unwrap(),
            there: lab.https(&names, SocketAddr::new(WORLD, 443)).unwrap(),
            other: lab
                .https(&[OTHER], SocketAddr::new(WORLD_OTHER, 443))
                .unwrap(),
            token: issuer.token(A, "a", 300, json!({})),
            settings: format!("issuers:\n{}", issuer.setting(lab, "a")),
        }
    }

    fn policy(&self) -> String {
        policy(self.lab, &format!("{}host", self.lab.name()))
    }

    /// What curl is told as the host, with its token.
    async fn ask(&self, arguments: &[&str]) -> Told {
        let bearer = format!("authorization: Bearer {}", self.token);
        let launcher = self.host.launcher(self.lab.direct());
        let all = [&["--include", "--header", &bearer], arguments].concat();
        curl(launcher, &all).await
    }

    /// The same for a POST of `message`.
    async fn post(&self, url: &str, message: &Value, more: &[&str]) -> Told {
        let text = message.to_string();
        let usual = [
            "--header",
            "content-type: application/json",
            "--header",
            "accept: application/json, text/event-stream",
            "--data",
            &text,
        ];
        self.ask(&[&usual[..], more, &[url]].concat()).await
    }

    fn last(&self) -> Seen {
        self.there.seen().pop().unwrap()
    }
}

fn call(tool: &str) -> Value {
    let params = json!({ "name": tool, "arguments": {} });
    json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params })
}

/// All values of a header, under each name that servers may take for it.
fn values<'s>(seen: &'s Seen, name: &str) -> Vec<&'s str> {
    let those = seen.headers.iter();
    let those = those.filter(|(key, _)| key.replace('_', "-") == name);
    those.map(|(_, value)| value.as_str()).collect()
}

async fn named(daemon: &Daemon<'_>, tool: &str) -> Value {
    let what = format!("the record of {tool}");
    let called = |record: &Value| record["mcp"]["name"] == tool;
    daemon.record(&what, called).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verified_token_goes_no_further_and_a_credential_goes_in_its_place() {
    let lab = Lab::new().unwrap();
    let site = Site::new(&lab);
    // At the finest level: whatever any library says.
    let policy = site.policy();
    let daemon = lab.prepared(&policy, &site.settings, "trace");
    let daemon = daemon.await.unwrap();
    let bearer = format!("https://{BEARER}/mcp");

    for (version, tool) in [("--http1.1", "first"), ("--http2", "second")] {
        let told = site.post(&bearer, &call(tool), &[version]).await;
        assert!(told.body.contains("\"result\""), "{told:?}");
        let seen = site.last();
        assert_eq!(values(&seen, "authorization"), [format!("Bearer {OWN}")]);
        let record = named(&daemon, tool).await;
        assert_eq!(record["http"]["credential"], "own", "{record}");
        assert_eq!(record["identity"]["verified_by"], "jwt", "{record}");
        assert_eq!(record["outcome"]["status"], "done", "{record}");
    }
    // What carries no message, and each message of a batch.
    for method in ["GET", "DELETE", "OPTIONS"] {
        let told = site.ask(&["--request", method, &bearer]).await;
        assert_eq!(told.exit, 0, "{method}: {told:?}");
        let seen = site.last();
        assert_eq!(seen.method, method);
        assert_eq!(values(&seen, "authorization"), [format!("Bearer {OWN}")]);
        let sent = |record: &Value| record["http"]["method"] == method;
        let record = daemon.record(method, sent).await.unwrap();
        assert_eq!(record["http"]["credential"], "own", "{record}");
    }
    let mut several = json!([call("third"), call("fourth")]);
    several[1]["id"] = json!(8);
    site.post(&bearer, &several, &[]).await;
    assert_eq!(values(&site.last(), "authorization").len(), 1);
    for tool in ["third", "fourth"] {
        let record = named(&daemon, tool).await;
        assert_eq!(record["http"]["credential"], "own", "{record}");
    }

    // Another header: the token goes no further, nor does what a server may take for the credential.
    let own = ["--header", "x_api_key: mine", "--header", "X-Api-Key: mine"];
    let url = format!("https://{KEYED}/mcp");
    let told = site.post(&url, &call("keyed"), &own).await;
    assert!(told.body.contains("\"result\""), "{told:?}");
    let seen = site.last();
    assert_eq!(values(&seen, "authorization"), [""; 0]);
    assert_eq!(values(&seen, "x-api-key"), [format!("k {KEY}")]);
    // In the query.
    let url = format!("https://{ASKED}/mcp?a=1&Api%5fKey=mine&b=2");
    let told = site.post(&url, &call("asked"), &[]).await;
    assert!(told.body.contains("\"result\""), "{told:?}");
    let seen = site.last();
    assert_eq!(values(&seen, "authorization"), [""; 0]);
    assert_eq!(
        seen.path,
        "/mcp?a=1&b=2&api_key=qu3ry%2FS3cret%20of%3DExeat"
    );

    // A redirect is the client's to follow: elsewhere, nothing is put in.
    let url = format!("https://{MOVED}/redirect?to=https://{OTHER}/mcp");
    let moved = call("moved");
    let told = site.post(&url, &moved, &["--location-trusted"]).await;
    assert!(told.body.contains("\"result\""), "{told:?}");
    assert_eq!(
        values(&site.last(), "authorization"),
        [format!("Bearer {OWN}")]
    );
    let elsewhere = site.other.seen();
    assert_eq!(elsewhere.len(), 1, "{elsewhere:?}");
    assert_eq!(values(&elsewhere[0], "authorization"), [""; 0]);

    // No server has seen the token, and nothing that is written holds it or a secret.
    let arrived = json!([site.there.seen(), site.other.seen()]).to_string();
    let signature = site.token.rsplit('.').next().unwrap();
    assert!(!arrived.contains(signature), "the token is forwarded");
    let records = json!(daemon.audit_lines().unwrap()).to_string();
    let status = daemon.status().await.unwrap().to_string();
    let log = daemon.log();
    assert!(log.contains("TRACE"), "nothing is traced");
    for secret in [OWN, KEY, QUERY, "qu3ry%2FS3cret", signature] {
        for text in [&records, &status, &log] {
            assert!(!text.contains(secret), "{secret} is told");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_credential_nothing_reaches_the_server() {
    let lab = Lab::new().unwrap();
    let site = Site::new(&lab);
    let policy = site.policy();
    let daemon = lab.daemon_with(&policy, &site.settings);
    let daemon = daemon.await.unwrap();
    fs::remove_file(lab.directory().join("own")).unwrap();
    daemon.reload().unwrap();
    let finding = |record: &Value| record["finding"]["what"] == "credential_unavailable";
    daemon.record("the finding", finding).await.unwrap();
    let url = format!("https://{BEARER}/mcp");
    let told = site.post(&url, &call("refused"), &[]).await;
    assert_eq!(told.status, "200", "{told:?}");
    assert!(told.body.contains("\"code\":-31503"), "{told:?}");
    assert!(
        told.body.contains(r#""reason":"credential_unavailable""#),
        "{told:?}"
    );
    let record = named(&daemon, "refused").await;
    assert_eq!(record["outcome"]["status"], "refused", "{record}");
    assert_eq!(record["decision"]["effect"], "deny", "{record}");
    assert_eq!(record["http"]["credential"], "own", "{record}");
    let reason = record["decision"]["reason"].as_str().unwrap();
    assert!(reason.contains("`own` cannot be had"), "{reason}");
    for method in ["GET", "DELETE"] {
        let told = site.ask(&["--request", method, &url]).await;
        assert_eq!(told.status, "503", "{method}: {told:?}");
        assert!(told.body.contains("credential_unavailable"), "{told:?}");
    }
    assert_eq!(site.there.seen().len(), 0);

    // Once it is there, it goes.
    lab.keep("own", OWN).unwrap();
    daemon.reload().unwrap();
    wait_for("the credential is sent", LIMIT, async || {
        site.post(&url, &call("sent"), &[]).await;
        site.there.seen().pop()
    })
    .await
    .unwrap();
    assert_eq!(
        values(&site.last(), "authorization"),
        [format!("Bearer {OWN}")]
    );
}

/// In clear text no credential goes anywhere, not to loopback either: such a policy is refused, and the last good one stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_clear_text_it_goes_nowhere() {
    const REPLACED: &str = "authorization: { credential: own }\n    listen:";
    let lab = Lab::new().unwrap();
    let mut serving = Serving::new(&lab);
    lab.keep("own", OWN).unwrap();
    let rules = "{ id: staff, who: [staff], servers: [notes], effect: allow }";
    let policy = serving.policy("127.0.0.1:3001", rules, "");
    let daemon = lab.daemon(&policy).await.unwrap();
    serving.start(&lab, "127.0.0.1", 3001).await;
    let credentials = format!(
        "credentials: {{ own: {{ file: {}/own }} }}\n",
        lab.directory().display()
    );
    let replacing = policy.replace("listen:", REPLACED) + &credentials;
    daemon.replace_policy(&replacing).unwrap();
    let refused = |record: &Value| {
        let why = record["finding"]["detail"].as_str().unwrap_or_default();
        record["finding"]["what"] == "policy_refused" && why.contains("in clear text")
    };
    daemon
        .record("the policy is refused", refused)
        .await
        .unwrap();
    let url = "http://127.0.0.1:3001/mcp";
    let told = crate::serving::call(user(&lab, "root"), url, json!({})).await;
    assert!(told.body.contains("result"), "{told:?}");
    assert_eq!(serving.requests(), ["POST tools/call"]);
}
