//! What a launcher fetched before its server spoke: an answer to a GET, and the package that it is of where its
//! registry's paths show one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many are kept one by one of one session: launchers of large packages fetch a thousand.
pub const MOST_ARTEFACTS: usize = 4096;
/// What those may take, by [`Artefact::weight`].
pub const MOST_ARTEFACT_BYTES: usize = 1 << 20;
/// How many stand in one record: it does not outgrow its bound, whatever the paths are.
pub const ARTEFACTS_AT_ONCE: usize = 24;
/// About what those in one message take, written.
const PIECE: usize = 48 << 10;
/// The longest path that is kept, in bytes.
const PATH: usize = 512;
/// The longest name of a package (npm's bound).
const NAME: usize = 214;
/// The longest version of one.
const VERSION: usize = 128;

/// Something that a stdio server fetched before it spoke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// The host as policy writes it.
    pub host: String,
    /// The path without its query.
    pub path: String,
    /// The package that it is of, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// How many bytes of the body came by.
    pub bytes: u64,
    /// Of the whole body as it was sent, in hex; absent where not all of it came by, and of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What a session fetched beyond [`MOST_ARTEFACTS`] or [`MOST_ARTEFACT_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtefactRest {
    /// How many more answers there were.
    pub count: u64,
    /// Of all that was fetched, these and the others, in hex; their order does not count.
    pub sha256: String,
}

/// A package of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Whose.
    pub registry: Registry,
    /// Its name there.
    pub name: String,
    /// Its version, or tag; absent of what the registry says about the package, which changes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A kind of registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registry {
    /// npm and those that speak as it does.
    Npm,
    /// `PyPI` and those that speak as it does.
    Pypi,
    /// Images (OCI distribution specification).
    Oci,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.registry {
            Registry::Npm => "npm",
            Registry::Pypi => "pypi",
            Registry::Oci => "oci",
        })?;
        write!(f, ":{}", self.name)
    }
}

impl Artefact {
    /// What begins to arrive. Of a path with a query the query is not kept; `kind` is the answer's media type.
    pub fn new(host: &str, path: &str, kind: Option<&str>) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let package = package(path, kind.unwrap_or_default());
        Self {
            host: host.to_owned(),
            path: prefix(path, PATH).to_owned(),
            package,
            bytes: 0,
            sha256: None,
        }
    }

    /// The bytes of its texts.
    pub fn weight(&self) -> usize {
        let package = self.package.as_ref().map_or(0, |package| {
            let version = package.version.as_ref().map_or(0, String::len);
            package.name.len().saturating_add(version)
        });
        let sha256 = self.sha256.as_ref().map_or(0, String::len);
        [self.host.len(), self.path.len(), package, sha256]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// All of them, in parts that fit in a message each.
    pub fn pieces(all: &[Self]) -> impl Iterator<Item = &[Self]> {
        let mut size = 0_usize;
        all.chunk_by(move |_, next| {
            let written = serde_json::to_string(next).map_or(PIECE, |text| text.len());
            size = size.saturating_add(written);
            let fits = size <= PIECE;
            if !fits {
                size = written;
            }
            fits
        })
    }

    /// What makes two of them the same thing: the package, its version and the file, or else the place.
    pub fn key(&self) -> String {
        match &self.package {
            Some(package) => match &package.version {
                Some(version) => format!("{package} {version} {}", last(&self.path)),
                None => format!("{package} metadata"),
            },
            None => format!("https://{}{}", self.host, self.path),
        }
    }

    /// Whether its bytes are expected to stay: not those of a list that grows with each release.
    pub fn stays(&self) -> bool {
        self.package
            .as_ref()
            .is_none_or(|package| package.version.is_some())
    }
}

/// The package that a path of a registry names. A path that looks like one elsewhere is shown as one; what it is
/// compared by is the same.
fn package(path: &str, kind: &str) -> Option<Package> {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let (registry, name, version) = image(&segments)
        .or_else(|| tarball(&segments))
        .or_else(|| distribution(&segments))
        .or_else(|| listing(&segments, kind))?;
    let name = name.replace("%2f", "/").replace("%2F", "/");
    let plain = |text: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "@/._-+!:~".contains(c);
        !text.is_empty() && text.chars().all(allowed)
    };
    let fits = plain(&name)
        && name.len() <= NAME
        && version.is_none_or(|version| plain(version) && version.len() <= VERSION);
    fits.then(|| Package {
        registry,
        name,
        version: version.map(str::to_owned),
    })
}

type Named<'a> = (Registry, String, Option<&'a str>);

/// `/v2/NAME/manifests/REFERENCE`. Blobs are named by what they hold, and so by no version.
fn image<'a>(segments: &[&'a str]) -> Option<Named<'a>> {
    let [first, name @ .., kind, reference] = segments else {
        return None;
    };
    let is_one = *first == "v2" && !name.is_empty() && *kind == "manifests";
    is_one.then(|| (Registry::Oci, name.join("/"), Some(*reference)))
}

/// `/NAME/-/FILE-VERSION.tgz`, `/@SCOPE/NAME/-/FILE-VERSION.tgz`, also below the path of a registry.
fn tarball<'a>(segments: &[&'a str]) -> Option<Named<'a>> {
    let [before @ .., name, dash, file] = segments else {
        return None;
    };
    let decoded = name.replace("%2f", "/").replace("%2F", "/");
    let bare = decoded.rsplit('/').next()?;
    let version = file
        .strip_suffix(".tgz")?
        .strip_prefix(bare)?
        .strip_prefix('-')?;
    if *dash != "-" {
        return None;
    }
    let scope = before.last().filter(|scope| scope.starts_with('@'));
    let name = match scope {
        Some(scope) => format!("{scope}/{name}"),
        None => (*name).to_owned(),
    };
    Some((Registry::Npm, name, Some(version)))
}

/// A wheel, anywhere (binary distribution format), or a source distribution below `packages`.
fn distribution<'a>(segments: &[&'a str]) -> Option<Named<'a>> {
    let file = segments.last()?;
    let file = file.strip_suffix(".metadata").unwrap_or(file);
    let (name, version) = if let Some(wheel) = file.strip_suffix(".whl") {
        let parts: Vec<&str> = wheel.split('-').collect();
        match parts.as_slice() {
            [name, version, _, _, _] | [name, version, _, _, _, _] => (*name, *version),
            _ => return None,
        }
    } else {
        let source = file
            .strip_suffix(".tar.gz")
            .or_else(|| file.strip_suffix(".zip"))?;
        let (name, version) = source.rsplit_once('-')?;
        let is_one =
            segments.contains(&"packages") && version.starts_with(|c: char| c.is_ascii_digit());
        is_one.then_some((name, version))?
    };
    Some((Registry::Pypi, normal(name), Some(version)))
}

/// What a registry says about a package.
fn listing<'a>(segments: &[&'a str], kind: &str) -> Option<Named<'a>> {
    let about = |registry, name: String| Some((registry, name, None));
    match segments {
        [.., "simple", name] | [.., "simple", name, ""] | [.., "pypi", name, "json"] => {
            about(Registry::Pypi, normal(name))
        }
        [.., scope, name] if kind.contains("vnd.npm.install") && scope.starts_with('@') => {
            about(Registry::Npm, format!("{scope}/{name}"))
        }
        [.., name] if kind.contains("vnd.npm.install") => about(Registry::Npm, (*name).to_owned()),
        _ => None,
    }
}

/// A Python project's name as it is compared ("Names and normalization").
fn normal(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if matches!(c, '-' | '_' | '.') {
            '-'
        } else {
            c.to_ascii_lowercase()
        };
        if c != '-' || !normal.ends_with('-') {
            normal.push(c);
        }
    }
    normal
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The longest beginning of at most `most` bytes.
fn prefix(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Artefact, NAME, PATH, VERSION};

    fn shown(path: &str, kind: &str) -> String {
        match Artefact::new("a.example", path, Some(kind)).package {
            None => "-".to_owned(),
            Some(package) => {
                let version = package.version.as_deref().unwrap_or("metadata");
                format!("{package} {version}")
            }
        }
    }

    #[test]
    fn packages_are_read_from_the_paths_of_their_registries() {
        const NPM: &str = "application/vnd.npm.install-v1+json";
        for (path, kind, expected) in [
            ("/express/-/express-4.18.2.tgz", "", "npm:express 4.18.2"),
            (
                "/@scope/name/-/name-1.0.0-rc.1.tgz",
                "",
                "npm:@scope/name 1.0.0-rc.1",
            ),
            (
                "/@scope%2fname/-/name-1.0.0.tgz",
                "",
                "npm:@scope/name 1.0.0",
            ),
            ("/repository/npm/a/-/a-1.0.0.tgz", "", "npm:a 1.0.0"),
            ("/a/-/b-1.0.0.tgz", "", "-"),
            ("/a/x/a-1.0.0.tgz", "", "-"),
            ("/@scope%2fname", NPM, "npm:@scope/name metadata"),
            ("/@scope/name", NPM, "npm:@scope/name metadata"),
            ("/express", NPM, "npm:express metadata"),
            ("/express", "application/json", "-"),
            (
                "/packages/a1/b2/ff/mcp_server_fetch-2026.10.24-py3-none-any.whl",
                "",
                "pypi:mcp-server-fetch 2026.10.24",
            ),
            (
                "/packages/a1/b2/ff/numpy-2.0-1-cp312-cp312-linux_x86_64.whl.metadata",
                "",
                "pypi:numpy 2.0",
            ),
            ("/packages/a/Foo.Bar-1.0.tar.gz", "", "pypi:foo-bar 1.0"),
            ("/releases/tool-1.0.tar.gz", "", "-"),
            ("/packages/a/tool-linux.tar.gz", "", "-"),
            ("/simple/Foo_Bar/", "text/html", "pypi:foo-bar metadata"),
            ("/pypi/foo/json", "application/json", "pypi:foo metadata"),
            ("/v2/org/mcp/manifests/latest", "", "oci:org/mcp latest"),
            (
                "/v2/org/mcp/manifests/sha256:ab",
                "",
                "oci:org/mcp sha256:ab",
            ),
            ("/v2/org/mcp/blobs/sha256:ab", "", "-"),
            ("/v2/manifests/latest", "", "-"),
            // What the client writes beside the path makes no difference.
            (
                "/express/-/express-4.18.2.tgz?scope=repository:x:pull",
                "",
                "npm:express 4.18.2",
            ),
            ("/x?scope=repository:x:pull", "application/json", "-"),
            ("/a b/-/a b-1.tgz", "", "-"),
            ("/", "", "-"),
            ("", "", "-"),
            ("*", "", "-"),
        ] {
            assert_eq!(shown(path, kind), expected, "{path}");
        }
    }

    #[test]
    fn the_same_thing_has_the_same_key() {
        let key = |host, path| Artefact::new(host, path, None).key();
        let tarball = "/express/-/express-4.18.2.tgz";
        assert_eq!(
            key("a.example", tarball),
            "npm:express 4.18.2 express-4.18.2.tgz"
        );
        assert_eq!(key("a.example", tarball), key("b.example", tarball));
        assert_eq!(
            key("a.example", "/install.sh"),
            "https://a.example/install.sh"
        );
        assert_ne!(
            key("a.example", "/install.sh"),
            key("b.example", "/install.sh")
        );
        assert!(!Artefact::new("a.example", "/simple/x/", None).stays());
        assert!(Artefact::new("a.example", "/install.sh", None).stays());
    }

    proptest! {
        #[test]
        fn whatever_the_path_is_what_is_kept_of_it_is_bounded(
            path in "(/(@|%2f|-|v2|manifests|simple|packages|[a-z0-9.é\"-]{0,300}|a-1\\.tgz|b-2-a-b-c\\.whl)){0,6}",
            kind in "(application/vnd\\.npm\\.install-v1\\+json)?",
        ) {
            let artefact = Artefact::new("a.example", &path, Some(&kind));
            prop_assert!(artefact.path.len() <= PATH && path.starts_with(&artefact.path));
            if let Some(package) = &artefact.package {
                prop_assert!(!package.name.is_empty() && package.name.len() <= NAME);
                prop_assert!(package.version.as_ref().is_none_or(|v| v.len() <= VERSION));
                prop_assert!(package.name.is_ascii());
            }
            // What a hostile path makes of a record or a message stays within the log's and the channel's bounds.
            let size = serde_json::to_string(&artefact).unwrap().len();
            prop_assert!(size * super::ARTEFACTS_AT_ONCE < 56 * 1024, "{size}");
            let many = vec![artefact; 100];
            let pieces: Vec<_> = Artefact::pieces(&many).collect();
            prop_assert_eq!(pieces.iter().map(|piece| piece.len()).sum::<usize>(), many.len());
            for piece in pieces {
                prop_assert!(serde_json::to_string(piece).unwrap().len() < 56 * 1024);
            }
        }
    }
}
