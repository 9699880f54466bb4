//! The servers of the register that a client is told of.

use std::collections::BTreeSet;
use std::sync::Arc;

use exeat_policy::{Caller, PolicySet, Timestamp, Workload, reachable};

use crate::channel::Kind;
use crate::control::records::Owner;
use crate::flow::Stages;
use crate::identify::workloads::Known;
use crate::telemetry::clock;

/// Everybody's, or those that a user may start or call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Theirs {
    /// All: for administrators.
    All,
    /// Those of an ordinary user, by name.
    Some(BTreeSet<Arc<str>>),
}

impl Theirs {
    /// Those of `owner`, by `set`.
    pub(super) async fn of(stages: &Stages, set: &PolicySet, owner: Owner) -> Self {
        let Owner::User(uid) = owner else {
            return Self::All;
        };
        let user = stages.intake.users.name(uid).await;
        let now = Timestamp::from_millis(clock::wall().microseconds() / 1000);
        let workloads = stages.intake.workloads.all();
        Self::Some(usable(set, (uid, user.as_deref()), &workloads, now))
    }

    /// Whether the server is one of them.
    pub(super) fn has(&self, server: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(server),
        }
    }
}

/// What a user may start or call, alone or in a host that runs for it.
fn usable(
    set: &PolicySet,
    (uid, user): (u32, Option<&str>),
    workloads: &[Arc<Known>],
    now: Timestamp,
) -> BTreeSet<Arc<str>> {
    let alone = Caller {
        user,
        ..Caller::default()
    };
    let is_own = |known: &&Arc<Known>| {
        known.workload.uid == uid && known.workload.kind == Kind::Host && known.judged().is_some()
    };
    // Many processes of one host are the same caller.
    let hosts: BTreeSet<&str> = workloads
        .iter()
        .filter(is_own)
        .map(|known| &*known.workload.name)
        .collect();
    let mut callers = vec![alone];
    callers.extend(hosts.into_iter().map(|host| Caller {
        workload: Some(Workload::Host(host)),
        ..alone
    }));
    let may = |server: &&exeat_policy::Server| {
        let mut callers = callers.iter();
        callers.any(|caller| reachable(set, *caller, &server.name, now))
    };
    let servers = set.servers().filter(may);
    servers.map(|server| Arc::clone(&server.name)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use exeat_policy::{Source, compile};

    use super::*;
    use crate::channel;
    use crate::identify::workloads::Workloads;

    #[test]
    fn a_user_has_what_it_may_use_alone_or_in_its_hosts() {
        let text = "version: 1
servers:
  notes: { launch: { command: notes } }
  wiki: { url: 'https://wiki.example/mcp' }
  other: { launch: { command: other } }
hosts: { agent: { match: { exe: /usr/bin/agent }, servers: [wiki] } }
identities: { dave: { user: dave }, eve: { user: eve } }
rules:
  - { id: dave, who: [dave], servers: [notes], effect: allow }
  - { id: eve, who: [eve], servers: [other], effect: allow }
limits: [{ per: [session], methods: ['*'], rate: 9/h }]
";
        let source = Source {
            name: "p.yaml".into(),
            text: text.into(),
        };
        let set = compile(&[source]).unwrap();
        let workloads = Workloads::new(1);
        let add = |number, name: &str, kind, uid| {
            drop(workloads.add(channel::Workload {
                number,
                name: name.to_owned(),
                kind,
                cgroup: PathBuf::new(),
                cgroup_id: 0,
                pid: None,
                uid,
                exe: PathBuf::new(),
                args: Vec::new(),
                started_by: None,
                placeholders: Vec::new(),
            }));
        };
        let has = |uid, user: Option<&str>| {
            let all = workloads.all();
            let names = usable(&set, (uid, user), &all, Timestamp::from_seconds(0));
            names
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        add(1, "agent", Kind::Unregistered, 7);
        add(2, "other", Kind::Server, 7);
        assert_eq!(has(7, Some("dave")), "notes");
        assert_eq!(has(8, Some("eve")), "other");
        assert_eq!(has(9, None), "");
        add(3, "agent", Kind::Host, 7);
        assert_eq!(has(7, Some("dave")), "notes wiki");
        assert_eq!(has(8, Some("eve")), "other", "the host is another user's");
    }
}
