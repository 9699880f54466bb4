//! From the rename of a policy's file to the verdict, on an HTTP connection and in a session that live.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::process::Process;
use exeat_tests::stdio::Session;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::decision::{IDENTITIES, SERVERS, rules};
use crate::ways::{Site, below};
use crate::{Arguments, say};

/// Where the server listens that the connection is to.
const SERVER: &str = "127.0.0.1:3001";
/// Edits, half of which allow a tool and half deny it.
const EDITS: usize = 40;
/// The same for a quick look.
const FEW: usize = 8;
/// How long an edit may take to be noticed.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) async fn measure(arguments: &Arguments, site: &Site) -> Result<Value> {
    let edits = if arguments.quick() { FEW } else { EDITS };
    let mut result = Map::new();
    for count in [100, 1_000, 10_000] {
        say(&format!("reload: {edits} edits of {count} rules"));
        let took = one(site, count, edits).await?;
        result.insert(count.to_string(), took);
    }
    Ok(Value::Object(result))
}

async fn one(site: &Site, count: usize, edits: usize) -> Result<Value> {
    let cgroup = Cgroup::create(&format!("{}-reload", site.lab.name()))?;
    let policy = policy(site, &cgroup, count)?;
    let daemon = site.lab.daemon(&policy).await?;
    let mut serving = site.load(Some(&cgroup));
    serving.args(["upstream", "--listen", SERVER]);
    let mut server = Process::start("near", site.lab.directory(), &mut serving)?;
    server.ready(Duration::from_secs(20)).await?;
    let mut live = Live::open(site, daemon.run("speaker")?).await?;
    let (mut http, mut stdio) = (Vec::new(), Vec::new());
    for edit in 0..edits {
        let allows = edit % 2 == 1;
        let effect = if allows { "allow" } else { "deny" };
        let edited = policy.replace(TURNED, &TURNED.replace("allow", effect));
        daemon.replace_policy(&edited)?;
        let renamed = Instant::now();
        let (mut by_http, mut by_stdio) = (None, None);
        while by_http.is_none() || by_stdio.is_none() {
            ensure!(renamed.elapsed() < LIMIT, "an edit is not noticed");
            if live.http_passes().await? == allows {
                by_http = by_http.or_else(|| Some(renamed.elapsed()));
            }
            if live.stdio_passes().await? == allows {
                by_stdio = by_stdio.or_else(|| Some(renamed.elapsed()));
            }
        }
        http.extend(by_http);
        stdio.extend(by_stdio);
    }
    Ok(json!({ "http_ms": spread(http), "stdio_ms": spread(stdio) }))
}

/// The rules whose effect is turned, as they are written first.
const TURNED: &str = "tools: [echo, big, stream], effect: allow }";

fn policy(site: &Site, cgroup: &Cgroup, count: usize) -> Result<String> {
    let mut text = format!(
        "version: 1
servers:
  s0: {{ listen: \"{SERVER}\", match: {{ cgroup: {} }} }}
  speaker: {{ launch: {{ command: {}, args: [speak], user: nobody }} }}
",
        below(cgroup.path())?,
        site.program().display(),
    );
    text.extend((1..SERVERS).map(|n| format!("  s{n}: {{ url: \"https://s{n}.example/mcp\" }}\n")));
    text.push_str("identities:\n  i0: { user: root }\n");
    text.extend((1..IDENTITIES).map(|n| format!("  i{n}: {{ user: u{n} }}\n")));
    text.push_str(&rules(count, |rule| {
        (
            format!("i{}", rule / SERVERS % IDENTITIES),
            format!("s{}", rule % SERVERS),
        )
    }));
    text.push_str(
        "  - { id: reached, who: [i0], servers: [s0, speaker], methods: [ping], effect: allow }\n",
    );
    text.push_str("  - { id: spoken, who: [i0], servers: [speaker], ");
    text.push_str(TURNED);
    text.push('\n');
    Ok(text)
}

/// What stays open while the policy is edited.
struct Live {
    http: SendRequest<Full<Bytes>>,
    stdio: Session,
}

impl Live {
    async fn open(site: &Site, mut stdio: Session) -> Result<Self> {
        stdio.initialize().await?;
        let address: SocketAddr = SERVER.parse().context("read an address")?;
        let stream = site.lab.inside.connect(address)?;
        let (http, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut live = Self { http, stdio };
        ensure!(live.http_passes().await?, "calls over HTTP do not pass");
        ensure!(live.stdio_passes().await?, "calls do not pass");
        Ok(live)
    }

    async fn http_passes(&mut self) -> Result<bool> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "echo", "arguments": {} } });
        let request = Request::post("/mcp")
            .header("host", SERVER)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .body(Full::new(call.to_string().into()))
            .context("write a request")?;
        let answer = self.http.send_request(request);
        let answer = answer.await.context("call on the kept connection")?;
        let body = answer
            .into_body()
            .collect()
            .await
            .context("read an answer")?;
        let body = body.to_bytes();
        let answer = serde_json::from_slice(&body);
        passes(&answer.with_context(|| String::from_utf8_lossy(&body).into_owned())?)
    }

    async fn stdio_passes(&mut self) -> Result<bool> {
        passes(&self.stdio.call("echo", json!({})).await?)
    }
}

/// Whether a call passed; an error where it was neither answered nor denied.
fn passes(answer: &Value) -> Result<bool> {
    let code = answer.pointer("/error/code").and_then(Value::as_i64);
    match code {
        None if answer.get("result").is_some() => Ok(true),
        // As an unknown tool.
        Some(-32602) => Ok(false),
        _ => bail!("a call came to {answer}"),
    }
}

fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |place: usize| times.get(place).map(|time| time.as_secs_f64() * 1e3);
    let last = times.len().saturating_sub(1);
    json!({ "median": at(times.len() / 2), "p99": at(times.len() * 99 / 100), "max": at(last) })
}
