//! What servers fetched before they spoke, kept from one start to the next: what differs is a finding.
//!
//! One file for each server. The gate says what was fetched; what it says is bounded, and heard once for each
//! workload that `exeat run` started.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::core::Supervisor;
use super::kept;
use super::runs::file_name;
use super::workloads::Origin;
use crate::channel::{Artefact, Kind, MOST_ARTEFACTS, Package, encode_hex};

/// Things that are remembered of one server; those that were fetched longest ago make room.
const REMEMBERED: usize = 2048;
/// Changes that are findings of their own; the rest is counted in one.
const APART: usize = 16;
/// The version of [`Memory`] that this daemon reads and writes.
const VERSION: u32 = 1;

/// What is on its way from the gate.
#[derive(Debug)]
pub(super) struct Arriving {
    directory: PathBuf,
    /// By workload; none where all of it was told.
    of: HashMap<u32, Option<Vec<Artefact>>>,
}

/// What one server fetched so far: the form of its file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    version: u32,
    server: String,
    /// Counts the starts in which it fetched something.
    run: u64,
    /// By [`Artefact::key`].
    things: BTreeMap<String, Thing>,
}

/// One thing, as it was when it was fetched last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    package: Option<Package>,
    /// More than one, where one place answered differently in one start.
    sha256: BTreeSet<String>,
    /// When, by [`Memory::run`].
    run: u64,
}

impl Arriving {
    /// Files are kept in a directory of `state`.
    pub(super) fn new(state: &Path) -> Self {
        Self {
            directory: state.join("fetched"),
            of: HashMap::new(),
        }
    }

    /// A workload is gone.
    pub(super) fn forget(&mut self, number: u32) {
        self.of.remove(&number);
    }

    /// Takes in a piece; all of it, once it is there.
    fn take(&mut self, number: u32, piece: Vec<Artefact>, last: bool) -> Option<Vec<Artefact>> {
        let slot = self.of.entry(number).or_insert_with(|| Some(Vec::new()));
        let all = slot.as_mut()?;
        let room = MOST_ARTEFACTS.saturating_sub(all.len());
        all.extend(piece.into_iter().take(room));
        if last { slot.take() } else { None }
    }

    fn path(&self, server: &str) -> PathBuf {
        let mut name = file_name(server);
        if name != server {
            // Another name may be written the same.
            let digest = encode_hex(&Sha256::digest(server.as_bytes()));
            name.push('-');
            name.push_str(digest.get(..16).unwrap_or_default());
        }
        self.directory.join(name + ".json")
    }
}

impl Supervisor {
    /// A piece of what a server fetched, as the gate says. Of what is no server that `exeat run` started, it means
    /// nothing.
    pub(super) async fn fetched(&mut self, number: u32, piece: Vec<Artefact>, last: bool) {
        let live = self.workloads.get(number);
        let started =
            live.filter(|live| live.origin == Origin::Run && live.record.kind == Kind::Server);
        let Some(server) = started.map(|live| live.record.name.clone()) else {
            return;
        };
        let Some(all) = self.arriving.take(number, piece, last) else {
            return;
        };
        let path = self.arriving.path(&server);
        let shown = path.display();
        match Memory::load(&path, &server) {
            Ok(mut memory) => {
                let changes = memory.compare(&all);
                if let Err(error) = memory.save(&path) {
                    let text = format!(
                        "`{shown}` could not be written: {error}; the next start of `{server}` is compared with an older one"
                    );
                    self.finding("fetched_not_kept", Some(number), vec![text])
                        .await;
                }
                for text in bounded(changes) {
                    self.finding("fetched_changed", Some(number), vec![text])
                        .await;
                }
            }
            Err(error) => {
                let text = format!(
                    "`{shown}` could not be read: {error}; what `{server}` fetched was compared with nothing and not kept: restore the file, or remove it to begin anew"
                );
                self.finding("fetched_unknown", Some(number), vec![text])
                    .await;
            }
        }
    }
}

/// The first of them, and how many more there are.
fn bounded(mut changes: Vec<String>) -> Vec<String> {
    let more = changes.len().saturating_sub(APART);
    changes.truncate(APART);
    if more > 0 {
        changes.push(format!("{more} more changes"));
    }
    changes
}

impl Memory {
    fn load(path: &Path, server: &str) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let memory = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<Self>(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self {
                version: VERSION,
                server: server.to_owned(),
                run: 0,
                things: BTreeMap::new(),
            },
            Err(error) => return Err(error),
        };
        if memory.version != VERSION {
            let version = memory.version;
            return Err(invalid(format!("version {version} is not {VERSION}")));
        }
        if memory.server != server {
            return Err(invalid(format!("it is of `{}`", memory.server)));
        }
        Ok(memory)
    }

    fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        kept::write(path, &serde_json::to_vec(self)?)
    }

    /// Takes in what one start fetched. Returns what differs from the starts before, one sentence each, other bytes
    /// first; the first start differs from nothing.
    fn compare(&mut self, fetched: &[Artefact]) -> Vec<String> {
        let first = self.things.is_empty();
        self.run = self.run.saturating_add(1);
        let mut now: BTreeMap<String, Thing> = BTreeMap::new();
        for artefact in fetched {
            let thing = now.entry(artefact.key()).or_insert_with(|| Thing {
                package: artefact.package.clone(),
                sha256: BTreeSet::new(),
                run: self.run,
            });
            // What a list says grows by itself: that it was asked for is all that is compared.
            let digest = artefact.sha256.clone().filter(|_| artefact.stays());
            thing.sha256.extend(digest);
        }
        let (mut other, mut new) = (Vec::new(), Vec::new());
        for (key, thing) in &now {
            match self.things.get(key) {
                _ if first => {}
                None => new.push(self.describe_new(key, thing)),
                Some(before) if !thing.sha256.is_subset(&before.sha256) => {
                    if !before.sha256.is_empty() {
                        other.push(format!(
                            "`{key}` has other bytes: sha256 {}, before {}",
                            joined(&thing.sha256),
                            joined(&before.sha256)
                        ));
                    }
                }
                Some(before) => new.extend(self.describe_older(key, before)),
            }
        }
        for (key, mut thing) in now {
            if let Some(before) = self.things.remove(&key)
                && thing.sha256.is_empty()
            {
                // It did not come by whole this time: what it was stays known.
                thing.sha256 = before.sha256;
            }
            self.things.insert(key, thing);
        }
        self.forget_oldest();
        other.append(&mut new);
        other
    }

    fn describe_new(&self, key: &str, thing: &Thing) -> String {
        let mut text = format!("`{key}` was not fetched before");
        if let Some((versions, _)) = self.versions(thing) {
            text.push_str("; before it was ");
            text.push_str(&versions);
        }
        text
    }

    /// A version that was fetched before, but not when its package was fetched last.
    fn describe_older(&self, key: &str, before: &Thing) -> Option<String> {
        let (versions, run) = self.versions(before)?;
        (before.run < run).then(|| format!("`{key}` was not fetched last time: it was {versions}"))
    }

    /// The versions of a package that were fetched when it was fetched last, and when that was.
    fn versions(&self, thing: &Thing) -> Option<(String, u64)> {
        let package = thing.package.as_ref()?;
        let of = |thing: &&Thing| {
            thing.package.as_ref().is_some_and(|other| {
                other.registry == package.registry
                    && other.name == package.name
                    && other.version.is_some() == package.version.is_some()
            })
        };
        let run = self
            .things
            .values()
            .filter(of)
            .map(|thing| thing.run)
            .max()?;
        let versions: BTreeSet<String> = self
            .things
            .values()
            .filter(of)
            .filter(|thing| thing.run == run)
            .filter_map(|thing| thing.package.as_ref()?.version.clone())
            .collect();
        Some((joined(&versions), run))
    }

    fn forget_oldest(&mut self) {
        let Some(more) = self.things.len().checked_sub(REMEMBERED) else {
            return;
        };
        let mut runs: Vec<(u64, String)> = self
            .things
            .iter()
            .map(|(key, thing)| (thing.run, key.clone()))
            .collect();
        runs.sort();
        for (_, key) in runs.into_iter().take(more) {
            self.things.remove(&key);
        }
    }
}

fn joined(texts: &BTreeSet<String>) -> String {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory::load(Path::new("/nonexistent/x.json"), "demo").unwrap()
    }

    fn one(path: &str, sha256: Option<&str>) -> Artefact {
        Artefact {
            sha256: sha256.map(str::to_owned),
            ..Artefact::new("packages.example.com", path, None)
        }
    }

    #[test]
    fn what_differs_from_last_time_is_said() {
        let mut memory = memory();
        let a1 = one("/a/-/a-1.0.0.tgz", Some("11"));
        let script = one("/install.sh", Some("5c"));
        let list = one("/simple/x/", Some("aa"));
        let none: [&str; 0] = [];
        assert_eq!(memory.compare(&[a1.clone(), script.clone(), list]), none);
        // The same, in another order, with a list that has grown; and nothing at all, from a cache.
        let list = one("/simple/x/", Some("bb"));
        assert_eq!(memory.compare(&[list, script, a1.clone()]), none);
        assert_eq!(memory.compare(&[]), none);
        let a2 = one("/a/-/a-2.0.0.tgz", Some("22"));
        assert_eq!(
            memory.compare(&[a2, one("/install.sh", Some("5d"))]),
            [
                "`https://packages.example.com/install.sh` has other bytes: sha256 5d, before 5c",
                "`npm:a 2.0.0 a-2.0.0.tgz` was not fetched before; before it was 1.0.0",
            ]
        );
        assert_eq!(
            memory.compare(&[a1]),
            ["`npm:a 1.0.0 a-1.0.0.tgz` was not fetched last time: it was 2.0.0"]
        );
        assert_eq!(
            memory.compare(&[one("/a/-/a-2.0.0.tgz", Some("23"))]),
            ["`npm:a 2.0.0 a-2.0.0.tgz` has other bytes: sha256 23, before 22"]
        );
        assert_eq!(
            memory.compare(&[one("/simple/y/", Some("cc"))]),
            ["`pypi:y metadata` was not fetched before"]
        );
    }

    #[test]
    fn a_part_of_something_does_not_make_it_forgotten() {
        let mut memory = memory();
        let whole = one("/a/-/a-1.0.0.tgz", Some("11"));
        memory.compare(std::slice::from_ref(&whole));
        assert!(memory.compare(&[one("/a/-/a-1.0.0.tgz", None)]).is_empty());
        assert!(memory.compare(&[whole]).is_empty());
        let said = memory.compare(&[one("/a/-/a-1.0.0.tgz", Some("12"))]);
        assert_eq!(
            said,
            ["`npm:a 1.0.0 a-1.0.0.tgz` has other bytes: sha256 12, before 11"]
        );
        // Two versions in one start are how trees of packages are.
        let two = [
            one("/a/-/a-1.0.0.tgz", Some("12")),
            one("/a/-/a-2.0.0.tgz", Some("2")),
        ];
        assert_eq!(memory.compare(&two).len(), 1);
        assert!(memory.compare(&two).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_so_is_what_is_said() {
        let mut memory = memory();
        for start in 0..9 {
            let many: Vec<_> = (0..MOST_ARTEFACTS)
                .map(|number| one(&format!("/{start}/{number}"), Some("00")))
                .collect();
            let said = memory.compare(&many);
            assert_eq!(said.len(), if start == 0 { 0 } else { MOST_ARTEFACTS });
            let said = bounded(said);
            assert!(said.len() <= APART + 1);
        }
        assert_eq!(memory.things.len(), REMEMBERED);
        assert!(memory.things.values().all(|thing| thing.run > 4));
    }

    #[test]
    fn it_is_kept_whole_and_what_cannot_be_read_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        let arriving = Arriving::new(state.path());
        let path = arriving.path("demo");
        assert_ne!(arriving.path("de.mo"), arriving.path("de_mo"));
        let mut first = Memory::load(&path, "demo").unwrap();
        first.compare(&[one("/x", Some("11"))]);
        first.save(&path).unwrap();
        assert_eq!(Memory::load(&path, "demo").unwrap(), first);
        Memory::load(&path, "other").unwrap_err();
        let text = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            "{".to_owned(),
            text.replace("\"version\":1", "\"version\":2"),
            text.replace("\"run\":1,\"things\"", "\"run\":1,\"more\":1,\"things\""),
        ] {
            assert_ne!(bad, text);
            fs::write(&path, bad).unwrap();
            Memory::load(&path, "demo").unwrap_err();
        }
    }

    #[test]
    fn the_gate_is_heard_once_and_within_a_bound() {
        let mut arriving = Arriving::new(Path::new("/nonexistent"));
        let piece = || vec![one("/x", None); 100];
        for _ in 0..9 {
            assert!(arriving.take(7, piece(), false).is_none());
        }
        assert_eq!(
            arriving.take(7, piece(), true).unwrap().len(),
            MOST_ARTEFACTS
        );
        assert!(arriving.take(7, piece(), true).is_none(), "only once");
        arriving.forget(7);
        assert_eq!(arriving.take(7, piece(), true).unwrap().len(), 100);
    }
}
