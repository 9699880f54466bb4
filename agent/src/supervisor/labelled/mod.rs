//! Servers that are containers which others start with Docker: found by the labels that Docker's daemon keeps of them.

mod docker;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use exeat_policy::Matcher;

use self::docker::{Containers, Docker, Seen, Unread};
use super::cgroups::find_root;
use super::core::Supervisor;
use super::matching::Subject;
use super::placing::shortened;
use crate::channel::Kind;
use crate::launch::stage::chain;

/// Digits of an id by which people know a container.
const SHORT: usize = 12;

/// What is known of containers, and what became of those that could not be told apart.
#[derive(Debug, Default)]
pub(super) struct Labelled {
    containers: Containers,
    /// Cgroups that reach nothing: it is not known whose they are.
    held: BTreeSet<PathBuf>,
    /// What was said already, and still is so.
    said: BTreeSet<String>,
}

impl Labelled {
    /// Whether nothing is left to be let go of.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.said.is_empty()
    }
}

/// What becomes of a container.
#[derive(Debug)]
enum Verdict<'s> {
    /// It is nothing that the policy means.
    Free(Option<PathBuf>),
    /// It is this server.
    Server(&'s Subject, PathBuf),
    /// It is several servers' at once: it reaches nothing.
    Held(String, PathBuf, String),
    /// It may be a server, and nobody can say which: it reaches nothing, unless that is known from before.
    Unknown(String, PathBuf, String),
    /// It should be a server and cannot be: why.
    Lost(String),
}

impl Supervisor {
    /// Manages the containers that carry the labels of a server.
    pub(super) async fn find_labelled(&mut self, subjects: &[Subject]) {
        let asking: Vec<&Subject> = subjects.iter().filter(|of| of.is_labelled()).collect();
        let workloads = &self.workloads;
        self.labelled.held.retain(|cgroup| workloads.has(cgroup));
        if asking.is_empty() {
            self.labelled.containers = Containers::default();
            for cgroup in std::mem::take(&mut self.labelled.held) {
                self.release(&cgroup).await;
            }
            return self.say_unlabelled(BTreeSet::new()).await;
        }
        let seen = match self.containers() {
            Ok(seen) => seen,
            Err(error) => {
                let text = format!("containers are not matched by label: {}", chain(&error));
                return self.say_unlabelled([text].into()).await;
            }
        };
        let mut said = BTreeSet::new();
        for container in seen {
            match judge(&asking, container, Some(&self.parts.tree.base)) {
                Verdict::Lost(text) => drop(said.insert(text)),
                Verdict::Free(cgroup) => {
                    if let Some(cgroup) = cgroup.filter(|of| self.labelled.held.remove(of)) {
                        self.release(&cgroup).await;
                    }
                }
                Verdict::Server(subject, cgroup) => {
                    self.labelled.held.remove(&cgroup);
                    self.take_as(subject, &cgroup).await;
                }
                // Its labels are for its life.
                Verdict::Unknown(_, cgroup, _)
                    if self.workloads.has(&cgroup) && !self.labelled.held.contains(&cgroup) => {}
                Verdict::Held(name, cgroup, text) | Verdict::Unknown(name, cgroup, text) => {
                    let nobody = Subject {
                        name,
                        kind: Kind::Server,
                        matcher: Matcher::default(),
                    };
                    self.take_as(&nobody, &cgroup).await;
                    if self.is_taken_as(&nobody, &cgroup) {
                        self.labelled.held.insert(cgroup);
                        said.insert(text);
                    }
                }
            }
        }
        self.say_unlabelled(said).await;
    }

    /// Manages a cgroup as this, unless it is so already.
    async fn take_as(&mut self, subject: &Subject, cgroup: &Path) {
        if !self.is_taken_as(subject, cgroup) {
            self.take_cgroup(subject, cgroup).await;
        }
    }

    fn is_taken_as(&self, subject: &Subject, cgroup: &Path) -> bool {
        let number = self.workloads.of(cgroup);
        let live = number.and_then(|number| self.workloads.get(number));
        live.is_some_and(|live| live.record.name == subject.name)
    }

    async fn release(&mut self, cgroup: &Path) {
        if let Some(number) = self.workloads.of(cgroup) {
            self.end(number).await;
        }
    }

    fn containers(&mut self) -> Result<Vec<Seen>, Unread> {
        let docker = Docker::find(self.parts.config.docker.data_root.as_deref())?;
        let (units, mut watched) = (&self.units, BTreeSet::new());
        let watch = &mut |directory: &Path| {
            if watched.insert(directory.to_owned()) {
                units.add(directory);
            }
        };
        self.labelled
            .containers
            .look(&docker, &self.parts.tree.root, watch)
    }

    /// Says what was not said yet.
    async fn say_unlabelled(&mut self, said: BTreeSet<String>) {
        let new: Vec<String> = said.difference(&self.labelled.said).cloned().collect();
        self.labelled.said = said;
        if !new.is_empty() {
            self.finding("match_incomplete", None, shortened(new)).await;
        }
    }
}

/// `own` is Exeat's part of the cgroups, where `exeat run` has containers made.
fn judge<'s>(asking: &[&'s Subject], seen: Seen, own: Option<&Path>) -> Verdict<'s> {
    let is_own = |cgroup: &PathBuf| own.is_some_and(|own| cgroup.starts_with(own));
    if seen.cgroup.as_ref().is_some_and(is_own) {
        return Verdict::Free(None);
    }
    let short: String = seen.id.chars().take(SHORT).collect();
    let meant = match seen.labels {
        Ok(labels) => {
            let meant = asking.iter().copied();
            Ok(meant
                .filter(|of| of.is_carried_by(&labels))
                .collect::<Vec<_>>())
        }
        Err(why) => Err(why),
    };
    // Nothing in the register is called so: no name there has a space.
    let name = format!("container {short}");
    match (meant.as_deref(), seen.cgroup) {
        (Ok([]), cgroup) => Verdict::Free(cgroup),
        (Ok([subject]), Some(cgroup)) => Verdict::Server(subject, cgroup),
        (Ok([first, second, ..]), Some(cgroup)) => {
            let (first, second) = (&first.name, &second.name);
            let text = format!(
                "the container {short} carries the labels of `{first}` and of `{second}`: it is neither, and reaches nothing"
            );
            Verdict::Held(name, cgroup, text)
        }
        (Ok([subject, ..]), None) => Verdict::Lost(format!(
            "the container {short} carries the labels of `{}` and is not managed: it runs in the cgroup `{}`, where it is not looked for",
            subject.name,
            seen.runs_in.as_deref().unwrap_or_default(),
        )),
        (Err(why), Some(cgroup)) => {
            let text =
                format!("the container {short} reaches nothing: its labels are not known: {why}");
            Verdict::Unknown(name, cgroup, text)
        }
        (Err(why), None) => Verdict::Lost(format!(
            "the labels of the container {short} are not known: {why}"
        )),
    }
}

/// The servers that containers here are by their labels, by the containers' cgroups as the kernel writes them.
pub(crate) fn servers(
    subjects: &[Subject],
    data_root: Option<&Path>,
) -> Result<BTreeMap<String, String>, String> {
    let asking: Vec<&Subject> = subjects.iter().filter(|of| of.is_labelled()).collect();
    if asking.is_empty() {
        return Ok(BTreeMap::new());
    }
    let root = find_root().map_err(|error| chain(&error))?;
    let seen = Docker::find(data_root)
        .and_then(|docker| Containers::default().look(&docker, &root, &mut |_| {}))
        .map_err(|error| chain(&error))?;
    let found = seen.into_iter().filter_map(|container| {
        let Verdict::Server(subject, cgroup) = judge(&asking, container, None) else {
            return None;
        };
        let below = cgroup.strip_prefix(&root).ok()?;
        Some((format!("/{}", below.display()), subject.name.clone()))
    });
    Ok(found.collect())
}
