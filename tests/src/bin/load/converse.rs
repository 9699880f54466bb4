//! MCP over standard streams: a server that answers calls, and a client that makes them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _, stdin, stdout};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use exeat_tests::process::resident;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Bytes of a pipe's worth of answers.
const BUFFER: usize = 64 * 1024;
/// Calls that are under way at once where the rate is measured.
const WINDOW: u64 = 64;

/// Start a server, and make calls.
#[derive(Debug, Args)]
pub(crate) struct Converse {
    /// Calls made one after the other, for the time that one takes
    #[arg(long, default_value_t = 5_000)]
    alone: u64,
    /// Calls of which many are under way at once, for how many there can be in a second
    #[arg(long, default_value_t = 100_000)]
    together: u64,
    /// Processes whose memory is read before and after
    #[arg(long)]
    watch: Vec<u32>,
    /// The server and its arguments
    #[arg(last = true, required = true)]
    server: Vec<String>,
}

/// Answers each request at once, with a result of 100 bytes.
pub(crate) fn speak() -> Result<()> {
    let mut input = BufReader::with_capacity(BUFFER, stdin().lock());
    let mut output = stdout().lock();
    let mut line = Vec::new();
    let mut answers = Vec::new();
    while input
        .read_until(b'\n', &mut line)
        .context("read a request")?
        > 0
    {
        let message: Value = serde_json::from_slice(&line).context("read a request")?;
        line.clear();
        if let Some(id) = message.get("id") {
            let result = match message.get("method").and_then(Value::as_str) {
                Some("initialize") => json!({
                    "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                    "serverInfo": { "name": "load", "version": "1" },
                }),
                _ => json!({ "content": [{ "type": "text", "text": "x".repeat(60) }] }),
            };
            let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result });
            writeln!(answers, "{answer}").context("write an answer")?;
        }
        // What came together is answered together.
        if input.buffer().is_empty() {
            output.write_all(&answers).context("write answers")?;
            output.flush().context("write answers")?;
            answers.clear();
        }
    }
    Ok(())
}

/// The conversation, from its beginning to the server's end.
pub(crate) fn converse(converse: &Converse) -> Result<Value> {
    let mut session = Session::start(&converse.server)?;
    session.send(&json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "load", "version": "1" } },
    }))?;
    session.answer()?;
    session.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))?;
    let alone = session.alone(converse.alone)?;
    // What is allocated once is allocated in the first tenth.
    session.together(converse.together / 10)?;
    let before = memory(&converse.watch)?;
    let began = Instant::now();
    session.together(converse.together)?;
    let took = began.elapsed();
    let after = memory(&converse.watch)?;
    session.end()?;
    // A call and its answer.
    let messages = 2.0 * f64::from(u32::try_from(converse.together).context("count calls")?);
    Ok(json!({
        "latency_us": alone,
        "messages": messages,
        "messages_per_second": messages / took.as_secs_f64(),
        "bytes_before": before,
        "bytes_after": after,
    }))
}

fn memory(processes: &[u32]) -> Result<u64> {
    processes.iter().map(|process| resident(*process)).sum()
}

/// The middle and the last hundredth, in microseconds.
fn percentiles(taken: &mut [Duration]) -> Value {
    taken.sort_unstable();
    let at = |per_cent: usize| {
        let one = taken.get(taken.len() * per_cent / 100);
        one.map(|one| one.as_secs_f64() * 1e6)
    };
    json!({ "p50": at(50), "p99": at(99) })
}

struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
    last: u64,
}

impl Session {
    fn start(server: &[String]) -> Result<Self> {
        let (program, arguments) = server.split_first().context("find the server")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let input = child.stdin.take().context("take the server's input")?;
        let output = child.stdout.take().context("take the server's output")?;
        Ok(Self {
            child,
            input,
            output: BufReader::with_capacity(BUFFER, output),
            line: Vec::new(),
            last: 0,
        })
    }

    fn send(&mut self, message: &Value) -> Result<()> {
        let line = format!("{message}\n");
        self.input
            .write_all(line.as_bytes())
            .context("write a message")
    }

    fn answer(&mut self) -> Result<()> {
        self.line.clear();
        let read = self.output.read_until(b'\n', &mut self.line);
        ensure!(read.context("read an answer")? > 0, "the session has ended");
        let refused = self.line.windows(8).any(|part| part == b"\"error\":");
        ensure!(!refused, "{}", String::from_utf8_lossy(&self.line));
        Ok(())
    }

    fn calls(&mut self, count: u64) -> Vec<u8> {
        let mut lines = Vec::new();
        for _ in 0..count {
            self.last += 1;
            let call = json!({
                "jsonrpc": "2.0", "id": self.last, "method": "tools/call",
                "params": { "name": "echo", "arguments": { "text": "x".repeat(80) } },
            });
            lines.extend_from_slice(format!("{call}\n").as_bytes());
        }
        lines
    }

    fn alone(&mut self, calls: u64) -> Result<Value> {
        let mut taken = Vec::new();
        for _ in 0..calls {
            let call = self.calls(1);
            let began = Instant::now();
            self.input.write_all(&call).context("write a call")?;
            self.answer()?;
            taken.push(began.elapsed());
        }
        Ok(percentiles(&mut taken))
    }

    fn together(&mut self, calls: u64) -> Result<()> {
        let mut under_way = 0;
        let mut left = calls;
        while left > 0 || under_way > 0 {
            let more = (WINDOW - under_way).min(left);
            let lines = self.calls(more);
            self.input.write_all(&lines).context("write calls")?;
            left -= more;
            under_way += more;
            self.answer()?;
            under_way -= 1;
            // What came together is taken together.
            while under_way > 0 && self.output.buffer().contains(&b'\n') {
                self.answer()?;
                under_way -= 1;
            }
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        let Self {
            mut child,
            input,
            mut output,
            ..
        } = self;
        drop(input);
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).context("read to the end")?;
        ensure!(rest.is_empty(), "more was said than asked for");
        let status = child.wait().context("wait for the server")?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}
