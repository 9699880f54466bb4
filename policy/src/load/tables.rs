//! The words of the policy language: keys and values, and those that are documented for later versions.

use crate::model::{
    Authorization, Class, Data, Effect, Mode, NameKind, Per, Tls, Type, Unregistered,
};
use crate::yaml::Keys;

pub(crate) const FILE: Keys = Keys {
    what: "a policy file",
    known: &[
        "version",
        "servers",
        "hosts",
        "identities",
        "roles",
        "credentials",
        "rules",
        "limits",
        "breaker",
        "mask",
        "responses",
        "mode",
        "strict_review",
    ],
    later: &["detect", "manifest", "sequences", "anomaly", "exceptions"],
};
pub(crate) const SERVER: Keys = Keys {
    what: "a server",
    known: &[
        "purpose",
        "owner",
        "data",
        "review_by",
        "launch",
        "url",
        "listen",
        "match",
        "egress",
        "tools",
        "authorization",
        "responses",
        "mode",
    ],
    later: &["labels", "detect"],
};
pub(crate) const LAUNCH: Keys = Keys {
    what: "`launch`",
    known: &[
        "command",
        "args",
        "extra_args",
        "user",
        "directory",
        "env",
        "fetch",
    ],
    later: &[],
};
pub(crate) const REPLACED: Keys = Keys {
    what: "`authorization`",
    known: &["credential"],
    later: &[],
};
pub(crate) const ENV: Keys = Keys {
    what: "a variable's value",
    known: &["secret"],
    later: &[],
};
pub(crate) const MATCH: Keys = Keys {
    what: "`match`",
    known: &[
        "unit",
        "cgroup",
        "container",
        "exe",
        "args",
        "sha256",
        "user",
    ],
    later: &[],
};
pub(crate) const CONTAINER: Keys = Keys {
    what: "`container`",
    known: &["label"],
    later: &[],
};
pub(crate) const TOOL: Keys = Keys {
    what: "a tool",
    known: &["class", "dry_run", "credential"],
    later: &["labels"],
};
pub(crate) const DRY_RUN: Keys = Keys {
    what: "`dry_run`",
    known: &["argument", "value"],
    later: &[],
};
pub(crate) const EGRESS: Keys = Keys {
    what: "an egress entry",
    known: &[
        "host",
        "cidr",
        "ports",
        "methods",
        "paths",
        "tls",
        "private",
        "protocol",
        "kind",
        "upgrade",
        "addresses",
        "credential",
    ],
    later: &[],
};
pub(crate) const HOST: Keys = Keys {
    what: "a host",
    known: &["match", "servers", "egress", "unregistered"],
    later: &[],
};
pub(crate) const IDENTITY: Keys = Keys {
    what: "an identity",
    known: &["user", "jwt", "certificate", "person"],
    later: &[],
};
pub(crate) const JWT: Keys = Keys {
    what: "what a token must show",
    known: &["issuer", "claims"],
    later: &[],
};
pub(crate) const CERTIFICATE: Keys = Keys {
    what: "what a client certificate must show",
    known: &["authority", "uri", "dns", "email", "common_name"],
    later: &[],
};
/// The keys of [`CERTIFICATE`] that are about names.
pub(crate) const NAMES: [(&str, NameKind); 4] = [
    ("uri", NameKind::Uri),
    ("dns", NameKind::Dns),
    ("email", NameKind::Email),
    ("common_name", NameKind::CommonName),
];
pub(crate) const RULE: Keys = Keys {
    what: "a rule",
    known: &[
        "id",
        "who",
        "servers",
        "methods",
        "tools",
        "args",
        "when",
        "effect",
        "approvers",
        "timeout",
        "mode",
        "reason",
        "expires",
    ],
    later: &[],
};
pub(crate) const ARGUMENT: Keys = Keys {
    what: "a test",
    known: &[
        "field", "any", "keys", "matches", "glob", "min", "max", "above", "below", "in", "length",
        "type", "absent",
    ],
    later: &[],
};
pub(crate) const LENGTH: Keys = Keys {
    what: "`length`",
    known: &["min", "max"],
    later: &[],
};
pub(crate) const CREDENTIAL: Keys = Keys {
    what: "a credential",
    known: &[
        "file",
        "systemd",
        "command",
        "header",
        "prefix",
        "query",
        "basic",
        "aws_sigv4",
        "hosts",
        "refresh",
    ],
    later: &[],
};
pub(crate) const AWS_SIGV4: Keys = Keys {
    what: "`aws_sigv4`",
    known: &["region", "service"],
    later: &[],
};
pub(crate) const ROLE: Keys = Keys {
    what: "a role",
    known: &["members", "grants"],
    later: &[],
};
pub(crate) const GRANT: Keys = Keys {
    what: "a grant",
    known: &["servers", "tools", "classes"],
    later: &[],
};
pub(crate) const SELECTOR: Keys = Keys {
    what: "`tools`",
    known: &["class"],
    later: &[],
};
pub(crate) const LIMIT: Keys = Keys {
    what: "a limit",
    known: &[
        "per", "servers", "methods", "tools", "calls", "rate", "sum", "max", "window", "refund",
    ],
    later: &[],
};

pub(crate) const BREAKER: Keys = Keys {
    what: "`breaker`",
    known: &["error_rate", "window", "min_calls", "open_for"],
    later: &[],
};

pub(crate) const MASK: Keys = Keys {
    what: "an entry of `mask`",
    known: &["servers", "args", "results"],
    later: &[],
};
pub(crate) const RESPONSES: Keys = Keys {
    what: "`responses`",
    known: &["max_bytes", "content", "structured"],
    later: &[],
};

pub(crate) const STRUCTURED: [(&str, bool); 1] = [("required", true)];
pub(crate) const MODES: [(&str, Mode); 2] =
    [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
pub(crate) const AUTHORIZATION: [(&str, Authorization); 2] = [
    ("forward", Authorization::Forward),
    ("strip", Authorization::Strip),
];
pub(crate) const EFFECTS: [(&str, Effect); 4] = [
    ("allow", Effect::Allow),
    ("deny", Effect::Deny),
    ("approve", Effect::Approve),
    ("dry_run", Effect::DryRun),
];
pub(crate) const TYPES: [(&str, Type); 7] = [
    ("string", Type::String),
    ("number", Type::Number),
    ("integer", Type::Integer),
    ("boolean", Type::Boolean),
    ("null", Type::Null),
    ("array", Type::Array),
    ("object", Type::Object),
];
pub(crate) const CLASSES: [(&str, Class); 4] = [
    ("read", Class::Read),
    ("write", Class::Write),
    ("destructive", Class::Destructive),
    ("external", Class::External),
];
pub(crate) const DATA: [(&str, Data); 4] = [
    ("public", Data::Public),
    ("internal", Data::Internal),
    ("confidential", Data::Confidential),
    ("regulated", Data::Regulated),
];
pub(crate) const UNREGISTERED: [(&str, Unregistered); 3] = [
    ("allow", Unregistered::Allow),
    ("isolate", Unregistered::Isolate),
    ("stop", Unregistered::Stop),
];
pub(crate) const PER: [(&str, Per); 4] = [
    ("session", Per::Session),
    ("tool", Per::Tool),
    ("identity", Per::Identity),
    ("server", Per::Server),
];
pub(crate) const TLS: [(&str, Tls); 3] = [
    ("intercept", Tls::Intercept),
    ("passthrough", Tls::Passthrough),
    ("off", Tls::Off),
];
