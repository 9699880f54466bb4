//! A conversation over stdio: what a host has with `exeat run`, or with a server directly.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// One stdio session; its process is killed on drop.
#[derive(Debug)]
pub struct Session {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    last: u64,
}

impl Session {
    /// Starts `command`, with its standard error in `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = std::fs::File::create(log).context("create a session's log")?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut command = tokio::process::Command::from(command);
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .context("start a session")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("take a session's output")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output).lines(),
            last: 0,
        })
    }

    /// The process's id, until it has been waited for.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends these bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        let input = self
            .input
            .as_mut()
            .context("the session's input is closed")?;
        input.write_all(bytes).await.context("write to a session")?;
        input.flush().await.context("write to a session")
    }

    /// Sends one message on a line of its own.
    pub async fn send(&mut self, message: &Value) -> Result<()> {
        self.raw(format!("{message}\n").as_bytes()).await
    }

    /// The next line, or `None` at the end.
    pub async fn line(&mut self) -> Result<Option<String>> {
        let line = timeout(LIMIT, self.output.next_line());
        line.await
            .context("wait for a line of a session")?
            .context("read from a session")
    }

    /// The next message.
    pub async fn receive(&mut self) -> Result<Value> {
        let line = self.line().await?.context("the session has ended")?;
        serde_json::from_str(&line).with_context(|| format!("read `{line}`"))
    }

    /// Sends a request and waits for its answer, passing over notifications and requests.
    pub async fn request(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last += 1;
        let id = self.last;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await?;
        // A server that talks without end must not hold a test.
        for _ in 0..100_000 {
            let message = self.receive().await?;
            if message.get("id") == Some(&json!(id)) && message.get("method").is_none() {
                return Ok(message);
            }
        }
        bail!("no answer to {method} among 100000 messages")
    }

    /// The legacy handshake; the answer to `initialize`.
    pub async fn initialize(&mut self) -> Result<Value> {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": { "name": "lab", "version": "1.0.0" },
        });
        let answer = self.request("initialize", params).await?;
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .await?;
        Ok(answer)
    }

    /// Calls a tool.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Result<Value> {
        self.request(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        )
        .await
    }

    /// Lets go of the streams, as a host that dies does; its child is left, and killed on drop.
    pub fn abandon(self) -> Child {
        self.child
    }

    /// Closes the input and waits for the end, as a host does.
    pub async fn close(&mut self) -> Result<ExitStatus> {
        self.input = None;
        let ended = timeout(LIMIT, self.child.wait());
        ended
            .await
            .context("wait for a session's end")?
            .context("wait for a session's end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixtures, Server};

    #[tokio::test]
    async fn talks_to_each_stdio_server() {
        let fixtures = Fixtures::find().unwrap();
        let logs = tempfile::tempdir().unwrap();
        let servers = [
            (fixtures.server(Server::Ts2).arg("--stdio"), 8),
            (fixtures.server(Server::Py2).arg("--stdio"), 8),
            (fixtures.server(Server::Reference), 13),
            (fixtures.server(Server::Fetch), 1),
        ];
        for (server, tools) in servers {
            // As nobody: servers never run as root, so the fixtures must be readable by everyone.
            let mut nobody = Command::new("setpriv");
            nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            let command = server.under(nobody);
            let mut session = Session::start(command, &logs.path().join("err")).unwrap();
            let answer = session.initialize().await.unwrap();
            assert_eq!(
                answer["result"]["protocolVersion"], "2025-11-25",
                "{answer}"
            );
            let list = session.request("tools/list", json!({})).await.unwrap();
            assert_eq!(
                list["result"]["tools"].as_array().map(Vec::len),
                Some(tools),
                "{list}"
            );
            if tools == 8 {
                let answer = session
                    .call("echo", json!({ "message": "hi" }))
                    .await
                    .unwrap();
                assert_eq!(answer["result"]["content"][0]["text"], "hi");
            }
            session.close().await.unwrap();
        }
    }
}
