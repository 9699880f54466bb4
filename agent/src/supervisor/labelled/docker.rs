//! What Docker's daemon keeps of its containers, read from what is root's alone, and where it makes their cgroups.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, Mode, OFlags, open, openat};

use crate::decode::json::{self, Fault, Limits, Number, Value};
use crate::launch::stage::chain;
use crate::supervisor::matching::cgroup_of;

/// Where Docker's daemon is configured, unless its command line says otherwise.
const SETTINGS: &str = "/etc/docker/daemon.json";
/// Where it keeps everything, unless it is configured otherwise.
const DATA_ROOT: &str = "/var/lib/docker";
/// Below which it has cgroups made: by the driver `cgroupfs`, and by `systemd`.
const PARENTS: [&str; 2] = ["/docker", "/system.slice"];
/// What it writes of a container.
const CONFIG: &str = "config.v2.json";
/// What it writes of how a container is run here.
const HOST_CONFIG: &str = "hostconfig.json";
/// Digits of a container's id.
const ID: usize = 64;

/// Why it is not known what Docker keeps.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// The system refused.
    #[error("{attempt} `{}`", path.display())]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Others than root could have written it.
    #[error("`{}` has to be root's, and written to by root alone", .0.display())]
    Foreign(PathBuf),
    /// It is not what Docker writes.
    #[error("`{}` {what}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It is no JSON.
    #[error("parsing `{}`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it is not.
        #[source]
        cause: Fault,
    },
}

impl Unread {
    /// Whether there is nothing: a container that is made, or removed, just now.
    fn is_absent(&self) -> bool {
        matches!(self, Self::System { cause, .. } if cause.kind() == io::ErrorKind::NotFound)
    }
}

fn system<E: Into<io::Error>>(attempt: &'static str, path: &Path) -> impl FnOnce(E) -> Unread {
    move |cause| Unread::System {
        attempt,
        path: path.to_owned(),
        cause: cause.into(),
    }
}

/// Labels by their names.
pub(crate) type Labels = BTreeMap<String, String>;

/// A container's file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: i64::try_from(metadata.len()).unwrap_or(i64::MAX),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is kept of a container.
#[derive(Debug)]
struct Container {
    labels: Arc<Labels>,
    /// Below which its cgroup is made, where it has a place of its own.
    parent: Option<String>,
    /// Its first process, while it runs.
    pid: Option<u32>,
}

/// A container that may have processes.
#[derive(Debug)]
pub(crate) struct Seen {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Its cgroup, where it was found.
    pub(crate) cgroup: Option<PathBuf>,
    /// What it carries.
    pub(crate) labels: Result<Arc<Labels>, String>,
    /// The cgroup of its first process, as the kernel writes it.
    pub(crate) runs_in: Option<String>,
}

/// Where Docker keeps its containers, and makes their cgroups.
#[derive(Debug)]
pub(crate) struct Docker {
    containers: PathBuf,
    parents: Vec<String>,
}

impl Docker {
    /// By `docker.data_root` of exeat.yaml, else by Docker's own configuration.
    ///
    /// # Errors
    /// That is not read, or says what is not supported.
    pub(crate) fn find(stated: Option<&Path>) -> Result<Self, Unread> {
        Self::by(Path::new(SETTINGS), stated)
    }

    pub(super) fn by(settings: &Path, stated: Option<&Path>) -> Result<Self, Unread> {
        let settings = Settings::read(settings)?;
        let root = match (stated, settings.data_root) {
            (Some(stated), _) => stated.to_owned(),
            (None, Some(root)) => root,
            (None, None) => PathBuf::from(DATA_ROOT),
        };
        Ok(Self {
            containers: root.join("containers"),
            // Docker reads its configuration when it starts, which may be long ago.
            parents: PARENTS
                .map(str::to_owned)
                .into_iter()
                .chain(settings.cgroup_parent)
                .collect(),
        })
    }

    /// Where the cgroup of a container may be, as paths below the root of cgroups: by either driver.
    pub(super) fn cgroups(&self, id: &str, own: Option<&str>) -> Vec<PathBuf> {
        let parents: Vec<&str> = match own {
            Some(own) => vec![own],
            None => self.parents.iter().map(String::as_str).collect(),
        };
        let mut found = Vec::new();
        for parent in parents {
            found.extend(slice(parent).map(|slice| slice.join(format!("docker-{id}.scope"))));
            found.extend(plain(parent).map(|plain| plain.join(id)));
        }
        found
    }
}

/// What matters of Docker's own configuration.
#[derive(Debug, Default)]
struct Settings {
    data_root: Option<PathBuf>,
    cgroup_parent: Option<String>,
}

impl Settings {
    fn read(path: &Path) -> Result<Self, Unread> {
        // Where it is a link, root made it.
        let real = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            found => found.map_err(system("looking for", path))?,
        };
        let (Some(above), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(form(path, "is no file"));
        };
        let value = parse(&file(&directory(above)?, name, path)?, path)?;
        let text = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(form(path, "has settings that are no texts")),
        };
        let data_root = text("data-root")?.map(PathBuf::from);
        // It keeps each mapping's containers in a directory of their own below that.
        if text("userns-remap")?.is_some() {
            return Err(form(
                path,
                "has `userns-remap`, with which containers are not matched by label",
            ));
        }
        Ok(Self {
            data_root,
            cgroup_parent: text("cgroup-parent")?,
        })
    }
}

/// What was read of containers so far.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    container: Container,
}

impl Containers {
    /// The containers of which there is a cgroup below `root`, once for each cgroup, and those that run without. What
    /// `watch` is called with are directories in which something may appear that changes the answer; each before it is
    /// looked into.
    ///
    /// # Errors
    /// Docker's directory is not read.
    pub(crate) fn look(
        &mut self,
        docker: &Docker,
        root: &Path,
        watch: &mut dyn FnMut(&Path),
    ) -> Result<Vec<Seen>, Unread> {
        let path = &docker.containers;
        watch(path);
        let held = directory(path)?;
        let listing = Dir::read_from(&held).map_err(system("listing", path))?;
        let mut ids = BTreeSet::new();
        for entry in listing {
            let entry = entry.map_err(system("listing", path))?;
            ids.extend(
                entry
                    .file_name()
                    .to_str()
                    .ok()
                    .filter(|id| is_id(id))
                    .map(str::to_owned),
            );
        }
        self.known.retain(|id, _| ids.contains(id));
        let seen = ids
            .into_iter()
            .flat_map(|id| self.seen(docker, &held, &id, root, watch));
        Ok(seen.collect())
    }

    fn seen(
        &mut self,
        docker: &Docker,
        held: &File,
        id: &str,
        root: &Path,
        watch: &mut dyn FnMut(&Path),
    ) -> Vec<Seen> {
        let path = docker.containers.join(id);
        let read = self.refresh(held, id, &path, watch);
        let kept = read.as_ref().ok();
        let runs_in = kept.and_then(|kept| kept.pid).and_then(cgroup_of);
        let parent = kept.and_then(|kept| kept.parent.as_deref());
        let mut places: BTreeSet<PathBuf> = docker.cgroups(id, parent).into_iter().collect();
        places.extend(runs_in.as_deref().and_then(|path| named(path, id)));
        let cgroups: Vec<PathBuf> = places
            .iter()
            .filter_map(|place| existing(root, place, watch))
            .collect();
        let matters = match &read {
            Ok(_) => runs_in.is_some(),
            Err(error) => !error.is_absent(),
        };
        let labels = match read {
            Ok(kept) => Ok(Arc::clone(&kept.labels)),
            Err(error) => Err(chain(&error)),
        };
        let seen = |cgroup| Seen {
            id: id.to_owned(),
            cgroup,
            labels: labels.clone(),
            runs_in: runs_in.clone(),
        };
        if cgroups.is_empty() && matters {
            return vec![seen(None)];
        }
        cgroups
            .into_iter()
            .map(|cgroup| seen(Some(cgroup)))
            .collect()
    }

    /// What is kept of a container, read again where it changed.
    fn refresh(
        &mut self,
        held: &File,
        id: &str,
        path: &Path,
        watch: &mut dyn FnMut(&Path),
    ) -> Result<&Container, Unread> {
        let known = self.known.remove(id);
        // Docker writes into it when the directory is there already.
        if known.is_none() {
            watch(path);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own = openat(held, id, flags, Mode::empty()).map_err(system("opening", path))?;
        let (own, _) = roots(own, path)?;
        let config = path.join(CONFIG);
        let (opened, stamp) = opened(&own, CONFIG.as_ref(), &config)?;
        let known = if let Some(known) = known.filter(|known| known.stamp == stamp) {
            known
        } else {
            let kept = parse(&whole(&opened, &stamp, &opened, &config)?, &config)?;
            let host = path.join(HOST_CONFIG);
            let run = parse(&file(&own, HOST_CONFIG.as_ref(), &host)?, &host)?;
            let container = container(id, &kept).map_err(|what| form(&config, what))?;
            let parent = parent(&run).map_err(|what| form(&host, what))?;
            Known {
                stamp,
                container: Container {
                    parent,
                    ..container
                },
            }
        };
        Ok(&self.known.entry(id.to_owned()).or_insert(known).container)
    }
}

fn container(id: &str, kept: &Value) -> Result<Container, &'static str> {
    if kept.get("ID").and_then(Value::as_str) != Some(id) {
        return Err("is of another container");
    }
    let labels = kept.get("Config").and_then(|config| config.get("Labels"));
    let mut all = Labels::new();
    match labels {
        Some(Value::Null) => {}
        Some(Value::Object(labels)) => {
            for (name, value) in labels.iter() {
                let value = value.as_str().ok_or("has labels that are no texts")?;
                all.insert(name.to_owned(), value.to_owned());
            }
        }
        _ => return Err("does not say which labels the container has"),
    }
    let state = kept.get("State");
    let runs = state
        .and_then(|state| state.get("Running"))
        .and_then(Value::as_bool);
    let pid = state
        .and_then(|state| state.get("Pid"))
        .and_then(Value::as_number);
    let pid = pid
        .and_then(Number::as_i64)
        .and_then(|pid| u32::try_from(pid).ok());
    Ok(Container {
        labels: Arc::new(all),
        parent: None,
        pid: pid.filter(|pid| runs == Some(true) && *pid != 0),
    })
}

fn parent(run: &Value) -> Result<Option<String>, &'static str> {
    match run.get("CgroupParent") {
        Some(Value::String(parent)) if parent.is_empty() => Ok(None),
        Some(Value::String(parent)) => Ok(Some(parent.clone())),
        _ => Err("does not say where the container's cgroup is"),
    }
}

/// 64 digits, as Docker writes them.
fn is_id(name: &str) -> bool {
    name.len() == ID
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `a-b.slice` is in `a.slice` (systemd.slice(5)); `-.slice` is the root.
fn slice(parent: &str) -> Option<PathBuf> {
    let name = parent.trim_start_matches('/').strip_suffix(".slice")?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut whole = String::new();
    for part in name.split('-') {
        if part.is_empty() || part.contains('/') {
            return None;
        }
        if !whole.is_empty() {
            whole.push('-');
        }
        whole.push_str(part);
        path.push(format!("{whole}.slice"));
    }
    Some(path)
}

/// A path below the root of cgroups.
fn plain(parent: &str) -> Option<PathBuf> {
    let path = Path::new(parent.trim_start_matches('/'));
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    is_plain.then(|| path.to_owned())
}

/// The cgroup in a process's path that is called as Docker calls a container's.
pub(super) fn named(path: &str, id: &str) -> Option<PathBuf> {
    let scope = format!("docker-{id}.scope");
    let is_its = |path: &&Path| {
        let name = path.file_name();
        name.is_some_and(|name| name == id || name == scope.as_str())
    };
    plain(Path::new(path).ancestors().find(is_its)?.to_str()?)
}

/// The cgroup at `place`, if it is there and root alone made directories on the way. From the top, each directory is
/// watched before the next one is looked for.
fn existing(root: &Path, place: &Path, watch: &mut dyn FnMut(&Path)) -> Option<PathBuf> {
    let mut path = root.to_owned();
    for part in place.components() {
        watch(&path);
        // Whoever may make cgroups here could make one of that name.
        if !fs::symlink_metadata(&path).is_ok_and(|of| of.is_dir() && is_roots_alone(&of)) {
            return None;
        }
        path.push(part);
    }
    fs::symlink_metadata(&path)
        .is_ok_and(|of| of.is_dir())
        .then_some(path)
}

fn is_roots_alone(metadata: &Metadata) -> bool {
    metadata.uid() == 0 && metadata.mode() & 0o022 == 0
}

/// A directory that is root's, as are all above it; links on the way are followed, since only root can have made them.
fn directory(path: &Path) -> Result<File, Unread> {
    let real = fs::canonicalize(path).map_err(system("looking for", path))?;
    for above in real.ancestors().skip(1) {
        let metadata = fs::symlink_metadata(above).map_err(system("looking at", above))?;
        // In a sticky directory nobody replaces what is another's.
        let is_sticky = metadata.uid() == 0 && metadata.mode() & 0o1000 != 0;
        if !is_roots_alone(&metadata) && !is_sticky {
            return Err(Unread::Foreign(above.to_owned()));
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = open(&real, flags, Mode::empty()).map_err(system("opening", path))?;
    roots(held, &real).map(|(held, _)| held)
}

/// What is root's alone.
fn roots(opened: OwnedFd, path: &Path) -> Result<(File, Metadata), Unread> {
    let opened = File::from(opened);
    let metadata = opened.metadata().map_err(system("looking at", path))?;
    if !is_roots_alone(&metadata) {
        return Err(Unread::Foreign(path.to_owned()));
    }
    Ok((opened, metadata))
}

/// A regular file of root's, and what it is like.
fn opened(held: &File, name: &OsStr, path: &Path) -> Result<(File, Stamp), Unread> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = openat(held, name, flags, Mode::empty()).map_err(system("opening", path))?;
    let (opened, metadata) = roots(opened, path)?;
    if !metadata.is_file() {
        return Err(form(path, "is no regular file"));
    }
    Ok((opened, Stamp::of(&metadata)))
}

fn file(held: &File, name: &OsStr, path: &Path) -> Result<Vec<u8>, Unread> {
    let (opened, stamp) = opened(held, name, path)?;
    whole(&opened, &stamp, &opened, path)
}

/// All of a file that is as it was before and after.
pub(super) fn whole(
    opened: &File,
    stamp: &Stamp,
    reader: impl Read,
    path: &Path,
) -> Result<Vec<u8>, Unread> {
    if usize::try_from(stamp.size).map_or(true, |size| size > Limits::REQUEST.bytes) {
        return Err(form(path, "is larger than 4 MiB"));
    }
    let most = u64::try_from(Limits::REQUEST.bytes).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    reader
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(system("reading", path))?;
    let after = opened.metadata().map_err(system("looking at", path))?;
    // Docker replaces its files: one that is open may lose its name, and stays as it is.
    let after = Stamp::of(&after);
    if (after.size, after.modified) != (stamp.size, stamp.modified) {
        return Err(form(path, "changed while it was read"));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], path: &Path) -> Result<Value, Unread> {
    json::parse(bytes, &Limits::REQUEST).map_err(|cause| Unread::Json {
        path: path.to_owned(),
        cause,
    })
}

fn form(path: &Path, what: &'static str) -> Unread {
    Unread::Form {
        path: path.to_owned(),
        what,
    }
}
