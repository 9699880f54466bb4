//! Memory of an idle intercepted connection: what a proxy holds for many, divided by how many.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use exeat_tests::process;
use serde_json::{Map, Value, json};

use crate::ways::{Site, Way};
use crate::{Arguments, say};

/// Connections that are held first, so that what is allocated once is not counted.
const FIRST: u32 = 64;
/// Connections that are held then.
const HELD: u32 = 1000;

pub(crate) async fn measure(arguments: &Arguments, site: &Site) -> Result<Value> {
    let mut result = Map::new();
    for way in arguments.ways() {
        // mitmproxy is slow to open as many, and not the one to be compared with.
        if matches!(way, Way::Direct | Way::Mitmproxy) {
            continue;
        }
        say(&format!("memory: {}: {HELD} idle connections", way.name()));
        let open = site.open(arguments, way).await?;
        let mut held = Vec::new();
        let mut before = Vec::new();
        for connections in [FIRST, HELD] {
            before = resident(open.processes())?;
            let count = connections.to_string();
            let mut client = open.client("hold", &["--connections", &count]).await?;
            client.ready(Duration::from_mins(1)).await?;
            held.push(client);
        }
        let after = resident(open.processes())?;
        // One that shrank gave back what its start had taken: it holds no connections.
        let grown = before
            .iter()
            .zip(&after)
            .map(|(before, after)| after.saturating_sub(*before));
        let grown: u64 = grown.sum();
        ensure!(grown > 0, "no process grew while connections were opened");
        let kibibytes = f64::from(u32::try_from(grown).context("count memory")?) / 1024.0;
        result.insert(
            way.name().to_owned(),
            json!({ "kib_per_connection": kibibytes / f64::from(HELD) }),
        );
    }
    Ok(Value::Object(result))
}

/// Resident memory of each of `processes`, in bytes.
fn resident(processes: &[u32]) -> Result<Vec<u64>> {
    processes
        .iter()
        .map(|process| process::resident(*process))
        .collect()
}
