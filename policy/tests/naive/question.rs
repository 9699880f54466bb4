//! Random requests in the small world.

use exeat_policy::{
    Action, AsJson as _, Caller, Certificate, CertifiedName, Hints, NameKind, Request, Timestamp,
    Token, Workload,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::arguments::{Tree, arguments};
use super::uris::URIS;
use super::world::{METHODS, NAMES, SERVERS};

/// 2026-11-21.
pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_795_219_200);

/// A question in the small world.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) user: Option<&'static str>,
    pub(crate) workload: Option<(bool, &'static str)>,
    /// Issuer, subject and claims.
    pub(crate) token: Option<(&'static str, &'static str, Tree)>,
    /// Authority and names.
    pub(crate) certificate: Option<(&'static str, Vec<CertifiedName>)>,
    pub(crate) server: &'static str,
    /// `None`: the server is to be started.
    pub(crate) method: Option<&'static str>,
    pub(crate) name: Option<&'static str>,
    pub(crate) arguments: Option<Tree>,
    pub(crate) hints: Option<(Option<bool>, Option<bool>, Option<bool>)>,
    pub(crate) session: Option<&'static str>,
    /// Milliseconds since the question before it.
    pub(crate) after: i64,
}

impl Question {
    pub(crate) fn ask<T>(&self, answer: impl FnOnce(&Request<'_>) -> T) -> T {
        let workload = self.workload.map(|(host, name)| {
            if host {
                Workload::Host(name)
            } else {
                Workload::Server(name)
            }
        });
        let caller = Caller {
            workload,
            user: self.user,
            fetching: false,
            token: self.token.as_ref().map(|(issuer, subject, claims)| Token {
                issuer,
                subject,
                claims: claims.as_json(),
            }),
            certificate: self
                .certificate
                .as_ref()
                .map(|(authority, names)| Certificate {
                    authority,
                    subject: names.first().map_or("", |name| &name.text),
                    names,
                }),
            known_as: &[],
        };
        let hints = self
            .hints
            .map(|(read_only, destructive, open_world)| Hints {
                read_only,
                destructive,
                open_world,
            });
        let action = match self.method {
            None => Action::Run {
                server: self.server,
                extra_args: &[],
            },
            Some(method) => Action::Mcp {
                server: self.server,
                method,
                name: self.name,
                arguments: self.arguments.as_ref().map(Tree::as_json),
                hints,
                session: self.session,
            },
        };
        answer(&Request {
            caller,
            action,
            now: NOW,
            counts: &[],
        })
    }
}

pub(crate) fn question() -> impl Strategy<Value = Question> {
    let servers = SERVERS.into_iter().chain(["nowhere"]).collect::<Vec<_>>();
    (
        prop::option::weighted(0.8, select(vec!["dave", "eve", "x", "zoe"])),
        prop::option::weighted(
            0.4,
            select(vec![
                (true, "h"),
                (true, "unknown"),
                (false, "a"),
                (false, "gone"),
            ]),
        ),
        select(servers),
        prop_oneof![
            1 => Just(None),
            5 => Just(Some("tools/call")),
            2 => select(vec!["resources/read", "completion/complete"]).prop_map(Some),
            4 => select(METHODS.to_vec()).prop_map(Some),
        ],
        prop::option::weighted(0.9, select(NAMES.to_vec())),
        prop::option::weighted(0.8, arguments()),
        prop::option::of(any::<(Option<bool>, Option<bool>, Option<bool>)>()),
        (
            prop::option::weighted(0.3, token()),
            prop::option::weighted(0.3, certificate()),
        ),
        (
            prop::option::of(select(vec!["s1", "s2"])),
            0..400_i64,
            prop::option::weighted(0.8, select(URIS.map(|(uri, _)| uri).to_vec())),
        ),
    )
        .prop_map(
            |(
                user,
                workload,
                server,
                method,
                name,
                arguments,
                hints,
                (token, certificate),
                (session, after, uri),
            )| {
                // As the decoder reads messages: those of other methods have none.
                let with_arguments = ["tools/call", "prompts/get", "completion/complete"];
                let of_resource = matches!(method, Some("resources/read" | "completion/complete"));
                Question {
                    user,
                    workload,
                    token,
                    certificate,
                    server,
                    method,
                    name: uri.filter(|_| of_resource).or(name),
                    arguments: arguments
                        .filter(|_| method.is_some_and(|it| with_arguments.contains(&it))),
                    hints,
                    session,
                    after,
                }
            },
        )
}

fn token() -> impl Strategy<Value = (&'static str, &'static str, Tree)> {
    let issuers = vec![
        "https://i.example",
        "https://j.example",
        "https://k.example",
    ];
    let group = |value| Tree::Map(vec![("group", value)]);
    let claims = vec![
        Tree::Map(Vec::new()),
        group(Tree::Text("dev")),
        group(Tree::Text("DEV")),
        group(Tree::List(vec![Tree::Number("5"), Tree::Text("ops")])),
        group(Tree::List(vec![Tree::Text("none")])),
        group(Tree::Bool(true)),
    ];
    (select(issuers), select(vec!["u1", "u2"]), select(claims))
}

fn certificate() -> impl Strategy<Value = (&'static str, Vec<CertifiedName>)> {
    let kind = vec![
        NameKind::Uri,
        NameKind::Dns,
        NameKind::Email,
        NameKind::CommonName,
    ];
    let texts = vec!["spiffe://x/a", "spiffe://x/b", "spiffe://y/a", "a.x", "a"];
    let name = (select(kind), select(texts)).prop_map(|(kind, text)| CertifiedName {
        kind,
        text: text.to_owned(),
    });
    let authorities = vec!["corp", "lab", "other"];
    (select(authorities), prop::collection::vec(name, 0..4))
}
