//! Which server or host of the policy a process is.

use std::collections::BTreeMap;
use std::path::Path;

use super::Running;
use crate::channel;
use crate::supervisor::matching::Subject;

/// What the policy's `match` says of a process; `containers` are the servers that containers are, by their cgroups.
pub(super) fn matched<'s>(
    subjects: &'s [Subject],
    running: &Running,
    containers: &BTreeMap<String, String>,
) -> Option<&'s Subject> {
    let cgroup = running.cgroup.as_deref();
    let mut above = Path::new(cgroup.unwrap_or_default()).ancestors();
    let contained = above.find_map(|path| containers.get(path.to_str()?));
    // The policy asks for hashes rarely, and a wrong answer here holds nothing.
    subjects.iter().find(|subject| {
        subject.matches(&running.process, cgroup, &mut || None)
            || (subject.kind == channel::Kind::Server && contained == Some(&subject.name))
    })
}
