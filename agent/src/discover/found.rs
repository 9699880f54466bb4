//! What was found, as people and programs see it; secrets are masked before they get here.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Serialize;

use crate::hosts::Package;

/// A server or host of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Which of the two.
    pub kind: Kind,
    /// Its name: in the register, or where it was found.
    pub name: String,
    /// How it stands to the register.
    pub standing: Standing,
    /// Its name in the register, where it has one.
    pub registered: Option<String>,
    /// The Unix user whose it is.
    pub owner: Option<String>,
    /// Its command line, secrets masked.
    pub command: Vec<String>,
    /// Where it is reached, for what is no child of its host.
    pub url: Option<String>,
    /// Processes that are it.
    pub pids: Vec<u32>,
    /// Where it listens.
    pub listens: BTreeSet<SocketAddr>,
    /// What it may reach; absent where that is not known.
    pub reaches: Option<Vec<String>>,
    /// The hosts that it may fetch from, before it speaks.
    pub fetches: Vec<String>,
    /// Where it was found, in sentences.
    pub seen: Vec<String>,
    /// An entry for the register, for what is not in it.
    pub entry: Option<String>,
    /// Exeat lets it reach nothing.
    #[serde(skip)]
    pub(super) isolated: bool,
    /// What it runs.
    #[serde(skip)]
    pub(super) package: Option<Package>,
    /// The name that its entry was proposed under.
    #[serde(skip)]
    pub(super) proposed: Option<String>,
}

/// What something is in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An MCP server.
    Server,
    /// An MCP client.
    Host,
}

/// How something stands to the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Not in the register.
    Unregistered,
    /// In the register, but started without Exeat.
    Around,
    /// In the register, and held to it.
    Managed,
}

impl Found {
    /// Something of this kind and name, of which nothing else is known.
    pub(crate) fn new(kind: Kind, name: impl Into<String>, standing: Standing) -> Self {
        Self {
            kind,
            name: name.into(),
            standing,
            registered: None,
            owner: None,
            command: Vec::new(),
            url: None,
            pids: Vec::new(),
            listens: BTreeSet::new(),
            reaches: None,
            fetches: Vec::new(),
            seen: Vec::new(),
            entry: None,
            isolated: false,
            package: None,
            proposed: None,
        }
    }

    /// Notes where it was seen, once.
    pub(super) fn see(&mut self, sentence: String) {
        if !self.seen.contains(&sentence) {
            self.seen.push(sentence);
        }
    }
}
