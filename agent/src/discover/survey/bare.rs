//! Servers that a managed host started without Exeat: what Exeat isolated, and what the log tells of such.

use std::path::Path;

use serde_json::Value;

use super::{Survey, title};
use crate::discover::found::{Found, Kind, Standing};
use crate::discover::processes::Running;
use crate::hosts::Package;

/// What the log says of servers that hosts started without Exeat.
#[derive(Debug, Default)]
pub(super) struct Told {
    count: u64,
    last: String,
}

impl Survey<'_> {
    /// A process in the workload for the unregistered servers of `host`.
    pub(super) fn isolated(
        &mut self,
        running: &Running,
        above: Option<usize>,
        host: &str,
    ) -> usize {
        let server = |row: &usize| {
            self.found
                .get(*row)
                .is_some_and(|it| it.kind == Kind::Server)
        };
        let row = match above.filter(server) {
            Some(row) => row,
            None => self.server_row(running),
        };
        if let Some(found) = self.found.get_mut(row) {
            found.pids.push(running.process.pid);
            found.isolated = true;
            found.see(format!(
                "started by `{host}` without Exeat, which lets it reach nothing"
            ));
        }
        row
    }

    /// A record of such a server; whether it is one.
    pub(super) fn bare(&mut self, record: &Value) -> bool {
        let text = |path: &str| record.pointer(path).and_then(Value::as_str);
        let Some(exe) = text("/exec/exe") else {
            return false;
        };
        let args = record.pointer("/exec/args").and_then(Value::as_array);
        let args = args.into_iter().flatten().filter_map(Value::as_str);
        let command = [exe].into_iter().chain(args.skip(1)).map(str::to_owned);
        let host = text("/workload/name").unwrap_or_default().to_owned();
        let told = self.bare.entry((command.collect(), host)).or_default();
        told.count = told.count.saturating_add(1);
        told.last =
            std::mem::take(&mut told.last).max(text("/time").unwrap_or_default().to_owned());
        true
    }

    /// What the log tells, as things that were found: beside what a configuration or a process tells of the same.
    pub(super) fn told(&mut self) {
        for ((command, host), Told { count, last }) in std::mem::take(&mut self.bare) {
            let exe = command.first().cloned().unwrap_or_default();
            let package = Package::running(&exe, &command, Path::new("/"));
            let same = |found: &Found| {
                found.kind == Kind::Server
                    && found
                        .package
                        .as_ref()
                        .is_some_and(|other| other.is(&package))
            };
            let row = self.found.iter().position(same).unwrap_or_else(|| {
                let known = self.register.runs(&package);
                let name = known.map_or_else(|| title(&package), |server| server.name.to_string());
                let standing = known.map_or(Standing::Unregistered, |_| Standing::Around);
                let mut found = Found::new(Kind::Server, name, standing);
                found.registered = known.map(|server| server.name.to_string());
                found.command = command;
                found.package = Some(package.clone());
                self.push(found, "-")
            });
            let sentence =
                format!("started by `{host}` without Exeat {count} times, last at {last}");
            self.see(row, sentence);
        }
    }
}
