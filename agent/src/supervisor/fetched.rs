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
use crate::channel::{
    Artefact, ArtefactRest, Kind, MOST_ARTEFACT_BYTES, MOST_ARTEFACTS, Package, Registry,
    encode_hex,
};

/// Things that are remembered of one server; those that were fetched longest ago make room.
const REMEMBERED: usize = 2 * MOST_ARTEFACTS;
/// Changes that are findings of their own; the rest is counted in one.
const APART: usize = 16;
/// Versions and digests that a sentence names.
const NAMED: usize = 8;
/// Servers that ended before it was heard what they fetched.
const DEPARTED: usize = 1024;
/// The version of [`Memory`] that this daemon reads and writes.
const VERSION: u32 = 1;

/// What is on its way from the gate.
#[derive(Debug)]
pub(super) struct Arriving {
    directory: PathBuf,
    /// By workload; none where all of it was told.
    of: HashMap<u32, Option<Arrived>>,
    /// The servers of workloads that are gone and of which not all was told: the gate may be late.
    departed: BTreeMap<u32, String>,
}

/// What of it is there.
#[derive(Debug, Default)]
struct Arrived {
    artefacts: Vec<Artefact>,
    /// By [`Artefact::weight`].
    bytes: usize,
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
    /// Of everything together, when it was last more than is compared one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    together: Option<String>,
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

/// By what a package was fetched last: its registry, its name, and whether it was one of its versions.
type Latest<'a> = HashMap<(Registry, &'a str, bool), (u64, BTreeSet<&'a str>)>;

impl Arriving {
    /// Files are kept in a directory of `state`.
    pub(super) fn new(state: &Path) -> Self {
        Self {
            directory: state.join("fetched"),
            of: HashMap::new(),
            departed: BTreeMap::new(),
        }
    }

    /// The workload of this server is gone. What it fetched is still heard.
    pub(super) fn ended(&mut self, number: u32, server: String) {
        if let Some(None) = self.of.get(&number) {
            self.of.remove(&number);
            return;
        }
        self.departed.insert(number, server);
        if self.departed.len() > DEPARTED
            && let Some((oldest, _)) = self.departed.pop_first()
        {
            self.of.remove(&oldest);
        }
    }

    /// Takes in a piece; all of it, once it is there.
    fn take(&mut self, number: u32, piece: Vec<Artefact>, last: bool) -> Option<Vec<Artefact>> {
        let slot = self
            .of
            .entry(number)
            .or_insert_with(|| Some(Arrived::default()));
        let all = slot.as_mut()?;
        for artefact in piece {
            // Twice what the gate keeps: it does not know the digests beforehand.
            let bytes = all.bytes.saturating_add(artefact.weight());
            if all.artefacts.len() >= MOST_ARTEFACTS || bytes > 2 * MOST_ARTEFACT_BYTES {
                break;
            }
            all.bytes = bytes;
            all.artefacts.push(artefact);
        }
        if !last {
            return None;
        }
        let all = slot.take();
        if self.departed.remove(&number).is_some() {
            self.of.remove(&number);
        }
        all.map(|all| all.artefacts)
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
    pub(super) async fn fetched(
        &mut self,
        number: u32,
        piece: Vec<Artefact>,
        last: bool,
        rest: Option<ArtefactRest>,
    ) {
        let live = self.workloads.get(number);
        let started =
            live.filter(|live| live.origin == Origin::Run && live.record.kind == Kind::Server);
        let named = started.map(|live| &live.record.name);
        let named = named.or_else(|| self.arriving.departed.get(&number));
        let Some(server) = named.cloned() else {
            return;
        };
        let Some(all) = self.arriving.take(number, piece, last) else {
            return;
        };
        let path = self.arriving.path(&server);
        let shown = path.display();
        match Memory::load(&path, &server) {
            Ok(mut memory) => {
                let mut changes = memory.compare(&all);
                let rest = rest.map(|rest| memory.compare_rest(&rest, &mut changes));
                if let Err(error) = memory.save(&path) {
                    let text = format!(
                        "`{shown}` could not be written: {error}; the next start of `{server}` is compared with an older one"
                    );
                    self.finding("fetched_not_kept", Some(number), vec![text])
                        .await;
                }
                for text in bounded(changes) {
                    let text = format!("`{server}`: {text}");
                    self.finding("fetched_changed", Some(number), vec![text])
                        .await;
                }
                if let Some(rest) = rest {
                    let text = format!("`{server}`: {rest}");
                    self.finding("fetched_beyond", Some(number), vec![text])
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
                together: None,
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
        let latest = self.latest();
        for (key, thing) in &now {
            match self.things.get(key) {
                _ if first => {}
                None => new.push(describe_new(&latest, key, thing)),
                Some(before) if !thing.sha256.is_subset(&before.sha256) => {
                    if !before.sha256.is_empty() {
                        other.push(format!(
                            "`{key}` has other bytes: sha256 {}, before {}",
                            joined(thing.sha256.iter().map(String::as_str)),
                            joined(before.sha256.iter().map(String::as_str))
                        ));
                    }
                }
                Some(before) => new.extend(describe_older(&latest, key, before)),
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

    /// What there was beyond what is compared one by one. That it was so much is said; that it is not what it was
    /// is a change.
    fn compare_rest(&mut self, rest: &ArtefactRest, changes: &mut Vec<String>) -> String {
        let sha256: String = rest.sha256.chars().take(64).collect();
        let before = self.together.replace(sha256.clone());
        let how = match before {
            None => "with which the next start is compared".to_owned(),
            Some(before) if before == sha256 => "as before".to_owned(),
            Some(before) => {
                changes.insert(
                    0,
                    format!("all that was fetched has together sha256 {sha256}, before {before}"),
                );
                format!("before {before}")
            }
        };
        format!(
            "{} things more were fetched than are compared one by one; together all of them have sha256 {sha256}, {how}",
            rest.count
        )
    }

    /// The versions of each package that were fetched when it was fetched last, and when that was.
    fn latest(&self) -> Latest<'_> {
        let mut latest = Latest::new();
        for thing in self.things.values() {
            let Some(package) = &thing.package else {
                continue;
            };
            let (run, versions) = latest.entry(of_package(package)).or_default();
            if thing.run > *run {
                *run = thing.run;
                versions.clear();
            }
            if thing.run == *run {
                versions.extend(package.version.as_deref());
            }
        }
        latest
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

fn of_package(package: &Package) -> (Registry, &str, bool) {
    (package.registry, &package.name, package.version.is_some())
}

fn describe_new(latest: &Latest<'_>, key: &str, thing: &Thing) -> String {
    let mut text = format!("`{key}` was not fetched before");
    let package = thing.package.as_ref();
    if let Some((_, versions)) = package.and_then(|package| latest.get(&of_package(package))) {
        text.push_str("; before it was ");
        text.push_str(&joined(versions.iter().copied()));
    }
    text
}

/// A version that was fetched before, but not when its package was fetched last.
fn describe_older(latest: &Latest<'_>, key: &str, before: &Thing) -> Option<String> {
    let (run, versions) = latest.get(&of_package(before.package.as_ref()?))?;
    let versions = joined(versions.iter().copied());
    (before.run < *run).then(|| format!("`{key}` was not fetched last time: it was {versions}"))
}

/// The first of them, and how many more there are.
fn joined<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = texts.len().saturating_sub(NAMED);
    let named = texts.take(NAMED).collect::<Vec<_>>().join(", ");
    if more == 0 {
        return named;
    }
    format!("{named} and {more} more")
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
    fn what_goes_beyond_is_said_and_compared_together() {
        let mut memory = memory();
        let rest = |count, sha256: &str| ArtefactRest {
            count,
            sha256: sha256.to_owned(),
        };
        let mut compare = |rest| {
            let mut changes = Vec::new();
            (memory.compare_rest(&rest, &mut changes), changes)
        };
        let (said, changes) = compare(rest(3, "aa"));
        assert_eq!(
            (said.as_str(), changes.len()),
            (
                "3 things more were fetched than are compared one by one; together all of them have sha256 aa, with which the next start is compared",
                0
            )
        );
        let (said, changes) = compare(rest(4, "aa"));
        assert!(said.ends_with("sha256 aa, as before") && changes.is_empty());
        let (said, changes) = compare(rest(4, "bb"));
        assert!(said.ends_with("sha256 bb, before aa"), "{said}");
        assert_eq!(
            changes,
            ["all that was fetched has together sha256 bb, before aa"]
        );
    }

    #[test]
    fn sentences_are_short_whatever_is_in_them() {
        let mut memory = memory();
        let many = |digits: &str| -> Vec<Artefact> {
            let versions =
                (0..MOST_ARTEFACTS).map(|number| format!("/a/-/a-{number}.0.{digits}.tgz"));
            versions.map(|path| one(&path, Some("11"))).collect()
        };
        memory.compare(&many("0"));
        let said = memory.compare(&many("1"));
        assert_eq!(said.len(), MOST_ARTEFACTS);
        assert!(said.iter().all(|text| text.len() < 256), "{}", said[0]);
        assert!(said[0].ends_with(" and 4088 more"), "{}", said[0]);
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
        let piece = || vec![one("/x", None); 1000];
        for _ in 0..9 {
            assert!(arriving.take(7, piece(), false).is_none());
        }
        assert_eq!(
            arriving.take(7, piece(), true).unwrap().len(),
            MOST_ARTEFACTS
        );
        assert!(arriving.take(7, piece(), true).is_none(), "only once");
        // Nor of what is large.
        let large = || vec![one(&"x".repeat(500), None); 1000];
        for _ in 0..9 {
            assert!(arriving.take(8, large(), false).is_none());
        }
        let bytes: usize = arriving
            .take(8, large(), true)
            .unwrap()
            .iter()
            .map(Artefact::weight)
            .sum();
        assert!((MOST_ARTEFACT_BYTES..=2 * MOST_ARTEFACT_BYTES).contains(&bytes));
    }

    #[test]
    fn a_server_that_is_gone_is_still_heard_of() {
        let mut arriving = Arriving::new(Path::new("/nonexistent"));
        arriving.take(7, vec![one("/x", None)], true).unwrap();
        arriving.ended(7, "told".to_owned());
        assert!(arriving.departed.is_empty() && arriving.of.is_empty());
        assert!(arriving.take(8, vec![one("/x", None)], false).is_none());
        arriving.ended(8, "demo".to_owned());
        assert_eq!(arriving.departed[&8], "demo");
        assert_eq!(
            arriving.take(8, vec![one("/y", None)], true).unwrap().len(),
            2
        );
        assert!(arriving.departed.is_empty() && arriving.of.is_empty());
        for number in 0..2000 {
            arriving.take(number, Vec::new(), false);
            arriving.ended(number, "demo".to_owned());
        }
        assert_eq!(
            (arriving.departed.len(), arriving.of.len()),
            (DEPARTED, DEPARTED)
        );
        assert!(arriving.departed.contains_key(&1999));
    }
}
