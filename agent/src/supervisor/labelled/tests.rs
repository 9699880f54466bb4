//! What is taken from Docker's files, and what is not; each container's files are made as Docker makes them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use exeat_policy::Label;
use rustix::fs::{CWD, Mode, chmod, mkfifoat};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::docker::{Containers, Docker, Seen, Stamp, named, whole};
use super::*;

/// A place for Docker's files and for cgroups.
struct Place {
    directory: TempDir,
    containers: Containers,
    watched: Vec<PathBuf>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for part in ["docker/containers", "cgroups/docker"] {
            fs::create_dir_all(directory.path().join(part)).unwrap();
        }
        Self {
            directory,
            containers: Containers::default(),
            watched: Vec::new(),
        }
    }

    fn path(&self, part: &str) -> PathBuf {
        self.directory.path().join(part)
    }

    fn own(&self, id: &str) -> PathBuf {
        self.path("docker/containers").join(id)
    }

    fn config(&self, id: &str) -> PathBuf {
        self.own(id).join("config.v2.json")
    }

    /// The cgroup that the driver `cgroupfs` makes.
    fn cgroup(&self, id: &str) -> PathBuf {
        self.path("cgroups/docker").join(id)
    }

    fn write(&self, id: &str, config: &Value, host: &Value) {
        fs::create_dir_all(self.own(id)).unwrap();
        fs::write(self.own(id).join("hostconfig.json"), host.to_string()).unwrap();
        fs::write(self.config(id), config.to_string()).unwrap();
    }

    /// A container with a cgroup.
    fn run(&self, id: &str, labels: Value) {
        self.write(id, &kept(id, labels), &json!({ "CgroupParent": "" }));
        fs::create_dir_all(self.cgroup(id)).unwrap();
    }

    fn docker(&self) -> Docker {
        Docker::by(&self.path("daemon.json"), Some(&self.path("docker"))).unwrap()
    }

    fn look(&mut self) -> Vec<Seen> {
        let (docker, root) = (self.docker(), self.path("cgroups"));
        let watched = &mut self.watched;
        let watch = &mut |directory: &Path| watched.push(directory.to_owned());
        self.containers.look(&docker, &root, watch).unwrap()
    }

    /// What is said of the one container, where it is held.
    fn held(&mut self) -> String {
        let asking = [subject("boxed", &["app=mcp"])];
        match judge(&[&asking[0]], one(self.look()), None) {
            Verdict::Unknown(name, _, text) => {
                assert!(name.contains(' '), "{name}");
                text
            }
            other => panic!("{other:?}"),
        }
    }
}

fn one(seen: Vec<Seen>) -> Seen {
    let [one] = seen.try_into().unwrap();
    one
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn kept(id: &str, labels: Value) -> Value {
    json!({
        "ID": id, "State": { "Running": false, "Pid": 0 },
        "Config": { "Env": ["A=b"], "Labels": labels }, "Name": "/boxed",
    })
}

fn subject(name: &str, labels: &[&str]) -> Subject {
    Subject {
        name: name.into(),
        kind: Kind::Server,
        matcher: Matcher {
            container: labels.iter().map(|of| Label::parse(of).unwrap()).collect(),
            ..Matcher::default()
        },
    }
}

type Attack = fn(&Place, &str);

/// Others could have written it, or led to it.
const FOREIGN: [(&str, Attack); 7] = [
    ("has to be root's", |place, id| {
        chown(place.config(id), Some(7), None).unwrap();
    }),
    ("has to be root's", |place, id| {
        change_mode(place.config(id), 0o620);
    }),
    ("has to be root's", |place, id| {
        chown(place.own(id), Some(7), None).unwrap();
    }),
    ("has to be root's", |place, id| {
        change_mode(place.own(id), 0o757);
    }),
    ("has to be root's", |place, id| {
        chown(place.own(id).join("hostconfig.json"), Some(7), None).unwrap();
    }),
    ("opening", |place, id| {
        let other = place.path("other");
        fs::rename(place.config(id), &other).unwrap();
        symlink(&other, place.config(id)).unwrap();
    }),
    ("opening", |place, id| {
        let other = place.path("other");
        fs::rename(place.own(id), &other).unwrap();
        symlink(&other, place.own(id)).unwrap();
    }),
];

/// It is not what Docker writes.
const FORM: [(&str, Attack); 7] = [
    ("is no regular file", |place, id| {
        fs::remove_file(place.config(id)).unwrap();
        mkfifoat(CWD, place.config(id), 0o600.into()).unwrap();
    }),
    ("is larger than 4 MiB", |place, id| {
        let mut config = kept(id, json!({ "app": "mcp" }));
        config["Path"] = "x".repeat(4 << 20).into();
        fs::write(place.config(id), config.to_string()).unwrap();
    }),
    ("unexpected end", |place, id| {
        let text = fs::read_to_string(place.config(id)).unwrap();
        fs::write(place.config(id), text.strip_suffix('}').unwrap()).unwrap();
    }),
    ("duplicate key", |place, id| {
        let text = fs::read_to_string(place.config(id)).unwrap();
        let text = text.replace("\"app\":", "\"app\":\"other\",\"app\":");
        fs::write(place.config(id), text).unwrap();
    }),
    ("is of another container", |place, id| {
        let config = kept(&tests::id('b'), json!({ "app": "mcp" }));
        fs::write(place.config(id), config.to_string()).unwrap();
    }),
    ("has labels that are no texts", |place, id| {
        let config = kept(id, json!({ "app": "mcp", "other": 1 }));
        fs::write(place.config(id), config.to_string()).unwrap();
    }),
    ("does not say which labels", |place, id| {
        fs::write(place.config(id), json!({ "ID": id }).to_string()).unwrap();
    }),
];

fn change_mode(path: PathBuf, mode: u32) {
    chmod(path, Mode::from_raw_mode(mode)).unwrap();
}

#[test]
fn what_others_may_have_written_says_nothing() {
    let a = id('a');
    for (said, attack) in FOREIGN.into_iter().chain(FORM) {
        let mut place = Place::new();
        place.run(&a, json!({ "app": "mcp" }));
        attack(&place, &a);
        let text = place.held();
        assert!(
            text.contains("reaches nothing") && text.contains(said),
            "{said}: {text}"
        );
        assert!(!text.contains("A=b"), "{text}");
    }
}

#[test]
fn a_directory_that_others_may_change_is_not_looked_into() {
    let place = Place::new();
    place.run(&id('a'), json!({ "app": "mcp" }));
    for part in ["docker/containers", "docker"] {
        let path = place.path(part);
        chown(&path, Some(7), None).unwrap();
        let look = Containers::default().look(&place.docker(), &place.path("cgroups"), &mut |_| {});
        let said = chain(&look.unwrap_err());
        assert!(
            said.contains(&format!("`{}` has to be root's", path.display())),
            "{said}"
        );
        chown(&path, Some(0), None).unwrap();
    }
    // Nor is one that is not there taken for one without containers.
    fs::remove_dir_all(place.path("docker")).unwrap();
    let look = Containers::default().look(&place.docker(), &place.path("cgroups"), &mut |_| {});
    let said = chain(&look.unwrap_err());
    assert!(said.starts_with("looking for"), "{said}");
}

#[test]
fn no_cgroup_hides_another_of_the_same_container() {
    let mut place = Place::new();
    let a = id('a');
    place.run(&a, json!({ "app": "mcp" }));
    let scope = place.path(&format!("cgroups/system.slice/docker-{a}.scope"));
    fs::create_dir_all(&scope).unwrap();
    let found: Vec<PathBuf> = place
        .look()
        .into_iter()
        .filter_map(|of| of.cgroup)
        .collect();
    assert_eq!(found, [place.cgroup(&a), scope]);
}

#[test]
fn where_a_process_runs_is_a_containers_cgroup_by_its_name_alone() {
    let (a, b) = (id('a'), id('b'));
    let scope = format!("docker-{a}.scope");
    for (path, expected) in [
        (
            format!("/system.slice/odd/{a}"),
            Some(format!("system.slice/odd/{a}")),
        ),
        (
            format!("/x.slice/{scope}/init.scope"),
            Some(format!("x.slice/{scope}")),
        ),
        (format!("/docker/{b}"), None),
        (format!("/docker/{a}x"), None),
        (format!("/docker/{b}/docker-{a}"), None),
        (format!("/../{a}"), None),
        ("/".to_owned(), None),
    ] {
        assert_eq!(named(&path, &a), expected.map(PathBuf::from), "{path}");
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_read() {
    struct Changing<'a>(&'a Path);
    impl Read for Changing<'_> {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            fs::write(self.0, "{\"longer\":true}")?;
            Ok(0)
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    fs::write(&path, "{}").unwrap();
    let opened = File::open(&path).unwrap();
    let stamp = Stamp::of(&opened.metadata().unwrap());
    assert_eq!(whole(&opened, &stamp, &opened, &path).unwrap(), b"{}");
    let said = whole(&opened, &stamp, Changing(&path), &path).unwrap_err();
    assert!(
        said.to_string().ends_with("changed while it was read"),
        "{said}"
    );
}

#[test]
fn a_cgroup_that_others_may_make_is_nobodys() {
    let mut place = Place::new();
    let a = id('a');
    place.run(&a, json!({ "app": "mcp" }));
    chown(place.path("cgroups/docker"), Some(7), None).unwrap();
    assert!(place.look().is_empty());
    // One in another place has the name alone.
    chown(place.path("cgroups/docker"), Some(0), None).unwrap();
    fs::remove_dir(place.cgroup(&a)).unwrap();
    fs::create_dir_all(place.path("cgroups/user.slice/docker").join(&a)).unwrap();
    fs::create_dir_all(place.path("cgroups").join(&a)).unwrap();
    symlink("user.slice/docker", place.path("cgroups/link")).unwrap();
    assert!(place.look().is_empty());
    // Whose process runs elsewhere is said to be lost.
    let mut config = kept(&a, json!({ "app": "mcp" }));
    config["State"] = json!({ "Running": true, "Pid": std::process::id() });
    place.write(&a, &config, &json!({ "CgroupParent": "" }));
    let asking = subject("boxed", &["app"]);
    let verdict = judge(&[&asking], one(place.look()), None);
    assert!(
        matches!(&verdict, Verdict::Lost(text) if text.contains("labels of `boxed` and is not managed")),
        "{verdict:?}"
    );
    let other = subject("other", &["other"]);
    let verdict = judge(&[&other], one(place.look()), None);
    assert!(matches!(verdict, Verdict::Free(None)), "{verdict:?}");
}

#[test]
fn all_labels_say_which_server_a_container_is() {
    let mut place = Place::new();
    place.run(&id('a'), json!({ "app": "mcp", "team": "a", "app2": "x" }));
    let [app, both, prefix, less, other] = [
        &["app=mcp"][..],
        &["app=mcp", "team=a"],
        &["app=mc"],
        &["ap"],
        &["app=mcp", "team=b"],
    ]
    .map(|labels| subject(labels[0], labels));
    let cgroup = place.cgroup(&id('a'));
    let mut verdict =
        |asking: &[&Subject], own| format!("{:?}", judge(asking, one(place.look()), own));
    for (asking, expected) in [
        (vec![&app], "Server"),
        (vec![&both, &prefix, &less, &other], "Server"),
        (vec![&prefix, &less, &other], "Free"),
        // Which of them it is nobody can say.
        (vec![&app, &both], "Held"),
    ] {
        let found = verdict(&asking, None);
        assert!(found.starts_with(expected), "{asking:?}: {found}");
    }
    assert!(verdict(&[&app, &both], None).contains("it is neither, and reaches nothing"));
    // What `exeat run` has made is the server that it was made for.
    assert_eq!(
        verdict(&[&app], Some(cgroup.parent().unwrap())),
        "Free(None)"
    );
}

#[test]
fn a_container_without_labels_is_free() {
    let mut place = Place::new();
    place.run(&id('a'), json!({}));
    place.run(&id('b'), Value::Null);
    // Docker itself keeps other things there, and is just making these.
    fs::create_dir(place.path("docker/containers/other")).unwrap();
    fs::create_dir(place.own(&id('c'))).unwrap();
    let asking = subject("boxed", &["app"]);
    let seen = place.look();
    assert_eq!(seen.len(), 2);
    for container in seen {
        let verdict = judge(&[&asking], container, None);
        assert!(matches!(verdict, Verdict::Free(Some(_))), "{verdict:?}");
    }
    // One that has a cgroup and no files is held.
    fs::create_dir(place.cgroup(&id('c'))).unwrap();
    let found = place.look().into_iter().find(|seen| seen.id == id('c'));
    let verdict = judge(&[&asking], found.unwrap(), None);
    assert!(matches!(verdict, Verdict::Unknown(..)), "{verdict:?}");
}

#[test]
fn cgroups_are_where_either_driver_makes_them() {
    let place = Place::new();
    let a = id('a');
    let scope = format!("docker-{a}.scope");
    let places = |docker: &Docker, parent: Option<&str>| {
        let found = docker.cgroups(&a, parent);
        let text = |path: &PathBuf| path.to_str().unwrap().replace(&scope, "S").replace(&a, "C");
        found.iter().map(text).collect::<Vec<_>>()
    };
    let docker = place.docker();
    let defaults = ["docker/C", "system.slice/S", "system.slice/C"];
    assert_eq!(places(&docker, None), defaults);
    assert_eq!(places(&docker, Some("/mcp/a")), ["mcp/a/C"]);
    let nested = ["a.slice/a-b.slice/S", "a-b.slice/C"];
    assert_eq!(places(&docker, Some("a-b.slice")), nested);
    assert_eq!(places(&docker, Some("-.slice")), ["S", "-.slice/C"]);
    for none in ["/../a", "a/../..", "/a/./b"] {
        let found = places(&docker, Some(none));
        assert!(found.iter().all(|path| !path.contains("..")), "{found:?}");
    }
    for (settings, expected) in [
        (json!({}), &[][..]),
        (json!({ "cgroup-parent": "/mcp" }), &["mcp/C"]),
        (
            json!({ "cgroup-parent": "mcp.slice" }),
            &["mcp.slice/S", "mcp.slice/C"],
        ),
    ] {
        fs::write(place.path("daemon.json"), settings.to_string()).unwrap();
        // Docker may not have read it yet.
        let expected = [&defaults[..], expected].concat();
        assert_eq!(places(&place.docker(), None), expected);
    }
}

#[test]
fn dockers_own_configuration_says_where_it_keeps_containers() {
    let place = Place::new();
    let settings = place.path("daemon.json");
    let by = |text: &str| {
        fs::write(&settings, text).unwrap();
        Docker::by(&settings, None).map_err(|error| chain(&error))
    };
    let found = by("{ \"data-root\": \"/srv/docker\", \"debug\": true }").unwrap();
    assert!(
        format!("{found:?}").contains("\"/srv/docker/containers\""),
        "{found:?}"
    );
    let found = by("{}").unwrap();
    assert!(
        format!("{found:?}").contains("\"/var/lib/docker/containers\""),
        "{found:?}"
    );
    for (text, expected) in [
        ("{ \"data-root\": 1 }", "has settings that are no texts"),
        ("{ \"userns-remap\": \"default\" }", "has `userns-remap`"),
        ("{", "parsing"),
    ] {
        let said = by(text).unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    by("{}").unwrap();
    chown(&settings, Some(7), None).unwrap();
    let said = chain(&Docker::by(&settings, None).unwrap_err());
    assert!(said.contains("has to be root's"), "{said}");
}

#[test]
fn what_changed_is_read_again_and_watched_before_it_is_looked_into() {
    let mut place = Place::new();
    let a = id('a');
    assert!(place.look().is_empty());
    fs::create_dir(place.own(&a)).unwrap();
    assert!(place.look().is_empty());
    // The container's directory for its files, and where its cgroup is going to be.
    for part in [
        place.own(&a),
        place.path("cgroups"),
        place.path("cgroups/docker"),
    ] {
        assert!(
            place.watched.contains(&part),
            "{part:?}: {:?}",
            place.watched
        );
    }
    let parent = json!({ "CgroupParent": "/mcp/deep" });
    place.write(&a, &kept(&a, json!({ "app": "mcp" })), &parent);
    assert!(place.look().is_empty());
    let cgroup = place.path("cgroups/mcp/deep").join(&a);
    fs::create_dir_all(&cgroup).unwrap();
    let seen = one(place.look());
    assert_eq!(seen.cgroup, Some(cgroup.clone()));
    assert!(place.watched.contains(&cgroup.parent().unwrap().to_owned()));
    let labels = seen.labels.unwrap();
    assert_eq!(labels.get("app").map(String::as_str), Some("mcp"));
    // It is removed, files first.
    fs::remove_dir_all(place.own(&a)).unwrap();
    assert!(place.look().is_empty());
}
