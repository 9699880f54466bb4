//! Servers, hosts and identities.

use super::words::{absolute, check_name, date, directory, sha256, unit, user, variable};
use super::{Kind, Loader, tables};
use crate::container::Container;
use crate::glob::Glob;
use crate::model::{
    Authorization, DryRun, EgressRule, Endpoint, EnvValue, Host, Identity, Label, Launch, Matcher,
    Pointer, Server, Tool, Transport, Url,
};
use crate::name::Name;
use crate::yaml::{Fields, Node, Span, Value};

impl Loader<'_> {
    /// Checks the name that a mapping's key gives, and notes it.
    pub(super) fn named(&mut self, kind: Kind, name: &str, span: Span) -> std::sync::Arc<str> {
        if let Err(why) = check_name(name) {
            self.reader.fault(
                span,
                format!("`{}` is not a name: {why}", name.escape_debug()),
            );
        }
        self.define(kind, name, span)
    }

    pub(super) fn server(&mut self, name: &str, span: Span, node: &Node) {
        let name = self.named(Kind::Server, name, span);
        let Some(fields) = self.reader.fields(node, &tables::SERVER) else {
            return;
        };
        let transport = self.transport(fields);
        let matcher = fields.get("match").and_then(|node| self.matcher(node));
        let egress = self.egress_list(fields);
        let server = Server {
            name,
            purpose: self.optional_text(fields, "purpose", "what the server is for"),
            owner: self.optional_text(fields, "owner", "who answers for the server"),
            data: fields
                .get("data")
                .and_then(|node| self.reader.choice(node, &tables::DATA, &[])),
            review_by: fields
                .get("review_by")
                .and_then(|node| self.reader.parsed(node, "a day as `2027-02-01`", date)),
            transport: match transport {
                Some(transport) => transport,
                None => return,
            },
            matcher,
            egress,
            tools: self.tools(fields),
            authorization: fields
                .get("authorization")
                .and_then(|node| self.authorization(node))
                .unwrap_or_default(),
            responses: fields
                .get("responses")
                .and_then(|node| self.responses(node)),
            mode: fields
                .get("mode")
                .and_then(|node| self.reader.choice(node, &tables::MODES, &[]))
                .unwrap_or_default(),
            place: self.reader.place(span),
        };
        self.check_server(&server, fields);
        self.draft.servers.push(server);
    }

    /// `strip`, or `{ credential: NAME }`.
    fn authorization(&mut self, node: &Node) -> Option<Authorization> {
        let Value::Map(_) = &node.value else {
            return self.reader.choice(node, &tables::AUTHORIZATION, &[]);
        };
        let fields = self.reader.fields(node, &tables::REPLACED)?;
        self.reader
            .required(fields, "credential", "`authorization`")?;
        self.credential_named(fields).map(Authorization::Replace)
    }

    /// What is written and could have no effect.
    fn check_server(&mut self, server: &Server, fields: Fields<'_>) {
        let is_url = matches!(server.transport, Transport::Url(_));
        let processes = server.matcher.is_some() || server.launch().is_some();
        for (key, wrong, message) in [
            (
                "match",
                is_url,
                "`match` has no meaning beside `url`: the server's processes are not here",
            ),
            (
                "egress",
                is_url,
                "`egress` has no meaning beside `url`: the server's processes are not here",
            ),
            (
                "authorization",
                server.launch().is_some(),
                "`authorization` has no meaning beside `launch`: no HTTP is spoken with the server",
            ),
            (
                "egress",
                !is_url && !processes,
                "`egress` needs `match`, which says whose egress it is",
            ),
        ] {
            if let Some(node) = fields.get(key).filter(|_| wrong) {
                self.reader.fault(node.span, message);
            }
        }
    }

    fn transport(&mut self, fields: Fields<'_>) -> Option<Transport> {
        const WAYS: [&str; 3] = ["launch", "url", "listen"];
        let given: Vec<(&str, &Node)> = WAYS
            .iter()
            .filter_map(|way| fields.get(way).map(|node| (*way, node)))
            .collect();
        let [(way, node)] = given.as_slice() else {
            let message = match given.get(1) {
                None => "a server needs one of `launch`, `url` and `listen`",
                Some(_) => "a server has only one of `launch`, `url` and `listen`",
            };
            self.reader.fault(
                given.get(1).map_or(fields.span, |(_, node)| node.span),
                message,
            );
            return None;
        };
        match *way {
            "launch" => self.launch(node).map(Transport::Launch),
            "url" => self
                .reader
                .parsed_unseen(node, "a url", Url::parse)
                .map(Transport::Url),
            _ => {
                let parse = |text: &str| Endpoint::parse(text, None);
                let endpoint = self
                    .reader
                    .parsed(node, "an address as `127.0.0.1:3001`", parse)?;
                Some(Transport::Listen(endpoint))
            }
        }
    }

    fn launch(&mut self, node: &Node) -> Option<Launch> {
        let fields = self.reader.fields(node, &tables::LAUNCH)?;
        let command = self.reader.required(fields, "command", "`launch`");
        let command = command
            .and_then(|node| self.reader.text(node, "a program"))
            .map(str::to_owned);
        let args = self.texts(fields, "args", "an argument");
        let extra_args = fields
            .get("extra_args")
            .map(|node| self.globs(node, "patterns of arguments"))
            .unwrap_or_default();
        let user = fields
            .get("user")
            .and_then(|node| self.reader.parsed(node, "a user", user));
        let directory = fields
            .get("directory")
            .and_then(|node| {
                self.reader
                    .parsed(node, "`caller` or a directory's path", directory)
            })
            .unwrap_or_default();
        let env = fields
            .get("env")
            .map(|node| self.environment(node))
            .unwrap_or_default();
        let mut fetch = Vec::new();
        if let Some(list) = fields
            .get("fetch")
            .and_then(|node| self.reader.list(node, "host names"))
        {
            for item in list {
                fetch.extend(self.reader.parsed(item, "a host name", Name::parse));
            }
        }
        let launch = Launch {
            command: command?,
            args,
            extra_args,
            user,
            directory,
            env,
            fetch,
        };
        if Container::is_started_by(&launch.command) {
            self.check_container(&launch, fields);
        }
        Some(launch)
    }

    /// What Docker is asked must keep the container in the workload.
    fn check_container(&mut self, launch: &Launch, fields: Fields<'_>) {
        let container = Container::parse(&launch.args);
        if let Err(fault) = &container {
            let args = fields.get("args");
            let items = args.and_then(|node| match &node.value {
                Value::List(items) => items.get(fault.at),
                Value::Scalar { .. } | Value::Map(_) => None,
            });
            let span = items.or(args).map_or(fields.span, |node| node.span);
            self.reader.fault(span, fault.message.clone());
        }
        let entries = fields
            .get("env")
            .into_iter()
            .flat_map(|node| match &node.value {
                Value::Map(entries) => entries.as_slice(),
                Value::Scalar { .. } | Value::List(_) => &[],
            });
        for entry in entries {
            let host = launch.env.iter().find(|(name, _)| *name == entry.key);
            let host = host.filter(|_| entry.key == "DOCKER_HOST");
            let fault = match host {
                Some((_, EnvValue::Text(text))) => {
                    Container::socket(Some(text)).and_then(|socket| {
                        let is_shown = container.as_ref().is_ok_and(|of| of.shows(socket));
                        let why = "a volume shows where Docker's daemon listens";
                        if is_shown { Err(why) } else { Ok(()) }
                    })
                }
                Some((_, EnvValue::Secret(_))) => Container::socket(Some("")).map(drop),
                None => Container::variable(&entry.key),
            };
            if let Err(why) = fault {
                self.reader.fault(entry.span, why);
            }
        }
    }

    fn environment(&mut self, node: &Node) -> Vec<(String, EnvValue)> {
        let mut env = Vec::new();
        for entry in self.reader.entries(node, "`env`").unwrap_or_default() {
            if let Err(why) = variable(&entry.key) {
                self.reader
                    .fault(entry.span, format!("`{}`: {why}", entry.key.escape_debug()));
            }
            let value = match &entry.value.value {
                Value::Map(_) => self.secret(&entry.value).map(EnvValue::Secret),
                Value::Scalar { .. } | Value::List(_) => self
                    .reader
                    .text_or_empty(&entry.value, "a text or `{ secret: NAME }`")
                    .map(|text| EnvValue::Text(text.to_owned())),
            };
            env.extend(value.map(|value| (entry.key.clone(), value)));
        }
        env
    }

    fn secret(&mut self, node: &Node) -> Option<String> {
        let fields = self.reader.fields(node, &tables::ENV)?;
        let node = self
            .reader
            .required(fields, "secret", "a variable's value")?;
        self.reader.parsed(node, "the name of a secret", |text| {
            check_name(text).map(|()| text.to_owned())
        })
    }

    fn tools(&mut self, fields: Fields<'_>) -> Vec<(Glob, Tool)> {
        let Some(node) = fields.get("tools") else {
            return Vec::new();
        };
        let mut tools = Vec::new();
        for entry in self.reader.entries(node, "`tools`").unwrap_or_default() {
            let tool = self.tool(&entry.value);
            match Glob::parse(&entry.key) {
                Ok(glob) => tools.extend(tool.map(|tool| (glob, tool))),
                Err(why) => {
                    self.reader
                        .fault(entry.span, format!("`{}`: {why}", entry.key.escape_debug()));
                }
            }
        }
        tools
    }

    /// `read`, or `{ class: read, dry_run: {...} }`.
    fn tool(&mut self, node: &Node) -> Option<Tool> {
        let Value::Map(_) = &node.value else {
            let class = self.reader.choice(node, &tables::CLASSES, &[])?;
            return Some(Tool {
                class,
                dry_run: None,
                credential: None,
            });
        };
        let fields = self.reader.fields(node, &tables::TOOL)?;
        let dry_run = fields.get("dry_run").map(|node| self.dry_run(node));
        let credential = self.credential_named(fields);
        let class = self.reader.required(fields, "class", "a tool")?;
        let class = self.reader.choice(class, &tables::CLASSES, &[])?;
        // What is written and could not be read is no tool without a dry run.
        let dry_run = match dry_run {
            Some(read) => Some(read?.into()),
            None => None,
        };
        Some(Tool {
            class,
            dry_run,
            credential,
        })
    }

    fn dry_run(&mut self, node: &Node) -> Option<DryRun> {
        let fields = self.reader.fields(node, &tables::DRY_RUN)?;
        let argument = self.reader.required(fields, "argument", "`dry_run`");
        let value = self.reader.required(fields, "value", "`dry_run`");
        let pointer = argument.and_then(|node| {
            let read = |text: &str| match Pointer::parse(text) {
                Ok(pointer) if pointer.is_wide() => Err("`*` stands for no argument".to_owned()),
                read => read.map_err(|fault| fault.to_string()),
            };
            self.reader.parsed(node, "a pointer as `/dryRun`", read)
        });
        let value = value.and_then(|node| self.scalar(node));
        Some(DryRun {
            argument: pointer?,
            value: value?,
        })
    }

    fn matcher(&mut self, node: &Node) -> Option<Matcher> {
        let fields = self.reader.fields(node, &tables::MATCH)?;
        let matcher = Matcher {
            unit: fields
                .get("unit")
                .and_then(|node| self.reader.parsed(node, "a unit", unit)),
            cgroup: fields
                .get("cgroup")
                .and_then(|node| self.reader.parsed(node, "a cgroup's path", absolute)),
            container: fields
                .get("container")
                .map(|node| self.labels(node))
                .unwrap_or_default(),
            exe: fields
                .get("exe")
                .and_then(|node| self.reader.parsed(node, "an executable's path", absolute)),
            args: fields
                .get("args")
                .map(|node| self.globs(node, "patterns of arguments"))
                .unwrap_or_default(),
            sha256: fields
                .get("sha256")
                .and_then(|node| self.reader.parsed(node, "a sha256", sha256)),
            user: fields
                .get("user")
                .map(|node| self.one_or_more_globs(node, "a user"))
                .unwrap_or_default(),
        };
        for key in ["args", "sha256"] {
            if let Some(node) = fields.get(key).filter(|_| fields.get("exe").is_none()) {
                self.reader
                    .fault(node.span, format!("`{key}` needs `exe` beside it"));
            }
        }
        let mut others = tables::MATCH
            .known
            .iter()
            .filter(|&&key| key != "container");
        if let Some(node) = fields.get("container")
            && others.any(|key| fields.get(key).is_some())
        {
            self.reader.fault(
                node.span,
                "`container` stands alone in `match`: its labels say which containers are meant, with all that runs in them",
            );
        }
        let selects = ["unit", "cgroup", "container", "exe", "user"]
            .iter()
            .any(|key| fields.get(key).is_some());
        if !selects {
            self.reader.fault(
                fields.span,
                "`match` needs one of `unit`, `cgroup`, `container`, `exe` and `user`",
            );
        }
        Some(matcher)
    }

    /// `label: NAME`, `label: NAME=VALUE`, or a list of such; in order, so that the same labels are the same matcher.
    fn labels(&mut self, node: &Node) -> Vec<Label> {
        let Some(fields) = self.reader.fields(node, &tables::CONTAINER) else {
            return Vec::new();
        };
        let Some(node) = self.reader.required(fields, "label", "`container`") else {
            return Vec::new();
        };
        let items = self.reader.one_or_list(node);
        if items.is_empty() {
            self.reader
                .fault(node.span, "an empty list of labels matches nothing");
        }
        let mut labels: Vec<Label> = Vec::new();
        for item in items {
            let expected = "a label as `NAME` or `NAME=VALUE`";
            let Some(label) = self.reader.parsed(item, expected, Label::parse) else {
                continue;
            };
            if labels.iter().any(|other| other.name == label.name) {
                let name = label.name.escape_debug();
                let message =
                    format!("the label `{name}` is asked for twice: a container has one of a name");
                self.reader.fault(item.span, message);
            }
            labels.push(label);
        }
        labels.sort_unstable();
        labels
    }

    pub(super) fn host(&mut self, name: &str, span: Span, node: &Node) {
        let name = self.named(Kind::Host, name, span);
        let Some(fields) = self.reader.fields(node, &tables::HOST) else {
            return;
        };
        let matcher = fields.get("match").and_then(|node| self.matcher(node));
        if let Some(node) = fields.get("match")
            && matcher.as_ref().is_some_and(|of| !of.container.is_empty())
        {
            self.reader.fault(
                node.span,
                "`container` is for servers: what a host starts is judged by files of this machine, which a container does not see",
            );
        }
        let servers = fields
            .get("servers")
            .map(|node| self.mentions(Kind::Server, node, "servers"));
        let egress = self.egress_list(fields);
        let unregistered = fields
            .get("unregistered")
            .and_then(|node| self.reader.choice(node, &tables::UNREGISTERED, &[]));
        let place = self.reader.place(span);
        self.draft.hosts.push(Host {
            name,
            matcher,
            servers: servers.unwrap_or_default(),
            egress,
            unregistered: unregistered.unwrap_or_default(),
            place,
        });
    }

    pub(super) fn identity(&mut self, name: &str, span: Span, node: &Node) {
        let name = self.named(Kind::Identity, name, span);
        let Some(fields) = self.reader.fields(node, &tables::IDENTITY) else {
            return;
        };
        let place = self.reader.place(span);
        let person = fields.get("person");
        let person = person.and_then(|node| self.reader.text(node, "a person's name"));
        if let Some(proof) = self.proof(fields) {
            self.draft.identities.push(Identity {
                name,
                proof,
                person: person.map(Into::into),
                place,
            });
        }
    }

    fn egress_list(&mut self, fields: Fields<'_>) -> Vec<EgressRule> {
        let Some(node) = fields.get("egress") else {
            return Vec::new();
        };
        let items = self.reader.list(node, "egress entries").unwrap_or_default();
        let rules: Vec<_> = items
            .iter()
            .filter_map(|item| Some((item.span, self.egress(item)?)))
            .collect();
        self.check_agreement(&rules);
        rules.into_iter().map(|(_, rule)| rule).collect()
    }

    fn optional_text(&mut self, fields: Fields<'_>, key: &str, what: &str) -> Option<String> {
        fields
            .get(key)
            .and_then(|node| self.reader.text(node, what))
            .map(str::to_owned)
    }

    fn texts(&mut self, fields: Fields<'_>, key: &str, what: &str) -> Vec<String> {
        let Some(node) = fields.get(key) else {
            return Vec::new();
        };
        let items = self
            .reader
            .list(node, &format!("{key}, each {what}"))
            .unwrap_or_default();
        items
            .iter()
            .filter_map(|item| self.reader.text_or_empty(item, what))
            .map(str::to_owned)
            .collect()
    }

    /// A list of patterns, never empty.
    pub(super) fn globs(&mut self, node: &Node, what: &str) -> Vec<Glob> {
        let Some(items) = self.reader.list(node, what) else {
            return Vec::new();
        };
        if items.is_empty() {
            self.reader.fault(
                node.span,
                format!("an empty list of {what} matches nothing"),
            );
        }
        items
            .iter()
            .filter_map(|item| self.reader.parsed(item, "a pattern", Glob::parse))
            .collect()
    }

    pub(super) fn one_or_more_globs(&mut self, node: &Node, what: &str) -> Vec<Glob> {
        let items = self.reader.one_or_list(node);
        if items.is_empty() {
            self.reader.fault(
                node.span,
                format!("expected {what} or a list, found an empty list"),
            );
        }
        let expected = format!("a pattern of {what}");
        items
            .iter()
            .filter_map(|item| self.reader.parsed(item, &expected, Glob::parse))
            .collect()
    }
}
