//! Reads the cases: what is asked, and what the policy is to answer.

use exeat_policy::yaml::{Fields, Keys, Node, Reader, Value, closest, read as read_yaml};
use exeat_policy::{Date, Effect, Fault, PolicySet, Source, Timestamp};

use crate::control::command::{
    Action, Arguments, Call, Caller, OutboundConnection, OutboundRequest, ServerShow,
    StatedCertificate, StatedToken, Transport,
};
use crate::control::reply::ListedTool;
use crate::control::{Question, explain};
use crate::decode::json::{self, Limits};

const FILE: Keys = Keys {
    what: "a file of cases",
    known: &["version", "today", "cases"],
    later: &[],
};
const CASE: Keys = Keys {
    what: "a case",
    known: &[
        "name",
        "user",
        "host",
        "token",
        "certificate",
        "server",
        "tool",
        "method",
        "of",
        "args",
        "hints",
        "request",
        "upgrade",
        "fetching",
        "connect",
        "udp",
        "today",
        "expect",
    ],
    later: &[],
};
const TOKEN: Keys = Keys {
    what: "a token",
    known: &["issuer", "subject", "claims"],
    later: &[],
};
const CERTIFICATE: Keys = Keys {
    what: "a certificate",
    known: &["authority", "uri", "dns", "email", "common_name"],
    later: &[],
};
const HINTS: Keys = Keys {
    what: "hints",
    known: &["readOnlyHint", "destructiveHint", "openWorldHint"],
    later: &[],
};
const EXPECT: Keys = Keys {
    what: "`expect`",
    known: &["effect", "rule", "would"],
    later: &[],
};
const EFFECTS: [(&str, Effect); 4] = [
    ("allow", Effect::Allow),
    ("deny", Effect::Deny),
    ("approve", Effect::Approve),
    ("dry_run", Effect::DryRun),
];

/// One case.
#[derive(Debug)]
pub(super) struct Case {
    /// `file:line:column`.
    pub(super) place: String,
    pub(super) name: String,
    pub(super) question: Question,
    /// When it is asked; `None`: now.
    pub(super) now: Option<Timestamp>,
    pub(super) expected: Expected,
}

/// What is to be answered. What is not said is not looked at.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) effect: Effect,
    pub(super) rule: Option<String>,
    pub(super) would: Option<Effect>,
}

/// Reads one file; names that the policy does not know are faults, for such a case tests nothing.
pub(super) fn read(source: &Source, set: &PolicySet) -> Result<Vec<Case>, Vec<Fault>> {
    let root = read_yaml(source)?;
    let mut cases = Cases {
        reader: Reader::new(&source.name),
        set,
    };
    let read = cases.file(&root).unwrap_or_default();
    let faults = cases.reader.into_faults();
    if faults.is_empty() {
        Ok(read)
    } else {
        Err(faults)
    }
}

struct Cases<'a> {
    reader: Reader,
    set: &'a PolicySet,
}

impl Cases<'_> {
    fn file(&mut self, root: &Node) -> Option<Vec<Case>> {
        let fields = self.reader.fields(root, &FILE)?;
        if let Some(version) = self.reader.required(fields, "version", "the file") {
            self.reader.integer(version, "the version", 1..=1);
        }
        let today = self.today(fields);
        let cases = self.reader.required(fields, "cases", "the file")?;
        let items = self.reader.list(cases, "cases")?;
        Some(
            items
                .iter()
                .filter_map(|item| self.case(item, today))
                .collect(),
        )
    }

    /// Noon (UTC) of the day that is written.
    fn today(&mut self, fields: Fields<'_>) -> Option<Timestamp> {
        let node = fields.get("today")?;
        let parse = |text: &str| Date::parse(text).ok_or("there is no such day");
        let date = self.reader.parsed(node, "a day as `2027-02-01`", parse)?;
        Some(date.noon())
    }

    fn case(&mut self, node: &Node, today: Option<Timestamp>) -> Option<Case> {
        let fields = self.reader.fields(node, &CASE)?;
        let name = self.text(fields, "name", "what the case is about");
        let now = self.today(fields).or(today);
        let action = self.action(fields);
        let host = self.known(fields, "host", |set, name| set.host(name).is_some());
        let user = self.text(fields, "user", "a user");
        let token = fields.get("token").and_then(|node| self.token(node));
        let certificate = fields
            .get("certificate")
            .and_then(|node| self.certificate(node));
        let server = fields.get("server");
        let expected = self
            .reader
            .required(fields, "expect", "a case")
            .and_then(|node| self.expected(node));
        let place = self.reader.place(fields.span).to_string();
        let (action, expected) = (action?, expected?);
        self.shown(fields, &action);
        let outbound = matches!(action, Action::Request(_) | Action::Connect(_));
        let fetching = self.fetching(fields, outbound && server.is_some());
        let caller = match (host, server) {
            (Some(_), Some(server)) if outbound => {
                self.reader.fault(
                    server.span,
                    "what leaves has one sender: give `server` or `host`",
                );
                None
            }
            (Some(host), _) => Some(Caller::Host(host)),
            (None, Some(server)) if outbound => {
                let name = self.reader.text(server, "a server")?;
                Some(Caller::Server(name.to_owned()))
            }
            (None, None) if outbound => {
                self.reader.fault(
                    fields.span,
                    "what leaves has a sender: give `server` or `host`",
                );
                None
            }
            (None, _) => None,
        };
        Some(Case {
            name: name.unwrap_or_else(|| place.clone()),
            place,
            question: Question {
                caller,
                user,
                token,
                certificate,
                fetching,
                action,
            },
            now,
            expected,
        })
    }

    /// What a token says, which nobody verified.
    fn token(&mut self, node: &Node) -> Option<StatedToken> {
        let fields = self.reader.fields(node, &TOKEN)?;
        let issuer = self.reader.required(fields, "issuer", "a token")?;
        let span = issuer.span;
        let issuer = self.reader.text(issuer, "an issuer")?.to_owned();
        if let Err(error) = explain::known_issuer(self.set, &issuer) {
            self.reader.fault(span, error.to_string());
        }
        let claims = fields.get("claims");
        Some(StatedToken {
            issuer,
            subject: self.text(fields, "subject", "whom the token is about"),
            claims: claims.and_then(|node| self.object(node, "claims as a mapping")),
        })
    }

    fn certificate(&mut self, node: &Node) -> Option<StatedCertificate> {
        let fields = self.reader.fields(node, &CERTIFICATE)?;
        let authority = self.reader.required(fields, "authority", "a certificate")?;
        let span = authority.span;
        let authority = self.reader.text(authority, "an authority")?.to_owned();
        if let Err(error) = explain::known_authority(self.set, &authority) {
            self.reader.fault(span, error.to_string());
        }
        Some(StatedCertificate {
            authority,
            uri: self.names(fields, "uri"),
            dns: self.names(fields, "dns"),
            email: self.names(fields, "email"),
            common_name: self.text(fields, "common_name", "a common name"),
        })
    }

    /// One name or several.
    fn names(&mut self, fields: Fields<'_>, key: &str) -> Vec<String> {
        let Some(node) = fields.get(key) else {
            return Vec::new();
        };
        let items = self.reader.one_or_list(node).iter();
        let mut names = Vec::new();
        for item in items {
            names.extend(self.reader.text(item, "a name").map(str::to_owned));
        }
        names
    }

    /// Whether a server still fetches its code, where it is one that sends.
    fn fetching(&mut self, fields: Fields<'_>, sends: bool) -> bool {
        if let Some(node) = fields.get("fetching").filter(|_| !sends) {
            let message = "`fetching` has no meaning but for what leaves a server";
            self.reader.fault(node.span, message);
        }
        self.flag(fields, "fetching")
    }

    /// A token or a certificate is shown with a message to a server.
    fn shown(&mut self, fields: Fields<'_>, action: &Action) {
        let node = fields.get("token").or_else(|| fields.get("certificate"));
        if let Some(node) = node
            && !matches!(action, Action::Call(_))
        {
            let message = "a token or a certificate has no meaning without `tool` or `method`";
            self.reader.fault(node.span, message);
        }
    }

    /// What is asked for; without any of the words, whether the server may be started.
    fn action(&mut self, fields: Fields<'_>) -> Option<Action> {
        const WAYS: [&str; 5] = ["tool", "method", "request", "connect", "udp"];
        let given: Vec<&str> = WAYS
            .into_iter()
            .filter(|way| fields.get(way).is_some())
            .collect();
        if let [_, second, ..] = given.as_slice()
            && let Some(node) = fields.get(second)
        {
            self.reader.fault(
                node.span,
                "a case has only one of `tool`, `method`, `request`, `connect` and `udp`",
            );
            return None;
        }
        let way = given.first().copied();
        for (key, ways) in [
            ("args", &["tool", "method"][..]),
            ("of", &["method"][..]),
            ("hints", &["tool"][..]),
            ("upgrade", &["request"][..]),
        ] {
            if let Some(node) = fields.get(key)
                && !way.is_some_and(|way| ways.contains(&way))
            {
                self.reader.fault(
                    node.span,
                    format!("`{key}` has no meaning without `{}`", ways.join("` or `")),
                );
            }
        }
        let arguments = fields
            .get("args")
            .and_then(|node| self.object(node, "arguments as a mapping"));
        let server = self.known(fields, "server", |set, name| set.server(name).is_some());
        if matches!(way, None | Some("tool" | "method")) && fields.get("server").is_none() {
            self.reader
                .fault(fields.span, "`server` is missing in a case");
        }
        match way {
            None => Some(Action::Run(ServerShow { name: server? })),
            Some("tool") => Some(Action::Call(Call {
                server: server?,
                method: "tools/call".to_owned(),
                name: self.text(fields, "tool", "a tool"),
                arguments,
                hints: fields.get("hints").and_then(|node| self.hints(node)),
            })),
            Some("method") => Some(Action::Call(Call {
                server: server?,
                method: self.text(fields, "method", "a method")?,
                name: self.text(fields, "of", "what the method names"),
                arguments,
                hints: None,
            })),
            Some("request") => self.request(fields),
            Some("connect") => self.connection(fields.get("connect")?, Transport::Tcp),
            Some(_) => self.connection(fields.get("udp")?, Transport::Udp),
        }
    }

    /// What the server lists of the tool.
    fn hints(&mut self, node: &Node) -> Option<ListedTool> {
        let fields = self.reader.fields(node, &HINTS)?;
        let mut hints = ListedTool::default();
        for name in HINTS.known {
            if let (Some(node), Some(hint)) = (fields.get(name), hints.named(name)) {
                *hint = self.reader.flag(node);
            }
        }
        Some(hints)
    }

    fn flag(&mut self, fields: Fields<'_>, key: &str) -> bool {
        let node = fields.get(key);
        node.and_then(|node| self.reader.flag(node))
            .unwrap_or_default()
    }

    fn request(&mut self, fields: Fields<'_>) -> Option<Action> {
        let node = fields.get("request")?;
        let upgrade = self.flag(fields, "upgrade");
        let items = self.reader.list(node, "a method and a url")?;
        let [method, url] = items else {
            self.reader
                .fault(node.span, "expected `[GET, \"https://…\"]`");
            return None;
        };
        let method = self.reader.text(method, "a method")?.to_owned();
        let url = self.reader.text(url, "a url")?.to_owned();
        Some(Action::Request(OutboundRequest {
            method,
            url,
            upgrade,
        }))
    }

    fn connection(&mut self, node: &Node, protocol: Transport) -> Option<Action> {
        let parse = |text: &str| -> Result<(String, u16), &'static str> {
            let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
            let port = port.parse().ok().ok_or("the port is no port")?;
            Ok((host.to_owned(), port))
        };
        let (host, port) =
            self.reader
                .parsed(node, "a destination as `db.example.com:5432`", parse)?;
        Some(Action::Connect(OutboundConnection {
            host,
            port,
            protocol,
        }))
    }

    fn expected(&mut self, node: &Node) -> Option<Expected> {
        if let Value::Scalar { .. } = node.value {
            return Some(Expected {
                effect: self.reader.choice(node, &EFFECTS, &[])?,
                rule: None,
                would: None,
            });
        }
        let fields = self.reader.fields(node, &EXPECT)?;
        let effect = self.reader.required(fields, "effect", "`expect`")?;
        let effect = self.reader.choice(effect, &EFFECTS, &[]);
        let would = fields
            .get("would")
            .and_then(|node| self.reader.choice(node, &EFFECTS, &[]));
        let rule = self.text(fields, "rule", "a rule");
        if let (Some(rule), Some(node)) = (&rule, fields.get("rule")) {
            let names = || self.set.rules().iter().map(|rule| &*rule.id);
            if !names().any(|name| name == rule) {
                let hint = closest(rule, names()).map(|meant| format!("did you mean `{meant}`?"));
                let message = format!("unknown rule `{}`", rule.escape_debug());
                self.reader.hinted(node.span, message, hint);
            }
        }
        Some(Expected {
            effect: effect?,
            rule,
            would,
        })
    }

    fn text(&mut self, fields: Fields<'_>, key: &str, what: &str) -> Option<String> {
        let node = fields.get(key)?;
        self.reader.text(node, what).map(str::to_owned)
    }

    /// A name that the policy gives.
    fn known(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        knows: impl Fn(&PolicySet, &str) -> bool,
    ) -> Option<String> {
        let node = fields.get(key)?;
        let name = self.reader.text(node, &format!("a {key}"))?.to_owned();
        if !knows(self.set, &name) {
            let message = format!("unknown {key} `{}`", name.escape_debug());
            self.reader.fault(node.span, message);
        }
        Some(name)
    }

    /// A mapping as the client would send it: numbers keep their digits.
    fn object(&mut self, node: &Node, what: &str) -> Option<Arguments> {
        let Value::Map(_) = &node.value else {
            self.reader.expected(node, what);
            return None;
        };
        let before = self.reader.fault_count();
        let mut text = String::new();
        self.json(node, &mut text);
        (self.reader.fault_count() == before).then_some(Arguments(text))
    }

    fn json(&mut self, node: &Node, out: &mut String) {
        match &node.value {
            Value::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    self.json(item, out);
                }
                out.push(']');
            }
            Value::Map(entries) => {
                out.push('{');
                for (index, entry) in entries.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    json::write_text(&entry.key, out);
                    out.push(':');
                    self.json(&entry.value, out);
                }
                out.push('}');
            }
            Value::Scalar { text, plain } => {
                let word = matches!(text.as_str(), "true" | "false" | "null");
                let number = node.kind() == "a number";
                if *plain && number && json::parse(text.as_bytes(), &Limits::REQUEST).is_err() {
                    self.reader
                        .expected(node, "a number as JSON writes it, or a text in quotes");
                } else if *plain && (word || number) {
                    out.push_str(text);
                } else {
                    json::write_text(text, out);
                }
            }
        }
    }
}
