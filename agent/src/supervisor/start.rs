//! The order of starting: nothing is opened before everything needed for it is known to be right.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown, lchown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use exeat_ebpf::{Features, Kernel, Layout, Settings, probe, refuse_descriptors};
use rustix::fs::{Mode, OFlags};
use tokio::time::Instant;

use super::ca::Authority;
use super::cgroups::{Tree, find_root};
use super::core::{Parts, Supervisor};
use super::error::DaemonError;
use super::gate_life::GatePlan;
use super::signing::{Signing, today};
use super::{accounts, authorities, policy_files, trust};
use crate::channel::{Approving, ClientIdentity, Hex, ProxyCredentials, Role, Secret, decode_hex};
use crate::config::{Approvals, Config, HttpsUrl, KeySource, WebhookUrl, load, read_text};
use crate::launch::stage::{Account, Listen, Listening, Program, listen};
use crate::telemetry::logging::LEVEL_VARIABLE;

/// What the command line gives.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--policy`, instead of what the configuration says.
    pub policy: Option<PathBuf>,
}

/// What the daemon starts its children with.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Runs a stage whose orders wait on its standard input.
    pub stage: Program,
    /// Is the gate.
    pub gate: Program,
}

impl Programs {
    /// This executable in other roles: `exeat internal stage` and `exeat gate`.
    pub fn this() -> Self {
        let mut gate = Program::this(&["gate"]);
        // The gate's memory is many small things: a huge page stays whole for the one of them that is left.
        let small_pages = ("MIMALLOC_ALLOW_THP".into(), "0".into());
        gate.environment.push(small_pages);
        gate.environment.extend(
            env::var(LEVEL_VARIABLE)
                .ok()
                .map(|v| (LEVEL_VARIABLE.into(), v)),
        );
        Self {
            stage: Program::this(&["internal", "stage"]),
            gate,
        }
    }
}

/// The sockets that outlive every gate.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub(super) listening: Listening,
    pub(super) descriptors: Vec<(Role, OwnedFd)>,
}

/// Contents of files that the gate may not read.
#[derive(Debug, Clone)]
pub(super) struct Material {
    pub(super) extra_roots: Vec<String>,
    pub(super) client_identities: Vec<ClientIdentity>,
    pub(super) client_authorities: Vec<(String, String)>,
    pub(super) key_sets: Vec<Option<String>>,
    pub(super) proxy_credentials: Option<ProxyCredentials>,
    pub(super) approving: Option<Approving>,
}

/// Does everything up to the gate's own start.
pub(super) async fn prepare(
    options: Options,
    programs: Programs,
) -> Result<Supervisor, DaemonError> {
    if !rustix::process::geteuid().is_root() {
        return Err(DaemonError::NotRoot);
    }
    let mut config = load(options.config.as_deref())?;
    if let Some(path) = options.policy {
        config.policy = path;
    }
    let policy = policy_files::load(&config.policy)?;
    let material = material(&config)?;
    let gate_user = accounts::find(&config.gate.user)?;
    let features = probe().map_err(DaemonError::Missing)?;

    directory(&config.state_dir, 0o755)?;
    directory(&config.run_dir, 0o755)?;
    let authority = Authority::open(&config.state_dir, today())?;
    let trust = trust::write(&config.run_dir, authority.certificate()).map_err(|cause| {
        DaemonError::Path {
            attempt: "writing the trust bundle in",
            path: config.run_dir.clone(),
            cause,
        }
    })?;
    let directories = gates_directories(&config, &gate_user.account)?;

    let tree = Tree::create(find_root()?, &config.cgroup)?;
    let (listening, sockets) = listen(&programs.stage, order(&config, &tree))
        .await
        .map_err(DaemonError::Listen)?;
    let inheritance = inheritance(listening, sockets, directories);
    let settings = Settings {
        proxy_port: listening.proxy_port,
        dns_port: listening.dns_port,
    };
    let kernel = Kernel::start(&layout(&config, &tree), settings)?;
    let plan = GatePlan {
        stage: programs.stage,
        program: programs.gate,
        cgroup: tree.gate.clone(),
        account: gate_user.account,
    };
    let signing = Signing::new(authority, Instant::now());
    let degraded = degraded(&features, takes_descriptors()?);
    let parts = Parts {
        config,
        tree,
        kernel,
        signing,
        policy,
        plan,
        inheritance,
        material,
        trust,
        degraded,
    };
    Supervisor::new(parts)
}

fn order(config: &Config, tree: &Tree) -> Listen {
    Listen {
        cgroup: tree.gate.clone(),
        proxy_port: config.listeners.proxy_port,
        dns_port: config.listeners.dns_port,
        approvals: config.approvals.as_ref().and_then(|of| of.listen),
    }
}

fn layout(config: &Config, tree: &Tree) -> Layout {
    Layout {
        bpffs: config.bpffs.clone(),
        cgroup_root: tree.root.clone(),
        managed: tree.managed.clone(),
        gate: tree.gate.clone(),
    }
}

/// Whether descriptors can be sent to the daemon's sockets, because this kernel cannot be told to refuse them.
fn takes_descriptors() -> Result<bool, DaemonError> {
    let probing_failed = |cause| DaemonError::System {
        attempt: "trying whether the kernel refuses descriptors",
        cause,
    };
    let (one, _other) = UnixStream::pair().map_err(probing_failed)?;
    let refused = refuse_descriptors(&one).map_err(probing_failed)?;
    Ok(!refused)
}

fn degraded(features: &Features, takes_descriptors: bool) -> Vec<String> {
    let mut found = Vec::new();
    if takes_descriptors {
        found.push(
            "a local user can hold up a thread of the daemon by a descriptor sent to it; Linux 6.16 refuses them".into(),
        );
    }
    if !features.refusal_errno {
        found.push(
            "refused connections fail with EPERM instead of ECONNREFUSED on this kernel".into(),
        );
    }
    found
}

fn inheritance(
    listening: Listening,
    sockets: Vec<OwnedFd>,
    directories: Vec<(Role, OwnedFd)>,
) -> Inheritance {
    let roles: &[Role] = if listening.v6 {
        &[Role::ProxyV4, Role::ProxyV6, Role::DnsV4, Role::DnsV6]
    } else {
        &[Role::ProxyV4, Role::DnsV4]
    };
    // What is left over was ordered beside them.
    let roles = roles.iter().cloned().chain([Role::Approvals]);
    let mut descriptors: Vec<_> = roles.zip(sockets).collect();
    descriptors.extend(directories);
    Inheritance {
        listening,
        descriptors,
    }
}

fn material(config: &Config) -> Result<Material, DaemonError> {
    let extra_roots = config.tls.extra_roots.iter().map(|path| read_text(path));
    let identities = config.tls.client_certificates.iter().map(|of| {
        Ok::<_, DaemonError>(ClientIdentity {
            host: of.host.clone(),
            certificate: read_text(&of.cert)?,
            key: Secret::new(read_text(&of.key)?),
        })
    });
    let key_sets = config.issuers.iter().map(|issuer| match &issuer.jwks {
        KeySource::File(path) => read_text(path).map(Some),
        KeySource::Url(_) | KeySource::Discovered(_) => Ok(None),
    });
    let proxy = config.upstream_proxy.as_ref();
    let username = proxy.and_then(|proxy| proxy.username.clone());
    let file = proxy.and_then(|proxy| proxy.password_file.as_deref());
    let password = file.map(read_text).transpose()?.unwrap_or_default();
    Ok(Material {
        extra_roots: extra_roots.collect::<Result<_, _>>()?,
        client_identities: identities.collect::<Result<_, _>>()?,
        client_authorities: authorities::read(config)?,
        key_sets: key_sets.collect::<Result<_, _>>()?,
        proxy_credentials: username.map(|username| ProxyCredentials {
            username,
            password: Secret::new(password.lines().next().unwrap_or_default().to_owned()),
        }),
        approving: config.approvals.as_ref().map(approving).transpose()?,
    })
}

/// The key of links, where messages go, and who decides.
fn approving(of: &Approvals) -> Result<Approving, DaemonError> {
    let key = secret_line(&of.secret_file, |line| {
        let key = decode_hex(line).filter(|key| key.len() == 32);
        key.ok_or("its first line is not 64 hexadecimal digits; `openssl rand -hex 32` makes them")
    })?;
    let webhooks = of.webhooks.iter().map(|webhook| {
        let url = match &webhook.url {
            WebhookUrl::Plain(url) => url.to_string(),
            WebhookUrl::File(path) => secret_line(path, |line| {
                HttpsUrl::parse(line)
                    .map(String::from)
                    .map_err(|_fault| "its first line is no `https` URL of a host by name")
            })?,
        };
        let user = accounts::find(&webhook.approver).map_err(DaemonError::Approver)?;
        Ok((Secret::new(url), user.account.uid))
    });
    Ok(Approving {
        key: Hex(key),
        webhooks: webhooks.collect::<Result<_, DaemonError>>()?,
    })
}

/// What the first line of a file says, which nobody but its owner and root may read.
fn secret_line<T>(
    path: &Path,
    read: impl FnOnce(&str) -> Result<T, &'static str>,
) -> Result<T, DaemonError> {
    let failed = |cause: io::Error| DaemonError::Path {
        attempt: "reading the secret in",
        path: path.to_owned(),
        cause,
    };
    let unfit = |why| failed(io::Error::new(io::ErrorKind::InvalidData, why));
    let others = fs::metadata(path).map_err(failed)?.mode() & 0o077;
    if others != 0 {
        return Err(unfit(
            "others than its owner can read or write it: `chmod 600` it",
        ));
    }
    let text = read_text(path)?;
    read(text.lines().next().unwrap_or_default().trim()).map_err(unfit)
}

fn directory(path: &Path, mode: u32) -> Result<(), DaemonError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|cause| DaemonError::Path {
            attempt: "creating the directory",
            path: path.to_owned(),
            cause,
        })
}

/// The gate writes there and nowhere else.
fn gates_directories(
    config: &Config,
    account: &Account,
) -> Result<Vec<(Role, OwnedFd)>, DaemonError> {
    let all = [
        ("limits", Role::LimitsDirectory),
        ("audit", Role::AuditDirectory),
    ];
    all.into_iter()
        .map(|(name, role)| {
            Ok((
                role,
                gates_directory(&config.state_dir.join(name), account)?,
            ))
        })
        .collect()
}

fn gates_directory(path: &Path, account: &Account) -> Result<OwnedFd, DaemonError> {
    directory(path, 0o700)?;
    let failed = |cause: io::Error| DaemonError::Path {
        attempt: "handing over the directory",
        path: path.to_owned(),
        cause,
    };
    chown(path, Some(account.uid), Some(account.gid)).map_err(failed)?;
    // What an earlier gate wrote under another account.
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        lchown(entry, Some(account.uid), Some(account.gid)).map_err(failed)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))
}
