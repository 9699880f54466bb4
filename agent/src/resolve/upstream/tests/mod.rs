//! The client against a fake name server that lies.

mod aliases;
mod damage;
mod servers;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::resolve::Transport;
use crate::resolve::fake::{Act, FakeServer, record, records, reply};

const PATIENCE: Patience = Patience {
    attempt: Duration::from_secs(5),
    total: Duration::from_secs(10),
    rounds: 1,
    max_ttl: 60,
    max_negative_ttl: 10,
};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

async fn ask_for(server: &FakeServer, text: &str) -> Result<Found, Unresolved> {
    resolve(&[server.address], PATIENCE, &name(text), Family::V4).await
}

/// Answers by the question's name: one line of records a name.
async fn zone(lines: &'static [(&'static str, &'static [&'static str])]) -> FakeServer {
    FakeServer::start(|query, _| {
        let asked = query.queries[0].name.to_ascii();
        let answers = lines
            .iter()
            .find(|(name, _)| *name == asked)
            .map_or(&[][..], |l| l.1);
        vec![Act::Send(records(query, answers))]
    })
    .await
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
