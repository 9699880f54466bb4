//! The scenes: what is tried, what came of it, and whether that is as it should be.

use anyhow::{Context as _, Result};
use exeat_tests::stdio::Session;
use serde_json::{Value, json};

use crate::stage::{ELSEWHERE, LIBRARY, Stage};

/// One attempt and its end.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Who tries.
    pub(crate) who: &'static str,
    /// What.
    pub(crate) tries: String,
    /// What came of it.
    pub(crate) came: String,
    /// What should come of it.
    pub(crate) allowed: bool,
    /// Whether it did.
    pub(crate) right: bool,
    /// The record that must say so: pointers into it, and what stands there.
    pub(crate) record: Vec<(&'static str, Value)>,
}

/// Plays all of them, each told to `each` as soon as it is over.
pub(crate) async fn play(stage: &Stage<'_>, mut each: impl FnMut(&Scene)) -> Result<Vec<Scene>> {
    let mut scenes = Vec::new();
    let mut done = |scene: Scene| {
        each(&scene);
        scenes.push(scene);
    };
    done(allowed_call(stage).await?);
    done(caused_request(stage));
    done(denied_call(stage).await?);
    done(unregistered(stage).await?);
    let mut courier = stage.daemon.run("courier")?;
    courier.initialize().await.context("greet the courier")?;
    done(denied_errand(&mut courier).await?);
    done(allowed_request(&mut courier).await?);
    done(refused_request(stage, &mut courier).await?);
    done(unknown_name(stage, &mut courier).await?);
    done(direct(stage, &mut courier).await?);
    courier.close().await.context("let the courier go")?;
    done(unmanaged(stage).await?);
    Ok(scenes)
}

fn library() -> String {
    format!("http://{LIBRARY}/mcp")
}

async fn allowed_call(stage: &Stage<'_>) -> Result<Scene> {
    let said = stage.agent(&library(), "search_books").await?.json()?;
    let text = said.pointer("/answer/result/content/0/text");
    let text = text.and_then(Value::as_str).unwrap_or_default();
    Ok(Scene {
        who: "agent",
        tries: "tools/call search_books of `library`".into(),
        came: if text.starts_with("200") {
            "a result".into()
        } else {
            said.to_string()
        },
        allowed: true,
        right: said.get("status") == Some(&json!(200)) && text.starts_with("200"),
        record: vec![
            ("/kind", json!("mcp")),
            ("/mcp/name", json!("search_books")),
            ("/decision/effect", json!("allow")),
            ("/workload/name", json!("agent")),
        ],
    })
}

/// What the library did while the call was in flight.
fn caused_request(stage: &Stage<'_>) -> Scene {
    let seen = stage.api.seen();
    let arrived = seen.iter().any(|request| request.path.starts_with("/echo"));
    Scene {
        who: "library",
        tries: "GET https://api.lab.example/echo, for that call".into(),
        came: if arrived { "200" } else { "nothing arrived" }.into(),
        allowed: true,
        right: arrived,
        record: vec![
            ("/kind", json!("http")),
            ("/workload/name", json!("library")),
            ("/http/status", json!(200)),
            ("/decision/effect", json!("allow")),
        ],
    }
}

async fn denied_call(stage: &Stage<'_>) -> Result<Scene> {
    let said = stage.agent(&library(), "delete_book").await?.json()?;
    let error = said.pointer("/answer/error");
    Ok(Scene {
        who: "agent",
        tries: "tools/call delete_book of `library`".into(),
        came: error.map_or_else(|| said.to_string(), shown),
        allowed: false,
        right: error.is_some_and(|error| error["code"].is_i64())
            && said.pointer("/answer/id") == Some(&json!(2)),
        record: vec![
            ("/kind", json!("mcp")),
            ("/mcp/name", json!("delete_book")),
            ("/decision/effect", json!("deny")),
        ],
    })
}

async fn unregistered(stage: &Stage<'_>) -> Result<Scene> {
    let url = "https://rogue.lab.example/mcp";
    let said = stage.agent(url, "anything").await?.json()?;
    let error = said.pointer("/answer/error");
    Ok(Scene {
        who: "agent",
        tries: "MCP with rogue.lab.example, not registered".into(),
        came: error.map_or_else(
            || said.to_string(),
            |error| plain(said.get("status"), error),
        ),
        allowed: false,
        right: error.is_some() && stage.rogue.seen().is_empty(),
        record: vec![
            ("/workload/name", json!("agent")),
            ("/http/name", json!("rogue.lab.example")),
            ("/outcome/status", json!("refused")),
        ],
    })
}

fn shown(error: &Value) -> String {
    let message = error["message"].as_str().unwrap_or_default();
    format!("JSON-RPC error {}: {message}", error["code"])
}

/// The body of a refusal outside JSON-RPC.
fn plain(status: Option<&Value>, error: &Value) -> String {
    let message = error.get("message").and_then(Value::as_str);
    let status = status.cloned().unwrap_or_default();
    format!("{status} {}", message.unwrap_or_default())
}

/// Has the courier do something; what it says about it.
async fn order(courier: &mut Session, tool: &str, arguments: Value) -> Result<String> {
    let answer = courier.call(tool, arguments).await?;
    let text = answer.pointer("/result/content/0/text");
    Ok(text
        .and_then(Value::as_str)
        .map_or_else(|| answer.to_string(), str::to_owned))
}

/// A call over standard streams.
async fn denied_errand(courier: &mut Session) -> Result<Scene> {
    let answer = courier.call("erase", json!({})).await?;
    let error = answer.get("error");
    Ok(Scene {
        who: "root",
        tries: "tools/call erase of `courier`, by `exeat run`".into(),
        came: error.map_or_else(|| answer.to_string(), shown),
        allowed: false,
        right: error.is_some_and(|error| error["code"].is_i64()),
        record: vec![
            ("/kind", json!("mcp")),
            ("/mcp/server", json!("courier")),
            ("/mcp/name", json!("erase")),
            ("/decision/effect", json!("deny")),
            ("/identity/user", json!("root")),
        ],
    })
}

async fn allowed_request(courier: &mut Session) -> Result<Scene> {
    let url = "https://api.lab.example/status";
    let said = order(courier, "send", json!({ "method": "GET", "url": url })).await?;
    Ok(Scene {
        who: "courier",
        tries: format!("GET {url}"),
        came: said.chars().take(3).collect(),
        allowed: true,
        right: said.starts_with("200"),
        record: vec![
            ("/workload/name", json!("courier")),
            ("/http/method", json!("GET")),
            ("/decision/effect", json!("allow")),
        ],
    })
}

async fn refused_request(stage: &Stage<'_>, courier: &mut Session) -> Result<Scene> {
    let url = "https://api.lab.example/upload";
    let said = order(courier, "send", json!({ "method": "POST", "url": url })).await?;
    let arrived = stage
        .api
        .seen()
        .iter()
        .any(|request| request.method == "POST");
    let (status, body) = said.split_once(' ').unwrap_or((&said, ""));
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    Ok(Scene {
        who: "courier",
        tries: format!("POST {url}"),
        came: plain(
            Some(&json!(status.parse::<u16>().ok())),
            body.get("error").unwrap_or(&Value::Null),
        ),
        allowed: false,
        right: said.starts_with("403") && !arrived,
        record: vec![
            ("/workload/name", json!("courier")),
            ("/http/method", json!("POST")),
            ("/decision/effect", json!("deny")),
        ],
    })
}

async fn unknown_name(stage: &Stage<'_>, courier: &mut Session) -> Result<Scene> {
    let url = "https://rogue.lab.example/";
    let before = stage.asked("rogue.lab.example");
    let said = order(courier, "send", json!({ "method": "GET", "url": url })).await?;
    Ok(Scene {
        who: "courier",
        tries: format!("GET {url}"),
        came: said.clone(),
        allowed: false,
        right: said.contains("NXDOMAIN") && stage.asked("rogue.lab.example") == before,
        record: vec![
            ("/kind", json!("dns")),
            ("/workload/name", json!("courier")),
            ("/dns/name", json!("rogue.lab.example")),
            ("/decision/effect", json!("deny")),
        ],
    })
}

async fn direct(stage: &Stage<'_>, courier: &mut Session) -> Result<Scene> {
    let before = stage.rogue.connections();
    let said = order(courier, "dial", json!({ "address": ELSEWHERE.to_string() })).await?;
    Ok(Scene {
        who: "courier",
        tries: format!("a connection to {ELSEWHERE}"),
        came: said.clone(),
        allowed: false,
        right: said.contains("refused") && stage.rogue.connections() == before,
        record: vec![
            ("/kind", json!("tcp")),
            ("/workload/name", json!("courier")),
            ("/tcp/address", json!(ELSEWHERE.ip().to_string())),
            ("/outcome/status", json!("refused")),
        ],
    })
}

/// That the server is there, so that it was the kernel that refused.
async fn unmanaged(stage: &Stage<'_>) -> Result<Scene> {
    let said = stage.dial(ELSEWHERE).await?.stdout;
    Ok(Scene {
        who: "nobody",
        tries: format!("a connection to {ELSEWHERE}, unmanaged"),
        came: said.trim().to_owned(),
        allowed: true,
        right: said.starts_with("connected"),
        record: Vec::new(),
    })
}
