//! The configuration's reference page, made from one table so that it cannot go stale.

use std::fmt::Write as _;

/// One setting: its place in the file, its default, what it means.
type Setting = (&'static str, &'static str, &'static str);

const SETTINGS: &[Setting] = &[
    ("version", "required", "`1`, the version of this format"),
    (
        "policy",
        "`/etc/exeat/policy.d`",
        "the policy: a file, or a directory whose `*.yaml` are merged in name order; `--policy` overrides it",
    ),
    (
        "state_dir",
        "`/var/lib/exeat`",
        "the CA, audit segments, and everything else that outlives a reboot",
    ),
    ("run_dir", "`/run/exeat`", "sockets and trust bundles"),
    (
        "bpffs",
        "`/sys/fs/bpf/exeat`",
        "where programs and maps are pinned, in a bpf file system",
    ),
    (
        "cgroup",
        "`exeat`",
        "Exeat's own cgroup, directly under the cgroup2 mount",
    ),
    (
        "gate.user",
        "`exeat`",
        "account of the unprivileged process: a name or a uid, never root",
    ),
    (
        "docker.data_root",
        "`data-root` of `/etc/docker/daemon.json`, else `/var/lib/docker`",
        "where Docker keeps containers, for `match: { container: … }`; to be said where Docker's command line says it",
    ),
    (
        "listeners.proxy_port",
        "`0`",
        "TCP port of the proxy on 127.0.0.1 and ::1; 0: one that is free",
    ),
    (
        "listeners.dns_port",
        "`0`",
        "UDP port of the resolver on 127.0.0.1 and ::1; 0: one that is free",
    ),
    (
        "dns.upstream",
        "`/etc/resolv.conf`",
        "who answers what policy lets through: the path of a resolv.conf, or a list of `ADDRESS` or `ADDRESS:PORT`",
    ),
    (
        "tls.extra_roots",
        "`[]`",
        "PEM files with roots that are trusted besides the system's",
    ),
    (
        "tls.client_certificates",
        "`[]`",
        "`{host, cert, key}`: certificates for hosts that ask for one; PEM files that the supervisor alone reads",
    ),
    (
        "tls.client_authorities",
        "`[]`",
        "`{name, roots}`: authorities by whose client certificates policy knows callers (`certificate` in `identities`), each name once; PEM files, read at each SIGHUP as well; see below",
    ),
    (
        "issuers",
        "`[]`",
        "whose tokens are verified: a list of what follows; see below",
    ),
    (
        "issuers[].issuer",
        "required",
        "as `iss` names it, exactly; each issuer once",
    ),
    (
        "issuers[].audience",
        "required",
        "the `aud` that a token must name: a text, or a list of which one must be named",
    ),
    (
        "issuers[].jwks",
        "discovered",
        "where the issuer's JSON Web Key Set is, of at most 512 KiB (of keys that its tokens' `kid` does not tell apart, the first 8 are tried): `{file: PATH}`, read when the daemon starts, or `{url: URL}`; without it the issuer is a URL that says so itself",
    ),
    (
        "issuers[].private",
        "`false`",
        "whether the hosts that keys are fetched from may have private addresses",
    ),
    (
        "issuers[].refresh",
        "`5m`",
        "how often keys are fetched; a key that the issuer removed is refused from then on; `1s` to `24h`",
    ),
    (
        "issuers[].max_age",
        "`1h`, or `refresh` if that is longer",
        "how long keys count that cannot be fetched anew",
    ),
    (
        "issuers[].algorithms",
        "all",
        "of `RS256`, `PS256`, `ES256`, `EdDSA`; a key is for what its `alg` says, and an RSA key without `alg` for `RS256`, or for `PS256` where that alone is listed",
    ),
    (
        "issuers[].leeway",
        "`30s`",
        "by how much clocks may differ at `exp` and `nbf`; whole seconds count, at most `5m`",
    ),
    (
        "approvals",
        "none",
        "how calls that wait for a person reach one; without it `exeat approvals` alone tells of them; see below",
    ),
    (
        "approvals.listen",
        "none",
        "`127.0.0.1:PORT` or `[::1]:PORT`, where the gate answers the links of messages",
    ),
    (
        "approvals.console_url",
        "required",
        "what links begin with: `https://HOST` or `https://HOST:PORT` of a proxy that forwards to `listen`, or `http://127.0.0.1:PORT`",
    ),
    (
        "approvals.secret_file",
        "required",
        "file with the key that signs links: 64 hexadecimal digits on its first line (`openssl rand -hex 32`); read by the supervisor alone, and refused if others can read it",
    ),
    (
        "approvals.webhooks",
        "required",
        "where messages go: a list of one to 32 of what follows",
    ),
    (
        "approvals.webhooks[].approver",
        "required",
        "the Unix user as who the links of these messages decide; not root",
    ),
    (
        "approvals.webhooks[].url",
        "or `url_file`",
        "an `https` URL that takes messages in Slack's form",
    ),
    (
        "approvals.webhooks[].url_file",
        "or `url`",
        "file with that URL on its first line, for one that is a secret itself, as Slack's is; read by the supervisor alone, and refused if others can read it",
    ),
    (
        "approvals.webhooks[].private",
        "`false`",
        "whether that host may have private addresses",
    ),
    (
        "upstream_proxy.url",
        "none",
        "`http://HOST:PORT` of a proxy that every upstream connection passes by CONNECT",
    ),
    (
        "upstream_proxy.username",
        "none",
        "for Basic authentication",
    ),
    (
        "upstream_proxy.password_file",
        "none",
        "file with the password on its first line, read by the supervisor alone",
    ),
    (
        "audit.sync",
        "`20ms`",
        "longest time between a record and its way to the disk; `0ms` syncs each, and each intent before its effect; at most `10s`",
    ),
    (
        "audit.segment_bytes",
        "`67108864`",
        "size at which a segment is closed; 64 KiB to 16 GiB",
    ),
    (
        "limits.body_bytes",
        "`4194304`",
        "largest body, decoded, that is held for inspection",
    ),
    (
        "limits.held_bytes",
        "`134217728`",
        "what is held in memory of one workload's bodies at a time, and of what they were decoded to; of all workloads' \
         together eight times as much; beyond it, what would be held is refused (`held_bytes`); at least `limits.body_bytes`",
    ),
    ("limits.header_bytes", "`65536`", "largest header section"),
    (
        "limits.header_deadline",
        "`10s`",
        "time for a TLS hello or a request's head to arrive",
    ),
    (
        "limits.connect_deadline",
        "`10s`",
        "time for an upstream connection, look-up and handshake included",
    ),
    (
        "limits.idle_deadline",
        "`10m`",
        "time without a byte after which a connection is closed",
    ),
    (
        "limits.answer_deadline",
        "`10m`",
        "time for an upstream to begin its answer",
    ),
    (
        "limits.fetch_deadline",
        "`5m`",
        "time in which a server with `launch.fetch` reaches those hosts, if it writes no message before; 1 s to 1 h",
    ),
    (
        "limits.connections_per_workload",
        "`256`",
        "connections that one workload may hold",
    ),
    (
        "shutdown",
        "`10s`",
        "time for live exchanges to end after SIGTERM",
    ),
];

/// The page `agent/docs/config.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# exeat.yaml\n\n\
         The daemon reads `/etc/exeat/exeat.yaml`, or what `--config` names. Without the file in its\n\
         default place every setting has its default. Unknown keys are errors; durations are written\n\
         `20ms`, `10s`, `5m`, `1h`. This page is made from the code.\n\n\
         | setting | default | meaning |\n|---|---|---|\n",
    );
    for (name, default, meaning) in SETTINGS {
        // Writing to a string cannot fail.
        writeln!(page, "| `{name}` | {default} | {meaning} |").unwrap_or_default();
    }
    page.push_str(TOKENS);
    page.push_str(CERTIFICATES);
    page.push_str(APPROVALS);
    page
}

/// What `approvals` comes to.
const APPROVALS: &str = "
## Approvals

A call that begins to wait for an approval is told to every webhook whose approver may decide on it: it is one of the `approvers` of every rule that asks, and no part of the call. The message
is a JSON object with `text` and `blocks` as Slack's incoming webhooks take it. It names caller, server, tool, arguments as records hold them, rule, reason and time limit, and has two links,
`CONSOLE_URL/approvals/TOKEN`. A token says approval, verdict, approver and expiry, signed by HMAC-SHA256; whoever has it decides as that approver, once, while the call waits. So
a webhook belongs to a channel that its approver alone reads, or to people who may all act as one.

Opened, a link shows the call and changes nothing, since scanners and previews open links as well; the button on that page decides (as does `exeat approvals decide --token LINK`, but not of a user who has a part in the call), which is recorded (`verified_by: link`) before it counts. Whoever denies
may say why in a field, which the caller is told. `listen` speaks
HTTP in clear text and on loopback; TLS is its proxy's. Whatever the policy says, no workload is connected to `listen`, or to host and port of `console_url`.

The gate posts over HTTPS, verified by the roots of `tls`, through `upstream_proxy` where there is one: to each webhook one message after the other, at most one in a second, each attempt within
`limits.connect_deadline`, three attempts at most (one while the webhook fails), while the call waits. No redirect is followed. Each request has a record, caused by the call's. What is not delivered is said by `exeat status`, `exeat doctor`
and a finding, `webhook_failed`, and its call goes on waiting for `exeat approvals`. After the gate was started anew, a call that waits again is told again, with the same links.
";

/// What `tls.client_authorities` comes to.
const CERTIFICATES: &str = "
## Client certificates

Where an identity of the policy has a `certificate`, the gate asks clients for one in TLS 1.2 and 1.3, as they connect to a registered server whose TLS it reads.
Showing none is nobody's fault: the caller is who it is without. One that is shown is verified at each request to the server: its chain of at most eight
certificates up to one of `tls.client_authorities`, the time of each, that it may be a client's (`extendedKeyUsage`), what authorities may name (constraints on URIs and on directory names are not understood, so that what
falls under one is refused), and that its names are plain text; a SPIFFE ID stands beside no other URI. What is wrong with it is answered by 403, `invalid_certificate`, and recorded, whatever its bearer may without
it. It says nothing to anyone else: the gate speaks for itself to the server (`tls.client_certificates`), which gets neither the certificate nor word of it.

No TLS session is resumed where certificates are asked for, so that the key is proved on each connection. Files of authorities are read at the start, at SIGHUP and when the policy changes; what changed counts from the
next request on, on connections that are open as well. A file that cannot be used leaves the last good ones in force (`client_authorities_refused`). When policy begins to ask for certificates, connections of clients
that were not asked are closed. Revocation lists are not read: a certificate counts until it expires or its authority is taken out.
";

/// What `issuers` comes to.
const TOKENS: &str = "
## Tokens

A request to a registered MCP server may carry `Authorization: Bearer` with a JSON Web Token. What has three parts,
of which the first or the second holds an object of JSON, however it is written, is one. It is Exeat's to verify if its
`iss` is one of `issuers`, or one that an identity of the policy names; it is verified on every request then, and a token
that fails is a refusal, never anonymity: 401 with `WWW-Authenticate`. So is one under another scheme than `Bearer`, under none, or beside
something else in the header (`Bearer x.y TOKEN`), which some servers pass over; and one that has no single reading (base64 that
is not exact, unreadable JSON, a member that stands there twice, a part too many, two `Authorization` headers, more than
16 KiB), as long as there is an issuer in the configuration or in the policy. Every other bearer value is the server's
own, and opaque to Exeat. But a token of an issuer that nobody names, or of none, is refused (401) where the policy keeps `Authorization` from
the server, since it cannot be the server's own. Opaque is also a token in five parts, which only its receiver can decrypt.

A token needs `exp`, `aud`, `iss` and `sub`; `nbf` counts where it stands. `crit` is refused, `typ` is `JWT` or
`at+jwt` if it stands there. `kid` only looks up a key, and keys that a token brings or points to are not used.

Keys that are not in a file are fetched by the gate over HTTPS, verified by the roots of `tls`, through `upstream_proxy` where there is one: when
it starts, every `refresh`, and when a token names a key that is not known, at most once in ten seconds (or `refresh`, if that is shorter),
whoever asks. Without `jwks`, the issuer's `/.well-known/openid-configuration` says where they are, or where that answers 4xx its
`/.well-known/oauth-authorization-server` (RFC 8414); `issuer` in it must be the configured one, exactly. No redirect is followed, only hosts by
name are asked, and each round ends within `limits.connect_deadline`; that long a request waits for it, at most. Each such request of the gate has a
record. Keys that cannot be fetched count until `max_age`; from then on tokens of the issuer are answered 503 (`issuer_unavailable`).
`exeat status` and `exeat doctor` say why, and so does a finding, `issuer_unavailable`.

A verified token adds its identities to those of the process's user and workload, for this request alone. The header goes
on to the server unless the policy says `authorization: strip` of it, or names a credential that goes in its place. Records name issuer, subject and identity, and
the claims that the policy reads ([which](audit-format.md#tokens-and-certificates)); nothing else of a token is in a record or in a log.
";
