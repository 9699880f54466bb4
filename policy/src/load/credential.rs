//! Credentials: where a secret comes from and how it is sent.

use std::sync::Arc;

use super::words::{absolute, check_name, duration};
use super::{Kind, Loader, Mention, tables};
use crate::model::{Credential, Placement, SecretOrigin};
use crate::name::HostPattern;
use crate::yaml::{Fields, Node, Span};

/// The most words of one command.
const WORDS_MAX: usize = 64;
/// Headers that are the connection's, the message's or the gate's own: a secret there would break it.
const NOT_FOR_SECRETS: [&str; 16] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

impl Loader<'_> {
    pub(super) fn credential(&mut self, name: &str, span: Span, node: &Node) {
        let name = self.named(Kind::Credential, name, span);
        let Some(fields) = self.reader.fields(node, &tables::CREDENTIAL) else {
            return;
        };
        let origin = self.origin(fields);
        let placement = self.placement(fields);
        let hosts = self.patterns(fields, "hosts", "a host name", HostPattern::parse);
        let refresh_ms = fields
            .get("refresh")
            .and_then(|node| self.reader.parsed(node, "a time as `10m`", duration));
        let place = self.reader.place(span);
        if let (Some(origin), Some(placement)) = (origin, placement) {
            self.draft.credentials.push(Credential {
                name,
                origin,
                placement,
                hosts,
                refresh_ms,
                place,
            });
        }
    }

    fn origin(&mut self, fields: Fields<'_>) -> Option<SecretOrigin> {
        let ways = ["file", "systemd", "command"];
        let (way, node) = self.one_of(fields, &ways, "`file`, `systemd` and `command`")?;
        match way {
            "file" => {
                let path = self.reader.parsed(node, "a file's path", absolute);
                path.map(SecretOrigin::File)
            }
            "systemd" => {
                let read = |text: &str| check_name(text).map(|()| text.to_owned());
                let name = self.reader.parsed(node, "a credential's name", read);
                name.map(SecretOrigin::Systemd)
            }
            _ => self.command(node).map(SecretOrigin::Command),
        }
    }

    fn command(&mut self, node: &Node) -> Option<Vec<String>> {
        let words = self.reader.list(node, "a program and its arguments")?;
        if words.is_empty() || words.len() > WORDS_MAX {
            let found = words.len();
            self.reader.fault(
                node.span,
                format!(
                    "expected a program and its arguments, at most {WORDS_MAX} words, found {found}"
                ),
            );
        }
        let (program, arguments) = words.split_first()?;
        let program = self.reader.parsed(program, "a program's path", absolute);
        let mut command = vec![program?];
        for argument in arguments {
            let text = self.reader.text_or_empty(argument, "an argument")?;
            command.push(text.to_owned());
        }
        Some(command)
    }

    /// `Authorization: Bearer SECRET` where nothing is said.
    fn placement(&mut self, fields: Fields<'_>) -> Option<Placement> {
        let ways = ["header", "query", "basic", "aws_sigv4"];
        if ways.iter().all(|way| fields.get(way).is_none()) {
            if let Some(node) = fields.get("prefix") {
                self.reader
                    .fault(node.span, "`prefix` needs `header` beside it");
            }
            return Some(Placement::Header {
                name: "authorization".into(),
                prefix: "Bearer ".into(),
            });
        }
        let (way, node) =
            self.one_of(fields, &ways, "`header`, `query`, `basic` and `aws_sigv4`")?;
        if way != "header" {
            self.meaningless(fields, &["prefix"], &format!("`{way}`"));
        }
        match way {
            "header" => {
                let name = self.reader.parsed(node, "a header's name", header);
                let prefix = fields.get("prefix").map_or(Some(""), |node| {
                    let text = self.reader.text(node, "what stands before the secret")?;
                    let plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                    if !plain || text.starts_with(' ') {
                        let why = "a prefix holds printable ASCII and does not begin with a blank";
                        self.reader.fault(node.span, why);
                    }
                    Some(text)
                });
                Some(Placement::Header {
                    name: name?,
                    prefix: prefix?.into(),
                })
            }
            "query" => {
                let name = self.reader.parsed(node, "a parameter's name", parameter);
                name.map(Placement::Query)
            }
            "basic" => {
                let user = self.reader.parsed(node, "a user's name", basic);
                user.map(Placement::Basic)
            }
            _ => self.signed(node),
        }
    }

    /// What a signature says that it is for.
    fn signed(&mut self, node: &Node) -> Option<Placement> {
        let fields = self.reader.fields(node, &tables::AWS_SIGV4)?;
        let region = self.reader.required(fields, "region", "`aws_sigv4`");
        let service = self.reader.required(fields, "service", "`aws_sigv4`");
        let region = self.reader.parsed(region?, "a region's name", scope);
        let service = self.reader.parsed(service?, "a service's name", scope);
        Some(Placement::AwsSigV4 {
            region: region?,
            service: service?,
        })
    }

    /// The one of several keys that is written.
    fn one_of<'n>(
        &mut self,
        fields: Fields<'n>,
        keys: &[&'static str],
        listed: &str,
    ) -> Option<(&'static str, &'n Node)> {
        let mut given = keys
            .iter()
            .filter_map(|key| fields.get(key).map(|node| (*key, node)));
        match (given.next(), given.next()) {
            (Some(one), None) => Some(one),
            (None, _) => {
                self.reader
                    .fault(fields.span, format!("a credential needs one of {listed}"));
                None
            }
            (Some(_), Some((_, second))) => {
                self.reader.fault(
                    second.span,
                    format!("a credential has only one of {listed}"),
                );
                None
            }
        }
    }

    /// Takes the name of a credential that is given elsewhere.
    pub(super) fn credential_named(&mut self, fields: Fields<'_>) -> Option<Arc<str>> {
        let node = fields.get("credential")?;
        let name: Arc<str> = self.reader.text(node, "the name of a credential")?.into();
        let place = self.reader.place(node.span);
        self.draft.used.push(Mention {
            kind: Kind::Credential,
            name: Arc::clone(&name),
            place,
        });
        Some(name)
    }
}

/// A header's name (RFC 9110 section 5.6.2), in lower case.
fn header(text: &str) -> Result<Arc<str>, &'static str> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let name = text.to_ascii_lowercase();
    if text.is_empty() || text.len() > 64 || !text.bytes().all(token) {
        Err("a header's name has 1 to 64 letters, digits and `-`")
    } else if NOT_FOR_SECRETS.contains(&name.as_str()) {
        Err("this header is no place for a secret")
    } else {
        Ok(name.into())
    }
}

/// A query parameter's name that stands for itself.
fn parameter(text: &str) -> Result<Arc<str>, &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        Err("a parameter's name has 1 to 64 letters, digits, `-`, `.`, `_` and `~`")
    }
}

/// The user of Basic authentication, which ends at the first colon.
fn basic(text: &str) -> Result<Arc<str>, &'static str> {
    let plain = |byte: u8| (b'!'..=b'~').contains(&byte) && byte != b':';
    if text.len() <= 128 && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        Err("a user's name has at most 128 printable ASCII characters and no colon")
    }
}

/// A part of a signature's scope, which `/` divides.
fn scope(text: &str) -> Result<Arc<str>, &'static str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        Err("regions and services have 1 to 64 small letters, digits and `-`")
    }
}
