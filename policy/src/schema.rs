//! The policy language as a JSON Schema (2020-12), for editors.
//!
//! It says what stands where; names, patterns and what only shows over all files are checked by
//! [`compile`](crate::compile) alone. The words come from the same tables that the reader uses.

use serde_json::{Map, Value, json};

use crate::load::tables;
use crate::model::Content;
use crate::yaml::Keys;

/// The JSON Schema of a policy file.
#[must_use]
pub fn schema() -> Value {
    let named = |item: &str| json!({ "type": "object", "propertyNames": name(), "additionalProperties": item_ref(item) });
    let mut schema = object(
        &tables::FILE,
        &[
            ("version", json!({ "const": 1 })),
            ("servers", named("server")),
            ("hosts", named("host")),
            ("identities", named("identity")),
            ("roles", named("role")),
            ("credentials", named("credential")),
            ("rules", list(item_ref("rule"))),
            ("limits", list(item_ref("limit"))),
            ("breaker", breaker()),
            ("mask", list(item_ref("mask"))),
            ("responses", item_ref("responses")),
            ("mode", words(&tables::MODES)),
            ("strict_review", json!({ "type": "boolean" })),
        ],
        &["version"],
    );
    if let Value::Object(map) = &mut schema {
        map.insert(
            "$schema".into(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        map.insert("title".into(), json!("Exeat policy, version 1"));
        map.insert(
            "$defs".into(),
            json!({
                "server": server(),
                "host": host(),
                "identity": identity(),
                "match": matcher(),
                "egress": egress(),
                "role": role(),
                "credential": credential(),
                "rule": rule(),
                "argument": argument(),
                "limit": limit(),
                "selector": selector(),
                "responses": responses(),
                "mask": mask(),
            }),
        );
    }
    schema
}

fn server() -> Value {
    let launch = object(
        &tables::LAUNCH,
        &[
            ("command", text()),
            ("args", list(json!({ "type": "string" }))),
            ("extra_args", list(text())),
            ("user", text()),
            ("directory", text()),
            (
                "env",
                json!({ "type": "object", "additionalProperties": { "anyOf": [
                { "type": "string" },
                object(&tables::ENV, &[("secret", name())], &["secret"]),
            ] } }),
            ),
            ("fetch", list(text())),
        ],
        &["command"],
    );
    let mut server = object(
        &tables::SERVER,
        &[
            ("purpose", text()),
            ("owner", text()),
            ("data", words(&tables::DATA)),
            ("review_by", date()),
            ("launch", launch),
            (
                "url",
                json!({ "type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://" }),
            ),
            ("listen", text()),
            ("match", item_ref("match")),
            ("egress", list(item_ref("egress"))),
            (
                "tools",
                json!({ "type": "object", "additionalProperties": tool() }),
            ),
            ("authorization", authorization()),
            ("responses", item_ref("responses")),
            ("mode", words(&tables::MODES)),
        ],
        &[],
    );
    if let Value::Object(map) = &mut server {
        let one = |key: &str| json!({ "required": [key] });
        map.insert(
            "oneOf".into(),
            json!([one("launch"), one("url"), one("listen")]),
        );
    }
    server
}

fn authorization() -> Value {
    let replaced = object(
        &tables::REPLACED,
        &[("credential", name())],
        &["credential"],
    );
    json!({ "anyOf": [words(&tables::AUTHORIZATION), replaced] })
}

fn tool() -> Value {
    let class = words(&tables::CLASSES);
    let dry_run = object(
        &tables::DRY_RUN,
        &[
            ("argument", json!({ "type": "string", "pattern": "^/" })),
            (
                "value",
                json!({ "type": ["string", "number", "boolean", "null"] }),
            ),
        ],
        &["argument", "value"],
    );
    let keys = [
        ("class", class.clone()),
        ("dry_run", dry_run),
        ("credential", name()),
    ];
    json!({ "anyOf": [class, object(&tables::TOOL, &keys, &["class"])] })
}

fn host() -> Value {
    let fields = [
        ("match", item_ref("match")),
        ("servers", list(name())),
        ("egress", list(item_ref("egress"))),
        ("unregistered", words(&tables::UNREGISTERED)),
    ];
    object(&tables::HOST, &fields, &[])
}

fn identity() -> Value {
    let claims = json!({
        "type": "object",
        "additionalProperties": one_or_more(text()),
        "minProperties": 1,
    });
    let jwt = object(
        &tables::JWT,
        &[("issuer", text()), ("claims", claims)],
        &["issuer"],
    );
    let names = tables::NAMES.map(|(key, _)| (key, one_or_more(glob())));
    let mut shown = vec![("authority", text())];
    shown.extend(names);
    let certificate = object(&tables::CERTIFICATE, &shown, &["authority"]);
    let fields = [
        ("user", one_or_more(glob())),
        ("jwt", jwt),
        ("certificate", certificate),
        ("person", text()),
    ];
    let mut identity = object(&tables::IDENTITY, &fields, &[]);
    if let Value::Object(map) = &mut identity {
        let one = |key: &str| json!({ "required": [key] });
        map.insert(
            "oneOf".into(),
            json!([one("user"), one("jwt"), one("certificate")]),
        );
    }
    identity
}

fn matcher() -> Value {
    let label = json!({ "type": "string", "pattern": "^[^=]" });
    let container = object(
        &tables::CONTAINER,
        &[("label", one_or_more(label))],
        &["label"],
    );
    let fields = [
        (
            "unit",
            json!({ "type": "string", "pattern": "\\.(service|scope|slice)$" }),
        ),
        ("cgroup", json!({ "type": "string", "pattern": "^/" })),
        ("container", container),
        ("exe", json!({ "type": "string", "pattern": "^/" })),
        ("args", some(glob())),
        (
            "sha256",
            json!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" }),
        ),
        ("user", one_or_more(glob())),
    ];
    object(&tables::MATCH, &fields, &[])
}

fn egress() -> Value {
    let boolean = json!({ "type": "boolean" });
    let mut egress = object(
        &tables::EGRESS,
        &[
            ("host", text()),
            ("cidr", text()),
            (
                "ports",
                some(json!({ "type": "integer", "minimum": 1, "maximum": 65535 })),
            ),
            (
                "methods",
                some(json!({ "type": "string", "pattern": "^[A-Z]" })),
            ),
            ("paths", some(json!({ "type": "string", "pattern": "^/" }))),
            ("tls", words(&tables::TLS)),
            ("private", boolean.clone()),
            ("protocol", json!({ "enum": ["http", "tcp", "udp"] })),
            ("kind", json!({ "enum": ["model"] })),
            ("upgrade", boolean),
            ("addresses", json!({ "enum": ["synthetic"] })),
            ("credential", name()),
        ],
        &[],
    );
    if let Value::Object(map) = &mut egress {
        map.insert(
            "oneOf".into(),
            json!([{ "required": ["host"] }, { "required": ["cidr", "ports"] }]),
        );
    }
    egress
}

fn rule() -> Value {
    let fields = [
        ("id", name()),
        ("who", some(name())),
        ("servers", some(name())),
        ("methods", some(glob())),
        ("tools", item_ref("selector")),
        ("args", some(item_ref("argument"))),
        (
            "when",
            json!({ "type": "string", "minLength": 1, "maxLength": 4096 }),
        ),
        ("effect", words(&tables::EFFECTS)),
        ("approvers", some(name())),
        ("timeout", duration()),
        ("mode", words(&tables::MODES)),
        ("reason", text()),
        ("expires", date()),
    ];
    object(&tables::RULE, &fields, &["id", "effect"])
}

fn role() -> Value {
    let grant = object(
        &tables::GRANT,
        &[
            ("servers", some(name())),
            ("tools", some(glob())),
            ("classes", some(words(&tables::CLASSES))),
        ],
        &["servers"],
    );
    object(
        &tables::ROLE,
        &[("members", some(name())), ("grants", list(grant))],
        &["members"],
    )
}

fn credential() -> Value {
    let absolute = json!({ "type": "string", "pattern": "^/" });
    let scope = || json!({ "type": "string", "pattern": "^[a-z0-9-]{1,64}$" });
    let mut credential = object(
        &tables::CREDENTIAL,
        &[
            ("file", absolute),
            ("systemd", name()),
            ("command", some(json!({ "type": "string" }))),
            ("header", text()),
            ("prefix", text()),
            ("query", text()),
            ("basic", text()),
            (
                "aws_sigv4",
                object(
                    &tables::AWS_SIGV4,
                    &[("region", scope()), ("service", scope())],
                    &["region", "service"],
                ),
            ),
            ("hosts", some(text())),
            ("refresh", duration()),
        ],
        &[],
    );
    if let Value::Object(map) = &mut credential {
        let one = |key: &str| json!({ "required": [key] });
        map.insert(
            "oneOf".into(),
            json!([one("file"), one("systemd"), one("command")]),
        );
    }
    credential
}

fn argument() -> Value {
    let only_true = json!({ "const": true });
    let number = json!({ "type": "number" });
    let count = json!({ "type": "integer", "minimum": 0 });
    let length = object(
        &tables::LENGTH,
        &[("min", count.clone()), ("max", count.clone())],
        &[],
    );
    let mut argument = object(
        &tables::ARGUMENT,
        &[
            ("field", json!({ "type": "string", "pattern": "^/" })),
            ("any", only_true.clone()),
            ("keys", only_true),
            (
                "matches",
                json!({ "type": "string", "format": "regex", "minLength": 1, "maxLength": 4096 }),
            ),
            ("glob", glob()),
            ("min", number.clone()),
            ("max", number.clone()),
            ("above", number.clone()),
            ("below", number),
            (
                "in",
                some(json!({ "type": ["string", "number", "boolean", "null"] })),
            ),
            ("length", json!({ "anyOf": [count, length] })),
            ("type", words(&tables::TYPES)),
            ("absent", json!({ "type": "boolean" })),
        ],
        &[],
    );
    if let Value::Object(map) = &mut argument {
        map.insert(
            "oneOf".into(),
            json!([{ "required": ["field"] }, { "required": ["any"] }]),
        );
    }
    argument
}

fn limit() -> Value {
    let mut limit = object(
        &tables::LIMIT,
        &[
            ("per", some(words(&tables::PER))),
            ("servers", some(name())),
            ("methods", some(glob())),
            ("tools", item_ref("selector")),
            ("calls", json!({ "type": "integer", "minimum": 1 })),
            (
                "rate",
                json!({ "type": "string", "pattern": "^[1-9][0-9]*/" }),
            ),
            ("sum", json!({ "type": "string", "pattern": "^/" })),
            ("max", json!({ "type": "number", "minimum": 0 })),
            ("window", duration()),
            ("refund", json!({ "type": "boolean" })),
        ],
        &["per"],
    );
    if let Value::Object(map) = &mut limit {
        map.insert(
            "oneOf".into(),
            json!([
                { "required": ["calls"] },
                { "required": ["rate"] },
                { "required": ["sum", "max", "window"] },
            ]),
        );
    }
    limit
}

fn breaker() -> Value {
    let fields = [
        (
            "error_rate",
            json!({ "type": "string", "pattern": "^([1-9][0-9]?|100)%$" }),
        ),
        ("window", duration()),
        ("min_calls", json!({ "type": "integer", "minimum": 1 })),
        ("open_for", duration()),
    ];
    object(&tables::BREAKER, &fields, &["error_rate"])
}

fn mask() -> Value {
    let pointer = json!({ "type": "string", "pattern": "^/" });
    let fields = [
        ("servers", some(name())),
        ("args", some(pointer.clone())),
        ("results", some(pointer)),
    ];
    let mut mask = object(&tables::MASK, &fields, &[]);
    if let Value::Object(map) = &mut mask {
        let one = |key: &str| json!({ "required": [key] });
        map.insert("anyOf".into(), json!([one("args"), one("results")]));
    }
    mask
}

fn responses() -> Value {
    let fields = [
        (
            "max_bytes",
            json!({ "type": "string", "pattern": "^[1-9][0-9]*(B|KiB|MiB|GiB)$" }),
        ),
        ("content", some(words(&Content::ALL))),
        ("structured", words(&tables::STRUCTURED)),
    ];
    let mut responses = object(&tables::RESPONSES, &fields, &[]);
    if let Value::Object(map) = &mut responses {
        map.insert("minProperties".into(), json!(1));
    }
    responses
}

fn selector() -> Value {
    let classes = one_or_more(words(&tables::CLASSES));
    json!({ "anyOf": [some(glob()), object(&tables::SELECTOR, &[("class", classes)], &["class"])] })
}

/// A mapping with these keys and no others.
fn object(keys: &Keys, fields: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    json!({
        "description": keys.what,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn words<T>(words: &[(&str, T)]) -> Value {
    json!({ "enum": words.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
}

fn list(item: Value) -> Value {
    json!({ "type": "array", "items": item })
}

fn some(item: Value) -> Value {
    json!({ "type": "array", "items": item, "minItems": 1 })
}

fn one_or_more(item: Value) -> Value {
    json!({ "anyOf": [item, some(item)] })
}

fn item_ref(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn name() -> Value {
    json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" })
}

fn glob() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 256 })
}

fn duration() -> Value {
    json!({ "type": "string", "pattern": "^[1-9][0-9]*(s|m|min|h|d)$" })
}

fn date() -> Value {
    json!({ "type": "string", "format": "date" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key that the reader knows stands in the schema, and no other.
    #[test]
    fn the_schema_has_the_readers_keys() {
        let schema = schema();
        let tables = [
            ("", tables::FILE),
            ("/$defs/server", tables::SERVER),
            ("/$defs/server/properties/launch", tables::LAUNCH),
            (
                "/$defs/server/properties/authorization/anyOf/1",
                tables::REPLACED,
            ),
            ("/$defs/host", tables::HOST),
            ("/$defs/identity", tables::IDENTITY),
            ("/$defs/identity/properties/jwt", tables::JWT),
            (
                "/$defs/identity/properties/certificate",
                tables::CERTIFICATE,
            ),
            ("/$defs/match", tables::MATCH),
            ("/$defs/match/properties/container", tables::CONTAINER),
            ("/$defs/egress", tables::EGRESS),
            ("/$defs/role", tables::ROLE),
            ("/$defs/credential", tables::CREDENTIAL),
            ("/$defs/credential/properties/aws_sigv4", tables::AWS_SIGV4),
            ("/$defs/role/properties/grants/items", tables::GRANT),
            ("/$defs/rule", tables::RULE),
            ("/$defs/argument", tables::ARGUMENT),
            ("/$defs/argument/properties/length/anyOf/1", tables::LENGTH),
            ("/$defs/limit", tables::LIMIT),
            ("/properties/breaker", tables::BREAKER),
            ("/$defs/selector/anyOf/1", tables::SELECTOR),
            ("/$defs/responses", tables::RESPONSES),
            ("/$defs/mask", tables::MASK),
        ];
        for (pointer, keys) in tables {
            let properties = schema.pointer(&format!("{pointer}/properties")).unwrap();
            let mut known = keys.known.to_vec();
            known.sort_unstable();
            let mut found: Vec<_> = properties.as_object().unwrap().keys().collect();
            found.sort_unstable();
            assert_eq!(found, known, "{pointer}");
        }
    }
}
