//! Reads `exeat.yaml`: every fault at once, each with its place.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use exeat_policy::yaml::{Fields, Keys, Node, Reader, read};
use exeat_policy::{Fault, Source};

use super::approvals::approvals;
use super::issuers::issuers;
use super::{ClientAuthority, ClientCertificate, Config, DnsUpstream, Tls, UpstreamProxy};

pub(super) const fn keys(what: &'static str, known: &'static [&'static str]) -> Keys {
    Keys {
        what,
        known,
        later: &[],
    }
}

const TOP: Keys = keys(
    "the configuration",
    &[
        "version",
        "policy",
        "state_dir",
        "run_dir",
        "bpffs",
        "cgroup",
        "gate",
        "docker",
        "listeners",
        "dns",
        "tls",
        "issuers",
        "approvals",
        "upstream_proxy",
        "audit",
        "limits",
        "shutdown",
    ],
);
const GATE: Keys = keys("`gate`", &["user"]);
const DOCKER: Keys = keys("`docker`", &["data_root"]);
const LISTENERS: Keys = keys("`listeners`", &["proxy_port", "dns_port"]);
const DNS: Keys = keys("`dns`", &["upstream"]);
const TLS: Keys = keys(
    "`tls`",
    &["extra_roots", "client_certificates", "client_authorities"],
);
const CLIENT_AUTHORITY: Keys = keys("a client authority", &["name", "roots"]);
const CLIENT_CERTIFICATE: Keys = keys("a client certificate", &["host", "cert", "key"]);
const UPSTREAM_PROXY: Keys = keys("`upstream_proxy`", &["url", "username", "password_file"]);
const AUDIT: Keys = keys("`audit`", &["sync", "segment_bytes"]);
const LIMITS: Keys = keys(
    "`limits`",
    &[
        "body_bytes",
        "held_bytes",
        "header_bytes",
        "header_deadline",
        "connect_deadline",
        "idle_deadline",
        "answer_deadline",
        "fetch_deadline",
        "connections_per_workload",
    ],
);

/// The configuration that `source` describes, the defaults where it is silent.
pub fn parse(source: &Source) -> Result<Config, Vec<Fault>> {
    let root = read(source)?;
    let mut reader = Reader::new(&source.name);
    let mut config = Config::default();
    if let Some(fields) = reader.fields(&root, &TOP) {
        top(&mut reader, fields, &mut config);
    }
    let mut faults = reader.into_faults();
    faults.sort_by_key(|fault| (fault.line, fault.column));
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(faults)
    }
}

fn top(reader: &mut Reader, fields: Fields<'_>, config: &mut Config) {
    if let Some(node) = reader.required(fields, "version", "the configuration") {
        reader.integer(node, "the version", 1..=1);
    }
    for (key, place) in [
        ("policy", &mut config.policy),
        ("state_dir", &mut config.state_dir),
        ("run_dir", &mut config.run_dir),
        ("bpffs", &mut config.bpffs),
    ] {
        set(place, fields.get(key).and_then(|node| path(reader, node)));
    }
    set(
        &mut config.cgroup,
        fields
            .get("cgroup")
            .and_then(|node| cgroup_name(reader, node)),
    );
    set(
        &mut config.shutdown,
        duration(reader, fields, "shutdown", SECOND..=10 * MINUTE),
    );
    sections(reader, fields, config);
}

fn sections(reader: &mut Reader, fields: Fields<'_>, config: &mut Config) {
    let section = |reader: &mut Reader, key: &str, keys: &Keys| {
        fields.get(key).and_then(|node| reader.fields(node, keys))
    };
    if let Some(gate) = section(reader, "gate", &GATE)
        && let Some(node) = gate.get("user")
    {
        set(&mut config.gate.user, user(reader, node));
    }
    if let Some(docker) = section(reader, "docker", &DOCKER) {
        let node = docker.get("data_root");
        config.docker.data_root = node.and_then(|node| path(reader, node));
    }
    if let Some(listeners) = section(reader, "listeners", &LISTENERS) {
        set(
            &mut config.listeners.proxy_port,
            port(reader, listeners, "proxy_port"),
        );
        set(
            &mut config.listeners.dns_port,
            port(reader, listeners, "dns_port"),
        );
    }
    if let Some(dns) = section(reader, "dns", &DNS)
        && let Some(node) = dns.get("upstream")
    {
        set(&mut config.dns.upstream, upstream(reader, node));
    }
    if let Some(tls) = section(reader, "tls", &TLS) {
        read_tls(reader, tls, &mut config.tls);
    }
    set(&mut config.issuers, issuers(reader, fields));
    config.approvals = approvals(reader, fields);
    if let Some(proxy) = section(reader, "upstream_proxy", &UPSTREAM_PROXY) {
        config.upstream_proxy = upstream_proxy(reader, proxy);
    }
    if let Some(audit) = section(reader, "audit", &AUDIT) {
        set(
            &mut config.audit.sync,
            duration(reader, audit, "sync", 0..=10 * SECOND),
        );
        let segment = number(
            reader,
            audit,
            "segment_bytes",
            "a size",
            (64 << 10)..=(1 << 34),
        );
        set(&mut config.audit.segment_bytes, segment);
    }
    if let Some(limits) = section(reader, "limits", &LIMITS) {
        read_limits(reader, limits, config);
    }
}

fn read_tls(reader: &mut Reader, fields: Fields<'_>, tls: &mut Tls) {
    set(
        &mut tls.extra_roots,
        list(reader, fields, "extra_roots", "paths", path),
    );
    let certificates = list(
        reader,
        fields,
        "client_certificates",
        "certificates",
        client_certificate,
    );
    set(&mut tls.client_certificates, certificates);
    set(
        &mut tls.client_authorities,
        client_authorities(reader, fields),
    );
}

fn read_limits(reader: &mut Reader, fields: Fields<'_>, config: &mut Config) {
    let limits = &mut config.limits;
    set(
        &mut limits.body_bytes,
        number(reader, fields, "body_bytes", "a size", 1024..=(1 << 30)),
    );
    set(
        &mut limits.held_bytes,
        number(reader, fields, "held_bytes", "a size", 1024..=(1 << 40)),
    );
    if limits.held_bytes < limits.body_bytes
        && let Some(node) = fields
            .get("held_bytes")
            .or_else(|| fields.get("body_bytes"))
    {
        let held = limits.held_bytes;
        reader.fault(
            node.span,
            format!("`held_bytes` ({held}) has no room for a body of `body_bytes`"),
        );
    }
    let header = number(reader, fields, "header_bytes", "a size", 1024..=(1 << 20));
    set(
        &mut limits.header_bytes,
        header.and_then(|n| u32::try_from(n).ok()),
    );
    let hour = 60 * MINUTE;
    set(
        &mut limits.header_deadline,
        duration(reader, fields, "header_deadline", 100..=hour),
    );
    set(
        &mut limits.connect_deadline,
        duration(reader, fields, "connect_deadline", 100..=hour),
    );
    set(
        &mut limits.idle_deadline,
        duration(reader, fields, "idle_deadline", SECOND..=24 * hour),
    );
    set(
        &mut limits.answer_deadline,
        duration(reader, fields, "answer_deadline", 100..=24 * hour),
    );
    set(
        &mut limits.fetch_deadline,
        duration(reader, fields, "fetch_deadline", SECOND..=hour),
    );
    let connections = number(
        reader,
        fields,
        "connections_per_workload",
        "a number",
        1..=65_536,
    );
    set(
        &mut limits.connections_per_workload,
        connections.and_then(|n| u32::try_from(n).ok()),
    );
}

/// Milliseconds.
pub(super) const SECOND: u64 = 1000;
pub(super) const MINUTE: u64 = 60 * SECOND;

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

pub(super) fn path(reader: &mut Reader, node: &Node) -> Option<PathBuf> {
    reader.parsed(node, "an absolute path", |text| {
        let path = PathBuf::from(text);
        if path.is_absolute() && !text.contains('\0') {
            Ok(path)
        } else {
            Err("it does not begin with `/`")
        }
    })
}

fn cgroup_name(reader: &mut Reader, node: &Node) -> Option<String> {
    reader.parsed(node, "the name of a cgroup", |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.len() <= 64 && text.chars().all(plain) {
            Ok(text.to_owned())
        } else {
            Err("letters, digits, `-` and `_` make one")
        }
    })
}

/// A name, or a uid written as a number or as a text.
fn user(reader: &mut Reader, node: &Node) -> Option<String> {
    if node.kind() == "a number" {
        return reader
            .integer(node, "a uid", 1..=u64::from(u32::MAX - 1))
            .map(|n| n.to_string());
    }
    reader.parsed(node, "a user", |text| match text {
        "root" | "0" => Err("the gate never runs as root"),
        _ => Ok(text.to_owned()),
    })
}

fn port(reader: &mut Reader, fields: Fields<'_>, key: &str) -> Option<u16> {
    let number = number(reader, fields, key, "a port", 0..=u64::from(u16::MAX))?;
    u16::try_from(number).ok()
}

fn number(
    reader: &mut Reader,
    fields: Fields<'_>,
    key: &str,
    expected: &str,
    range: RangeInclusive<u64>,
) -> Option<u64> {
    reader.integer(fields.get(key)?, expected, range)
}

/// `resolv.conf`'s path, or a list of `ADDRESS` or `ADDRESS:PORT`.
fn upstream(reader: &mut Reader, node: &Node) -> Option<DnsUpstream> {
    if node.kind() == "a text" {
        return path(reader, node).map(DnsUpstream::ResolvConf);
    }
    let items = reader.list(node, "name servers, or the path of a resolv.conf")?;
    if items.is_empty() {
        reader.expected(node, "at least one name server");
        return None;
    }
    let servers = items.iter().map(|item| {
        reader.parsed(item, "an address of a name server", |text| {
            text.parse::<IpAddr>()
                .map(|address| SocketAddr::new(address, 53))
                .or_else(|_not_alone| text.parse::<SocketAddr>())
        })
    });
    servers.collect::<Option<_>>().map(DnsUpstream::Servers)
}

pub(super) fn list<T>(
    reader: &mut Reader,
    fields: Fields<'_>,
    key: &str,
    expected: &str,
    mut item: impl FnMut(&mut Reader, &Node) -> Option<T>,
) -> Option<Vec<T>> {
    let items = reader.list(fields.get(key)?, expected)?;
    items.iter().map(|node| item(reader, node)).collect()
}

fn client_certificate(reader: &mut Reader, node: &Node) -> Option<ClientCertificate> {
    let fields = reader.fields(node, &CLIENT_CERTIFICATE)?;
    let what = "a client certificate";
    let host = reader.required(fields, "host", what);
    let host = host
        .and_then(|node| reader.text(node, "a host name"))
        .map(str::to_owned);
    let cert = reader
        .required(fields, "cert", what)
        .and_then(|node| path(reader, node));
    let key = reader
        .required(fields, "key", what)
        .and_then(|node| path(reader, node));
    Some(ClientCertificate {
        host: host?,
        cert: cert?,
        key: key?,
    })
}

fn client_authorities(reader: &mut Reader, fields: Fields<'_>) -> Option<Vec<ClientAuthority>> {
    let key = "client_authorities";
    let authorities = list(reader, fields, key, "authorities", client_authority)?;
    let node = fields.get(key)?;
    for (place, one) in authorities.iter().enumerate() {
        let mut before = authorities.iter().take(place);
        if before.any(|other| other.name == one.name) {
            let shown = one.name.escape_debug();
            reader.fault(
                node.span,
                format!("client authority `{shown}` stands here twice"),
            );
        }
    }
    Some(authorities)
}

fn client_authority(reader: &mut Reader, node: &Node) -> Option<ClientAuthority> {
    let fields = reader.fields(node, &CLIENT_AUTHORITY)?;
    let name = reader
        .required(fields, "name", CLIENT_AUTHORITY.what)
        .and_then(|node| reader.text(node, "the name by which policy knows the authority"))
        .map(str::to_owned);
    let roots = reader
        .required(fields, "roots", CLIENT_AUTHORITY.what)
        .and_then(|node| path(reader, node));
    Some(ClientAuthority {
        name: name?,
        roots: roots?,
    })
}

fn upstream_proxy(reader: &mut Reader, fields: Fields<'_>) -> Option<UpstreamProxy> {
    let url = reader
        .required(fields, "url", "`upstream_proxy`")
        .and_then(|node| {
            reader.parsed(node, "`http://HOST:PORT`", |text| {
                let authority = text
                    .strip_prefix("http://")
                    .ok_or("another scheme is not spoken")?;
                let authority = authority.strip_suffix('/').unwrap_or(authority);
                if authority.contains(['/', '@', '?', '#']) {
                    return Err("user, path and query do not belong here");
                }
                let port = authority
                    .rsplit_once(':')
                    .map(|(_host, port)| port.parse::<u16>());
                match port {
                    Some(Ok(1..)) => Ok(format!("http://{authority}")),
                    _ => Err("the port is missing"),
                }
            })
        });
    let username = fields
        .get("username")
        .and_then(|node| reader.text(node, "a user name"));
    let password_file = fields
        .get("password_file")
        .and_then(|node| path(reader, node));
    if username.is_none()
        && let Some(node) = fields.get("password_file")
    {
        reader.fault(node.span, "`password_file` without `username`");
    }
    Some(UpstreamProxy {
        url: url?,
        username: username.map(str::to_owned),
        password_file,
    })
}

/// A text such as `20ms`, `10s`, `5m`, `1h`; `range` in milliseconds.
pub(super) fn duration(
    reader: &mut Reader,
    fields: Fields<'_>,
    key: &str,
    range: RangeInclusive<u64>,
) -> Option<Duration> {
    let node = fields.get(key)?;
    reader.parsed(
        node,
        "a duration such as `20ms`, `10s`, `5m` or `1h`",
        |text| {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = text
                .split_at_checked(digits)
                .ok_or_else(|| "no number".to_owned())?;
            let unit = match unit {
                "ms" => 1,
                "s" => SECOND,
                "m" => MINUTE,
                "h" => 60 * MINUTE,
                _ => return Err("its unit is none of `ms`, `s`, `m`, `h`".to_owned()),
            };
            let millis = number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(unit));
            millis
                .filter(|millis| range.contains(millis))
                .map(Duration::from_millis)
                .ok_or_else(|| {
                    format!(
                        "it must be between {} ms and {} ms",
                        range.start(),
                        range.end()
                    )
                })
        },
    )
}
