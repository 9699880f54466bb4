//! `docker run`, reduced to what stays inside a workload: by a table of what is permitted, never of what is forbidden.

use std::ops::Range;

/// A container that `launch` starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Options, as they are written.
    pub options: Vec<String>,
    /// The user within, where the options name one: `UID:GID`, neither of them root.
    pub user: Option<String>,
    /// What of this machine the options show in it.
    pub volumes: Vec<String>,
    /// The image.
    pub image: Image,
    /// What follows the image.
    pub arguments: Vec<String>,
}

/// An image's reference: `[HOST[:PORT]/]PATH[:TAG][@sha256:DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// As it is written.
    pub written: String,
    /// That without tag and digest.
    path: String,
    /// The registry's host, and its port where one is written.
    pub registry: String,
    /// The name there.
    pub name: String,
    /// The tag; `latest` where none is written.
    pub tag: String,
    /// The digest, with its `sha256:`.
    pub digest: Option<String>,
}

/// Why something is no container that can be kept inside: the argument's index, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerFault {
    /// Of the arguments; their number where something is missing.
    pub at: usize,
    /// A sentence.
    pub message: String,
}

/// What follows an option.
type Check = fn(&str) -> Result<(), &'static str>;

/// One permitted option.
struct Permitted {
    names: &'static [&'static str],
    /// Of its value, where it takes one.
    check: Option<Check>,
}

/// Whose registry it is that nobody names, as Docker has it.
const HUB: &str = "registry-1.docker.io";
/// Below which its images without a path lie.
const LIBRARY: &str = "library/";
/// How the tag begins that stands for a digest on this machine ([`Image::kept_as`]).
const PINNED: &str = "sha256-";
/// The variable that says where Docker's daemon listens.
const DOCKER_HOST: &str = "DOCKER_HOST";
/// Where it listens otherwise.
const SOCKET: &str = "/var/run/docker.sock";

/// Of these directories and what is around them nothing is seen in a container: sockets and files by which
/// processes outside are driven.
const KEPT_OUT: [&str; 7] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/var/lib/docker",
    "/var/lib/containerd",
];

const OPTIONS: &[Permitted] = &[
    flag(&["-i", "--interactive"]),
    flag(&["--rm"]),
    flag(&["--init"]),
    flag(&["--read-only"]),
    valued(&["-e", "--env"], variable),
    valued(&["-u", "--user"], user),
    valued(&["-w", "--workdir"], directory),
    valued(&["--entrypoint"], |_program| Ok(())),
    valued(&["--tmpfs"], directory),
    valued(&["-v", "--volume"], volume),
];

const fn flag(names: &'static [&'static str]) -> Permitted {
    Permitted { names, check: None }
}

const fn valued(names: &'static [&'static str], check: Check) -> Permitted {
    Permitted {
        names,
        check: Some(check),
    }
}

impl Container {
    /// Whether a program is Docker's client, by its name.
    #[must_use]
    pub fn is_started_by(command: &str) -> bool {
        command.rsplit('/').next() == Some("docker")
    }

    /// What these arguments of Docker's client start.
    ///
    /// # Errors
    /// The first argument that is not permitted.
    pub fn parse(arguments: &[String]) -> Result<Self, ContainerFault> {
        let fault = |at, message: &str| ContainerFault {
            at,
            message: message.to_owned(),
        };
        if arguments.first().is_none_or(|first| first != "run") {
            return Err(fault(
                0,
                "of Docker's commands only `run` starts a server, and its options follow it",
            ));
        }
        let (mut at, mut user, mut is_interactive) = (1_usize, None, false);
        let mut volumes = Vec::new();
        while let Some(word) = arguments.get(at).filter(|word| word.starts_with('-')) {
            let option = Given::find(word).map_err(|message| ContainerFault { at, message })?;
            is_interactive |= option.permitted.names.contains(&"-i");
            let Some(check) = option.permitted.check else {
                at = at.saturating_add(1);
                continue;
            };
            // In the same word, or else the next one.
            let place = at.saturating_add(usize::from(option.value.is_none()));
            let next = arguments.get(place).map(String::as_str);
            let value = option.value.or(next);
            let value = value.ok_or_else(|| fault(place, "the option needs a value"))?;
            check(value).map_err(|why| fault(place, why))?;
            if option.permitted.names.contains(&"-u") {
                user = Some(value.to_owned());
            } else if option.permitted.names.contains(&"-v") {
                volumes.extend(value.split(':').next().map(str::to_owned));
            }
            at = place.saturating_add(1);
        }
        let written = arguments
            .get(at)
            .ok_or_else(|| fault(at, "`docker run` needs an image"))?;
        let image = Image::parse(written).map_err(|why| fault(at, why))?;
        if !is_interactive {
            return Err(fault(
                at,
                "`docker run` needs `-i`: the server's input is passed on by it alone",
            ));
        }
        let part = |range: Range<usize>| arguments.get(range).unwrap_or_default().to_vec();
        Ok(Self {
            options: part(1..at),
            user,
            volumes,
            image,
            arguments: part(at.saturating_add(1)..arguments.len()),
        })
    }

    /// Where Docker's daemon listens, by what a server's entry says of `DOCKER_HOST`.
    ///
    /// # Errors
    /// It is not this machine's, or not written as a path without dots.
    pub fn socket(host: Option<&str>) -> Result<&str, &'static str> {
        let Some(host) = host else { return Ok(SOCKET) };
        host.strip_prefix("unix://")
            .filter(|path| directory(path).is_ok())
            .ok_or("`DOCKER_HOST` is `unix://` and an absolute path: containers elsewhere are under no policy")
    }

    /// Whether where Docker's daemon listens is seen in the container.
    #[must_use]
    pub fn shows(&self, socket: &str) -> bool {
        self.volumes.iter().any(|volume| shows(volume, socket))
    }

    /// Whether a variable may be in the environment of Docker's client: those of its own send it elsewhere.
    ///
    /// # Errors
    /// Why not.
    pub fn variable(name: &str) -> Result<(), &'static str> {
        if name.starts_with("DOCKER_") && name != DOCKER_HOST {
            return Err("of Docker's variables only `DOCKER_HOST` is permitted");
        }
        Ok(())
    }
}

/// An option as it is given.
struct Given<'a> {
    permitted: &'static Permitted,
    /// Its value, where it stands in the same word.
    value: Option<&'a str>,
}

impl<'a> Given<'a> {
    fn find(word: &'a str) -> Result<Self, String> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (word, None),
        };
        let permitted = OPTIONS
            .iter()
            .find(|option| option.names.contains(&name))
            // `--rm=false` is no `--rm`.
            .filter(|option| option.check.is_some() || value.is_none());
        let Some(permitted) = permitted else {
            return Err(format!(
                "`{}` is not permitted: a container stays under policy with {} alone, each a word of its own",
                name.escape_debug(),
                names()
            ));
        };
        Ok(Self { permitted, value })
    }
}

fn names() -> String {
    let all = OPTIONS.iter().flat_map(|option| option.names);
    all.map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl Image {
    /// Reads a reference.
    fn parse(written: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "an image is `[HOST/]NAME[:TAG][@sha256:DIGEST]`, in lower case";
        let (rest, digest) = match written.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (written, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        let (registry, name) = match path.split_once('/') {
            Some((host, name)) if host.contains(['.', ':']) || host == "localhost" => {
                (Some(host), name)
            }
            _ => (None, path),
        };
        let fits = name.split('/').all(is_component)
            && name.len() <= 255
            && tag.is_none_or(is_tag)
            && registry.is_none_or(is_host)
            && digest.is_none_or(is_digest);
        if !fits {
            return Err(WRONG);
        }
        if tag.is_some_and(|tag| tag.starts_with(PINNED)) {
            return Err(
                "a tag that begins with `sha256-` is taken for a digest on this machine: write `@sha256:DIGEST`",
            );
        }
        let hub = matches!(registry, None | Some("docker.io" | "index.docker.io"));
        let below = if hub && !name.contains('/') {
            LIBRARY
        } else {
            ""
        };
        Ok(Self {
            written: written.to_owned(),
            path: path.to_owned(),
            registry: if hub {
                HUB
            } else {
                registry.unwrap_or_default()
            }
            .to_owned(),
            name: format!("{below}{name}"),
            tag: tag.unwrap_or("latest").to_owned(),
            digest: digest.map(str::to_owned),
        })
    }

    /// What it is asked for by at its registry.
    #[must_use]
    pub fn reference(&self) -> &str {
        self.digest.as_deref().unwrap_or(&self.tag)
    }

    /// By what it is kept on this machine once it was fetched: a digest is no name there, and stands in the tag.
    #[must_use]
    pub fn kept_as(&self) -> String {
        let reference = self.reference().replace(':', "-");
        format!("{}:{reference}", self.path)
    }
}

fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|c| plain(c) || "._-".contains(c))
}

fn is_tag(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(plain)
        && text.len() <= 128
        && text.chars().all(|c| plain(c) || ".-".contains(c))
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "443"));
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok()
}

fn is_digest(text: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.strip_prefix("sha256:")
        .is_some_and(|text| text.len() == 64 && text.chars().all(hex))
}

fn variable(text: &str) -> Result<(), &'static str> {
    let name = text.split('=').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.is_empty() && name.chars().all(plain) {
        return Ok(());
    }
    Err("a variable's name holds letters, digits and `_`")
}

fn user(text: &str) -> Result<(), &'static str> {
    let is_one = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits && text.parse::<u32>().is_ok_and(|id| id != 0)
    };
    if text
        .split_once(':')
        .is_some_and(|(uid, gid)| is_one(uid) && is_one(gid))
    {
        return Ok(());
    }
    Err(
        "a container's user is `UID:GID`, both numbers and neither 0: whom else it means, its groups included, the image would say",
    )
}

fn directory(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix('/').unwrap_or("//");
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    if rest.is_empty() || (rest.split('/').all(plain) && !text.contains([':', ','])) {
        return Ok(());
    }
    Err("a path is absolute, and without `.`, `..`, `:` and `,`")
}

fn volume(text: &str) -> Result<(), &'static str> {
    let mut parts = text.split(':');
    let (from, to, mode) = (parts.next(), parts.next(), parts.next());
    let (Some(from), Some(to), None) = (from, to, parts.next()) else {
        return Err("a volume is `/FROM:/TO`, `/FROM:/TO:ro` or `/FROM:/TO:rw`");
    };
    if !matches!(mode, None | Some("ro" | "rw")) {
        return Err("a volume ends in `:ro` or `:rw`, or in neither");
    }
    directory(from)?;
    directory(to)?;
    if KEPT_OUT.iter().any(|kept| shows(from, kept)) {
        return Err(
            "a volume shows nothing of /proc, /sys, /dev, /run and Docker's own directories, nor what they are in",
        );
    }
    Ok(())
}

/// Whether what is at one path is seen at the other, or around it.
fn shows(volume: &str, path: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        let rest = inner.strip_prefix(outer.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(volume, path) || within(path, volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Container, ContainerFault> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Container::parse(&words)
    }

    #[test]
    fn what_is_permitted_is_kept_as_it_is_written() {
        let line = "run -i --rm -e TOKEN --env=A=b --user 1000:1000 -v /srv/data:/data:ro \
                    mcp/fetch:1.2 --privileged -v /:/host";
        let container = parse(line).unwrap();
        assert_eq!(container.options.len(), 9);
        assert_eq!(container.user.as_deref(), Some("1000:1000"));
        assert_eq!(container.volumes, ["/srv/data"]);
        assert!(container.shows("/srv/data/docker.sock") && !container.shows("/srv/datas"));
        assert_eq!(container.image.written, "mcp/fetch:1.2");
        // To the server, whatever it looks like.
        assert_eq!(container.arguments, ["--privileged", "-v", "/:/host"]);
    }

    #[test]
    fn whatever_else_docker_knows_is_refused_where_it_stands() {
        for (line, at) in [
            ("", 0),
            ("exec -i x", 0),
            ("-H tcp://a run -i x", 0),
            ("--context a run -i x", 0),
            ("container run -i x", 0),
            ("run -i --privileged x", 2),
            ("run -i --privileged=true x", 2),
            ("run -i --cgroup-parent /x x", 2),
            ("run -i --cgroup-parent=/x x", 2),
            ("run -i --cgroupns host x", 2),
            ("run -i --network bridge x", 2),
            ("run -i --net=none x", 2),
            ("run -i --pid host x", 2),
            ("run -i --ipc host x", 2),
            ("run -i --userns host x", 2),
            ("run -i --cap-add ALL x", 2),
            ("run -i --device /dev/kvm x", 2),
            ("run -i --security-opt seccomp=unconfined x", 2),
            ("run -i --runtime x x", 2),
            ("run -i --pull always x", 2),
            ("run -i --volumes-from y x", 2),
            ("run -i --mount type=bind,src=/,dst=/h x", 2),
            ("run -i --env-file /etc/shadow x", 2),
            ("run -i --group-add 0 x", 2),
            ("run -d x", 1),
            ("run -id x", 1),
            ("run -it x", 1),
            ("run -i -eA=b x", 2),
            ("run -i --rm=false x", 2),
            ("run -i=false x", 1),
            ("run -i -- x", 2),
            ("run -i -u 0 x", 3),
            ("run -i -u 00 x", 3),
            ("run -i -u +0 x", 3),
            ("run -i -u 1:0 x", 3),
            ("run -i -u 0:1 x", 3),
            ("run -i -u 1 x", 3),
            ("run -i -u 1: x", 3),
            ("run -i -u 1:1:1 x", 3),
            ("run -i -u 1:docker x", 3),
            ("run -i -u root x", 3),
            ("run -i --user= x", 2),
            ("run -i -v /var/run/docker.sock:/d x", 3),
            ("run -i -v /run:/d x", 3),
            ("run -i -v /:/d x", 3),
            ("run -i -v /var:/d x", 3),
            ("run -i -v /srv/../run:/d x", 3),
            ("run -i -v //run:/d x", 3),
            ("run -i -v /a:/b:shared x", 3),
            ("run -i -v named:/b x", 3),
            ("run -i -v /b x", 3),
        ] {
            let fault = parse(line).unwrap_err();
            assert_eq!(fault.at, at, "{line}: {}", fault.message);
        }
        parse("run -i -v /srv:/run/x x").unwrap();
        parse("run -i -v /running:/x x").unwrap();
    }

    #[test]
    fn what_is_not_written_as_it_should_be_is_refused_where_it_stands() {
        for (line, at) in [
            ("run -i --tmpfs /a:suid x", 3),
            ("run -i -e", 3),
            ("run -i", 2),
            ("run x", 1),
            ("run -i X", 2),
            ("run -i a:b:c", 2),
            ("run -i a@sha256:00", 2),
            ("run -i a/../b", 2),
            ("run -i a:sha256-00", 2),
            ("run -i a.example/a:sha256-@sha256:00", 2),
        ] {
            let fault = parse(line).unwrap_err();
            assert_eq!(fault.at, at, "{line}: {}", fault.message);
        }
    }

    #[test]
    fn an_image_is_at_its_registry_and_has_a_name_here() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("ghcr.io/org/mcp:1@{digest}");
        for (written, registry, name, reference, kept) in [
            ("alpine", HUB, "library/alpine", "latest", "alpine:latest"),
            ("mcp/fetch", HUB, "mcp/fetch", "latest", "mcp/fetch:latest"),
            ("docker.io/a:1", HUB, "library/a", "1", "docker.io/a:1"),
            (
                "localhost:5000/a:1",
                "localhost:5000",
                "a",
                "1",
                "localhost:5000/a:1",
            ),
            (
                &*pinned,
                "ghcr.io",
                "org/mcp",
                &*digest,
                &*format!("ghcr.io/org/mcp:{}", digest.replace(':', "-")),
            ),
        ] {
            let image = Image::parse(written).unwrap();
            let of = (&*image.registry, &*image.name, image.reference());
            assert_eq!(of, (registry, name, reference));
            assert_eq!(image.kept_as(), kept);
        }
    }

    #[test]
    fn docker_is_this_machines() {
        assert_eq!(Container::socket(None), Ok(SOCKET));
        assert_eq!(
            Container::socket(Some("unix:///run/d.sock")),
            Ok("/run/d.sock")
        );
        for host in ["", "tcp://a:2375", "ssh://a", "unix://a", "unix:///a/../b"] {
            assert!(Container::socket(Some(host)).is_err(), "{host}");
        }
        Container::variable("DOCKER_HOST").unwrap();
        Container::variable("TOKEN").unwrap();
        assert!(Container::variable("DOCKER_CONTEXT").is_err());
    }
}
