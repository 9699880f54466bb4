//! MCP as far as the demonstration's servers speak it: the legacy handshake and tools.

use std::io::stdin;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{show, tools};

/// The revision of the protocol that is spoken.
pub(crate) const REVISION: &str = "2025-11-25";

/// The answer to a message; none to a notification.
pub(crate) async fn answer(message: &Value) -> Option<Value> {
    let id = message.get("id")?;
    let method = message.get("method").and_then(Value::as_str).unwrap_or("");
    let params = message.get("params").cloned().unwrap_or_default();
    let result = match method {
        "initialize" => Ok(json!({
            "protocolVersion": REVISION,
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "demo", "version": "1.0.0" },
        })),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({ "tools": tools::list() })),
        "tools/call" => tools::call(&params).await,
        _ => Err((-32601, format!("Method not found: {method}"))),
    };
    Some(match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err((code, text)) => {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": text } })
        }
    })
}

/// Serves the standard streams, a message a line, until the input ends.
pub(crate) async fn stdio() -> Result<()> {
    for line in stdin().lines() {
        let line = line.context("read a message")?;
        let message: Value = serde_json::from_str(&line).context("parse a message")?;
        if let Some(answer) = answer(&message).await {
            show::tell(&answer.to_string());
        }
    }
    Ok(())
}
