//! What the demonstration's servers can do.

use serde_json::{Value, json};

use crate::web;

/// Where the library asks for its books.
const CATALOGUE: &str = "https://api.lab.example/echo?books=exeat";

/// The tools, as `tools/list` shows them.
pub(crate) fn list() -> Value {
    let tool = |name: &str, what: &str, reads: bool| {
        json!({
            "name": name,
            "description": what,
            "inputSchema": { "type": "object" },
            "annotations": { "readOnlyHint": reads },
        })
    };
    json!([
        tool("search_books", "asks the catalogue for books", true),
        tool("delete_book", "deletes a book", false),
        tool("send", "sends an HTTP request", false),
        tool("dial", "connects to an address", false),
    ])
}

/// Calls one; an error's code and text where there is none such.
pub(crate) async fn call(params: &Value) -> Result<Value, (i64, String)> {
    let name = params.get("name").and_then(Value::as_str).unwrap_or("");
    let given = |key: &str| {
        params
            .pointer(&format!("/arguments/{key}"))
            .and_then(Value::as_str)
    };
    let text = match name {
        "search_books" => send("GET", CATALOGUE).await,
        // Nobody should ever see this answer.
        "delete_book" => Ok("deleted".to_owned()),
        "send" => {
            let method = given("method").unwrap_or("GET");
            send(method, given("url").unwrap_or_default()).await
        }
        "dial" => match given("address").unwrap_or_default().parse() {
            Ok(address) => web::dial(address)
                .await
                .map_err(|error| format!("{error:#}")),
            Err(_unreadable) => Err("no address".to_owned()),
        },
        _ => return Err((-32602, format!("Unknown tool: {name}"))),
    };
    let failed = text.is_err();
    let (Ok(text) | Err(text)) = text;
    Ok(json!({ "content": [{ "type": "text", "text": text }], "isError": failed }))
}

async fn send(method: &str, url: &str) -> Result<String, String> {
    match web::request(method, url, &[], String::new()).await {
        Ok(answer) => Ok(format!("{} {}", answer.status, answer.body)),
        Err(error) => Err(format!("{error:#}")),
    }
}
