//! Names of tools that fit nothing which a server lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{called, fault};
use crate::fault::{Fault, Place};
use crate::glob::Glob;
use crate::methods::TOOLS_CALL;
use crate::model::Server;
use crate::set::PolicySet;
use crate::yaml::closest;

/// The tools of servers, by the servers' names.
type Manifests = BTreeMap<Arc<str>, BTreeSet<String>>;

impl PolicySet {
    /// Names and patterns of tools, in the register, in rules, grants and limits, that fit none of the tools that the
    /// servers which they are about list. Those that are also about a server which is not in `listed` are passed over.
    #[must_use]
    pub fn unlisted(&self, listed: &Manifests) -> Vec<Fault> {
        let mut faults = Vec::new();
        for server in self.servers() {
            self.register(server, listed, &mut faults);
        }
        for rule in self
            .rules()
            .iter()
            .filter(|rule| calls(rule.methods.as_deref()))
        {
            let names = rule.tools.names().unwrap_or_default();
            let about = (called(rule), &*rule.servers);
            self.compare(&about, names, &rule.place, listed, &mut faults);
        }
        for limit in self
            .limits()
            .iter()
            .filter(|limit| calls(limit.methods.as_deref()))
        {
            let names = limit.tools.names().unwrap_or_default();
            let about = ("the limit".to_owned(), &*limit.servers);
            self.compare(&about, names, &limit.place, listed, &mut faults);
        }
        faults.sort();
        faults
    }

    /// What the register says of a server's tools.
    fn register(&self, server: &Server, listed: &Manifests, faults: &mut Vec<Fault>) {
        let own = [Arc::clone(&server.name)];
        for (glob, _) in &server.tools {
            let about = (format!("`tools` of server `{}`", server.name), &own[..]);
            let names = std::slice::from_ref(glob);
            self.compare(&about, names, &server.place, listed, faults);
        }
    }

    /// `about`: what names the tools, and of which servers; none: of all.
    fn compare(
        &self,
        about: &(String, &[Arc<str>]),
        names: &[Glob],
        place: &Place,
        listed: &Manifests,
        faults: &mut Vec<Fault>,
    ) {
        let (who, servers) = about;
        let all: Vec<&Arc<str>> = if servers.is_empty() {
            self.servers().map(|server| &server.name).collect()
        } else {
            servers.iter().collect()
        };
        let known: Option<Vec<_>> = all.iter().map(|server| listed.get(&***server)).collect();
        let Some(known) = known.filter(|known| !known.is_empty()) else {
            return;
        };
        let tools = || known.iter().copied().flatten().map(String::as_str);
        for glob in names
            .iter()
            .filter(|glob| !tools().any(|tool| glob.matches(tool)))
        {
            let lists = match all.as_slice() {
                [server] => format!("server `{server}` lists"),
                _ => "its servers list".to_owned(),
            };
            let message = format!("{who}: `{glob}` fits no tool that {lists}");
            let meant = closest(glob.as_str(), tools());
            let hint = meant.map(|meant| format!("did you mean `{meant}`?"));
            faults.push(fault(place, message, hint));
        }
    }
}

/// Whether what a rule or limit names can only be tools: other methods name prompts and resources.
fn calls(methods: Option<&[Glob]>) -> bool {
    let calls = |glob: &Glob| glob.literal() == Some(TOOLS_CALL);
    methods.is_none_or(|methods| methods.iter().all(calls))
}
