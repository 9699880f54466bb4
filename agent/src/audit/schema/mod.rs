//! The published schema of a line (JSON Schema, draft 2020-12).

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::chain::VERSION;

/// What a member holds.
#[derive(Clone, Copy)]
enum Holds {
    Text,
    Texts,
    Count,
    /// A count, or a sum that may have digits behind the point.
    Number,
    /// A count for each of names that are not known beforehand.
    Counts,
    Signed,
    Flag,
    Address,
    Time,
    Id,
    Hash,
    Any,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An object with these members.
    Section(&'static [Member]),
    /// Objects with these members.
    Sections(&'static [Member]),
    /// Either the id or the candidates.
    Cause,
}

/// Name, content, meaning; a name that ends in `!` is always there.
type Member = (&'static str, Holds, &'static str);

use Holds::{
    Address, Any, Cause, Count, Counts, Flag, Hash, Id, Number, Section, Sections, Signed, Text,
    Texts, Time, Word,
};

const LINE: &[Member] = &[
    ("v!", Count, "version of this schema"),
    ("seq!", Count, "number of the record; without gaps from 1"),
    (
        "prev!",
        Hash,
        "hash of the record before; zeros in the first",
    ),
    (
        "carried",
        Count,
        "of a line with `open` that repeats an older one at the beginning of a segment: how many more follow",
    ),
    (
        "id!",
        Id,
        "unique, ordered by time (UUID version 7); all lines of an exchange have the same",
    ),
    (
        "open",
        Section(OPEN),
        "the exchange is under way: there is no `outcome` yet, and a line without `open` follows when it ends",
    ),
    ("time!", Time, "when the exchange or event began, UTC"),
    (
        "mono!",
        Count,
        "the same in nanoseconds of the monotonic clock",
    ),
    ("kind!", Word(KINDS), "what is recorded"),
    (
        "generation!",
        Count,
        "generation of the policy that was in force at `time`, in that run of the daemon; 0 where it is not known",
    ),
    ("workload", Section(WORKLOAD), "the processes that acted"),
    ("identity", Section(IDENTITY), "who called"),
    ("session", Section(SESSION), "the MCP session"),
    (
        "mcp",
        Section(MCP),
        "the JSON-RPC message and what answered it",
    ),
    ("http", Section(HTTP), "the HTTP request and its response"),
    (
        "tcp",
        Section(TCP),
        "the transport connection, or the attempt at one",
    ),
    ("dns", Section(DNS), "the DNS query and its answer"),
    ("exec", Section(EXEC), "the program that was executed"),
    ("decision", Section(DECISION), "what was decided"),
    (
        "approval",
        Section(APPROVAL),
        "what a person was asked, and decided; of `kind` `approval`, the decision itself, caused by the call",
    ),
    (
        "inspected",
        Section(INSPECTED),
        "how much of the exchange was looked into",
    ),
    (
        "cause",
        Cause,
        "the record that led to this one: `id`, or `candidates` that were in flight together",
    ),
    ("policy", Section(POLICY), "a change of policy"),
    (
        "finding",
        Section(FINDING),
        "something an operator should look at",
    ),
    (
        "lifecycle",
        Section(LIFECYCLE),
        "a step in the life of the daemon, the log or a workload",
    ),
    ("outcome", Section(OUTCOME), "how it ended"),
    ("hash!", Hash, "SHA-256 of the line without this member"),
];

const KINDS: &[&str] = &[
    "mcp",
    "http",
    "tcp",
    "dns",
    "exec",
    "approval",
    "policy",
    "finding",
    "lifecycle",
];

const WORKLOAD: &[Member] = &[
    ("name!", Text, "the server's or host's name in the policy"),
    (
        "kind!",
        Word(&["server", "host", "unregistered", "unmanaged", "unknown"]),
        "what it is in the policy",
    ),
    ("cgroup", Count, "the kernel's number of the cgroup"),
    ("pid", Count, "the process"),
    (
        "start",
        Count,
        "when the process started, on the monotonic clock",
    ),
    ("exe", Text, "its executable's path"),
    ("args", Texts, "its arguments, masked"),
    ("uid", Count, "its user"),
    ("sha256", Text, "SHA-256 of its executable"),
];

const IDENTITY: &[Member] = &[
    ("name!", Text, "the name in the policy; empty if none fits"),
    (
        "verified_by!",
        Text,
        "how it was verified: `kernel`, `jwt`, `certificate`, `workload`; of a decision by the link of a message, `link`",
    ),
    ("user", Text, "the Unix user's name"),
    ("uid", Count, "the Unix user's number"),
    (
        "issuer",
        Text,
        "who issued the token; without one, the authority of the certificate",
    ),
    (
        "subject",
        Text,
        "whom the token names; without one, the certificate",
    ),
    (
        "claims",
        Any,
        "of the token's claims those that the policy reads, masked",
    ),
    (
        "claims_read",
        Texts,
        "what the policy reads of tokens of the issuer, as JSON pointers: what is not in `claims` of it, the token does not claim",
    ),
    (
        "certificate",
        Section(CERTIFICATE),
        "the client certificate of the connection, once it is verified",
    ),
    (
        "identities",
        Texts,
        "all identities that token and certificate show, `name` among them",
    ),
    ("roles", Texts, "the roles that the policy gives"),
];

const CERTIFICATE: &[Member] = &[
    (
        "authority!",
        Text,
        "who vouches for it, as the configuration calls it",
    ),
    (
        "subject!",
        Text,
        "its first URI, else address of mail, else host's name, else `CN=` and its common name",
    ),
    ("sha256!", Text, "SHA-256 of it"),
];

const SESSION: &[Member] = &[
    (
        "id!",
        Text,
        "Exeat's name for the session, never its secret id",
    ),
    ("client", Text, "the client's name, as it says"),
    ("client_version", Text, "the client's version, as it says"),
    ("revision", Text, "the protocol's revision"),
    (
        "host",
        Section(HOST_PROCESS),
        "the process that called `exeat run`",
    ),
    (
        "host_unknown",
        Text,
        "why that, or its executable's SHA-256, is not known",
    ),
];

const HOST_PROCESS: &[Member] = &[
    ("pid!", Count, "its number"),
    (
        "started!",
        Count,
        "when it started, in clock ticks after boot",
    ),
    ("exe!", Text, "its executable"),
    ("sha256", Text, "SHA-256 of its executable"),
    (
        "ancestors",
        Texts,
        "number and executable of those that it comes from, nearest first; in `session_started`",
    ),
];

const MCP: &[Member] = &[
    ("server", Text, "the MCP server's name in the policy"),
    (
        "method!",
        Text,
        "the method; empty if the message could not be read, or there is none as for a stream that was asked for",
    ),
    (
        "from",
        Word(&["client", "server"]),
        "who sent it; the client if absent",
    ),
    ("name", Text, "the tool, prompt or resource"),
    ("class", Text, "the tool's capability class"),
    ("arguments", Any, "the arguments, masked"),
    (
        "arguments_cut",
        Flag,
        "only names and sizes are recorded, since they are large",
    ),
    ("id", Text, "the request's id, as text"),
    (
        "task_of",
        Id,
        "the record of the call whose work is the task that this is about; none where the server gave several calls one id",
    ),
    (
        "response",
        Word(&["result", "error", "none", "stream", "http"]),
        "what answered",
    ),
    ("code", Signed, "the JSON-RPC error's code"),
    ("isError", Flag, "the tool's own statement that it failed"),
    ("dry_run", Section(DRY_RUN), "how the call was run dry"),
    (
        "notifications",
        Counts,
        "how many notifications of the server passed on the stream of this exchange, by method",
    ),
    (
        "count",
        Count,
        "over standard streams, of a notification that passed: how many of its method from that side passed in the session, with it",
    ),
];

const DRY_RUN: &[Member] = &[
    (
        "sent!",
        Flag,
        "whether it was sent, with the argument set; else it was answered in the server's place",
    ),
    ("argument", Text, "the argument that was set, as a pointer"),
];

const HTTP: &[Member] = &[
    ("name", Text, "the name that policy judged"),
    ("address", Address, "the address that was dialled"),
    ("port", Count, "the port"),
    ("sni", Text, "the name in the TLS handshake"),
    ("version", Text, "the version of HTTP"),
    ("method", Text, "the method"),
    ("path", Text, "path and query, masked"),
    (
        "credential",
        Text,
        "the name of the credential that was put into the request",
    ),
    ("status", Count, "the status that the caller got"),
    (
        "request_bytes",
        Count,
        "bytes of the request's body that were sent on",
    ),
    (
        "response_bytes",
        Count,
        "bytes of the response's body that were sent back",
    ),
];

const TCP: &[Member] = &[
    ("protocol!", Text, "`tcp`, `udp`, or what else was tried"),
    ("name", Text, "the name that the address stands for"),
    ("sni", Text, "the name in the TLS handshake"),
    ("address", Address, "the address that the process dialled"),
    ("port", Count, "the port"),
    ("sent_bytes", Count, "bytes from the process"),
    ("received_bytes", Count, "bytes to the process"),
];

const DNS: &[Member] = &[
    ("name!", Text, "the name asked for"),
    ("type!", Text, "the type asked for"),
    ("code", Text, "the response code"),
    ("answers", Texts, "what was answered"),
    ("upstream", Text, "the resolver that was asked, if one was"),
];

const EXEC: &[Member] = &[
    ("exe!", Text, "the executable's path"),
    ("args", Texts, "its arguments, masked"),
    ("pid!", Count, "the process"),
    ("ppid", Count, "its parent"),
    ("uid", Count, "its user"),
    ("sha256", Text, "SHA-256 of the executable"),
];

const EFFECTS: &[&str] = &["allow", "deny", "dry_run", "approve"];

const DECISION: &[Member] = &[
    ("effect!", Word(EFFECTS), "what was done"),
    ("rule", Text, "the rule that decided"),
    ("reason", Text, "why; never shown to the caller"),
    (
        "mode!",
        Word(&["enforce", "observe"]),
        "whether what was decided was done",
    ),
    (
        "would",
        Word(EFFECTS),
        "what would have been done, were every observing rule enforced",
    ),
    (
        "would_rule",
        Text,
        "the rule that would have decided so, where one would; shown to administrators alone, as is `would_reason`",
    ),
    ("would_reason", Text, "why; never shown to the caller"),
    (
        "policy",
        Text,
        "fingerprint of the policy that decided; absent where none did: the configuration asks for it, or what was seen on the way refuses it",
    ),
    (
        "generation",
        Count,
        "its generation in this run of the daemon; a newer one than the record's where the policy changed on the way",
    ),
    (
        "counters",
        Sections(COUNTER),
        "what the limits' counters stood at, of a message that limits are about; shown to administrators alone",
    ),
];

const APPROVAL: &[Member] = &[
    ("id!", Text, "its id, as the approver names it"),
    (
        "rules",
        Texts,
        "the rules that ask for it; who approves is an approver of each",
    ),
    (
        "decision",
        Word(&["approved", "denied"]),
        "what was decided; absent: nobody decided",
    ),
    ("approver", Text, "the Unix user who decided"),
    ("approver_uid", Count, "that user's number"),
    ("decided", Time, "when"),
    ("reason", Text, "why, in the approver's words"),
    (
        "arguments_sha256!",
        Hash,
        "SHA-256 of the arguments as they are sent",
    ),
];

const COUNTER: &[Member] = &[
    (
        "name!",
        Text,
        "which limit: what it says, and where it is written",
    ),
    (
        "value!",
        Number,
        "what it stood at, this exchange included where it counts: calls, or of a sum the sum",
    ),
    ("limit!", Number, "what it may reach"),
];

const INSPECTED: &[Member] = &[
    ("request!", Section(INSPECTION), "the request"),
    ("response!", Section(INSPECTION), "the response"),
];

const INSPECTION: &[Member] = &[
    ("extent!", Word(&["full", "partial", "none"]), "how much"),
    ("why", Text, "why not all of it"),
];

const POLICY: &[Member] = &[
    ("action!", Text, "`loaded`, `reloaded`, `refused`"),
    ("fingerprint", Text, "of the set that is in force after it"),
    ("generation", Count, "its generation"),
    ("faults", Texts, "what was wrong with a refused set"),
];

const FINDING: &[Member] = &[
    ("what!", Text, "a short name that stays"),
    ("detail", Text, "the particulars, for people"),
    (
        "count",
        Count,
        "how often, where one record stands for several",
    ),
];

const LIFECYCLE: &[Member] = &[
    (
        "event!",
        Text,
        "a short name that stays; of the log: `log_started`, `log_cut`, `log_stopped`; of stdio servers: `run` (somebody asked to start one), `run_failed` (it was permitted and could not be), `session_started`, `session_fetched`, `session_ended`, `session_lost`",
    ),
    ("detail", Text, "the particulars, for people"),
    (
        "extra_args",
        Texts,
        "what was to follow the server's arguments, masked, for `run`",
    ),
    (
        "cut",
        Section(CUT),
        "the end of a segment that does not count, for `log_cut`",
    ),
    (
        "counts",
        Sections(COUNTED),
        "how much of what there was, for `session_ended`",
    ),
    (
        "fetched",
        Sections(FETCHED),
        "what the server fetched before it spoke, for `session_fetched`",
    ),
];

const FETCHED: &[Member] = &[
    ("host!", Text, "the host"),
    ("path!", Text, "the path, without its query"),
    (
        "package",
        Text,
        "the registry and the package, `npm:express`, where they are known",
    ),
    (
        "version",
        Text,
        "the package's version; absent of what a registry says about it",
    ),
    ("bytes!", Count, "how many bytes of the body came by"),
    (
        "sha256",
        Text,
        "SHA-256 of the body as it was sent, hexadecimal; absent where not all of it came by, and of a token",
    ),
];

const COUNTED: &[Member] = &[
    (
        "what!",
        Text,
        "`requests`, `refused`, `violations`, or the method of a notification",
    ),
    (
        "from",
        Word(&["client", "server"]),
        "who sent it, of a notification",
    ),
    ("count!", Count, "how often"),
];

const CUT: &[Member] = &[
    ("segment!", Count, "the number of the segment"),
    ("offset!", Count, "how many of its bytes count"),
    ("bytes!", Count, "how many bytes followed them"),
    (
        "sha256!",
        Text,
        "SHA-256 of those; empty if the disk would not say what it kept",
    ),
];

const OPEN: &[Member] = &[(
    "stage!",
    Word(STAGES),
    "the stage at which its effect was about to be released",
)];

const OUTCOME: &[Member] = &[
    (
        "status!",
        Word(&["done", "refused", "failed", "abandoned"]),
        "whether it was done",
    ),
    (
        "stage",
        Word(STAGES),
        "the stage that it reached, where it was not done",
    ),
    ("error", Text, "what went wrong, masked"),
    (
        "latency_us!",
        Count,
        "microseconds from beginning to end; 0 where the gate ended first",
    ),
    (
        "upstream_us",
        Count,
        "microseconds of it spent waiting for the other side",
    ),
    ("bytes", Count, "bytes that left the machine"),
];

const STAGES: &[&str] = &[
    "intake", "identify", "tls", "decode", "decide", "forward", "refuse",
];

/// The schema of one line of the log. Readers must ignore members that they do not know; a member
/// that is described here keeps its meaning as long as `v` is the same.
pub fn schema() -> Value {
    let mut schema = section(LINE);
    if let Value::Object(members) = &mut schema {
        members.insert(
            "$schema".to_owned(),
            Value::from("https://json-schema.org/draft/2020-12/schema"),
        );
        members.insert(
            "title".to_owned(),
            Value::from("A record of Exeat's audit log"),
        );
        if let Some(version) = schema.pointer_mut("/properties/v") {
            *version = json!({"const": VERSION, "description": "version of this schema"});
        }
    }
    schema
}

fn section(members: &[Member]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, holds, meaning) in members {
        let bare = name.trim_end_matches('!');
        if bare.len() < name.len() {
            required.push(Value::from(bare));
        }
        let mut property = holds.schema();
        if let Value::Object(property) = &mut property {
            property.insert("description".to_owned(), Value::from(*meaning));
        }
        properties.insert(bare.to_owned(), property);
    }
    json!({"type": "object", "properties": properties, "required": required})
}

impl Holds {
    fn schema(self) -> Value {
        match self {
            Text => json!({"type": "string"}),
            Texts => json!({"type": "array", "items": {"type": "string"}}),
            Count => json!({"type": "integer", "minimum": 0}),
            Number => json!({"type": "number", "minimum": 0}),
            Counts => json!({
                "type": "object", "additionalProperties": {"type": "integer", "minimum": 0}
            }),
            Signed => json!({"type": "integer"}),
            Flag => json!({"type": "boolean"}),
            Address => json!({
                "type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]
            }),
            Time => json!({"type": "string", "format": "date-time"}),
            Id => json!({"type": "string", "format": "uuid"}),
            Hash => json!({"type": "string", "pattern": "^[0-9a-f]{64}$"}),
            Any => json!({}),
            Word(words) => json!({"enum": words}),
            Section(members) => section(members),
            Sections(members) => json!({"type": "array", "items": section(members)}),
            Cause => json!({
                "type": "object",
                "properties": {
                    "id": {"type": "string", "format": "uuid"},
                    "candidates": {
                        "type": "array", "items": {"type": "string", "format": "uuid"}
                    }
                },
                "minProperties": 1,
                "maxProperties": 1
            }),
        }
    }
}
