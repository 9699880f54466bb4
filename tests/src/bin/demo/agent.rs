//! The MCP host: the handshake, one call of a tool, and a line of JSON about what came back.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::rpc::REVISION;
use crate::{show, web};

/// The call.
#[derive(Debug, clap::Args)]
pub(crate) struct Call {
    /// Where the server is
    url: String,
    /// The tool
    tool: String,
}

/// Makes the call. A refused handshake is an answer too.
pub(crate) async fn run(call: Call) -> Result<()> {
    let hello = json!({
        "protocolVersion": REVISION,
        "capabilities": {},
        "clientInfo": { "name": "demo-agent", "version": "1.0.0" },
    });
    let mut last = ask(&call.url, request(1, "initialize", hello)).await?;
    if last.pointer("/answer/result").is_some() {
        let told = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        ask(&call.url, told).await?;
        let params = json!({ "name": call.tool, "arguments": {} });
        last = ask(&call.url, request(2, "tools/call", params)).await?;
    }
    show::tell(&last.to_string());
    Ok(())
}

fn request(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

async fn ask(url: &str, message: Value) -> Result<Value> {
    let mut headers = vec![("accept", "application/json, text/event-stream")];
    // Before the handshake there is no agreed revision to name.
    if message.get("method") != Some(&json!("initialize")) {
        headers.push(("mcp-protocol-version", REVISION));
    }
    let answer = web::request("POST", url, &headers, message.to_string())
        .await
        .with_context(|| format!("ask {url}"))?;
    let body: Value = serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body));
    Ok(json!({ "status": answer.status, "answer": body }))
}
