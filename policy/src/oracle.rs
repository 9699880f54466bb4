//! What must hold for every text that is given as a policy, and for every call that is put to it; run by the fuzz
//! targets, and by tests over their corpus.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::cel::oracle::Tree;
use crate::decide::{
    Action, Caller, Certificate, CertifiedName, Count, Counter, Hints, LimitKey, Request, Target,
    Token, Workload, evaluate, explain, limit_keys,
};
use crate::fault::Source;
use crate::json::AsJson as _;
use crate::model::{Effect, NameKind, Protocol};
use crate::name::Name;
use crate::set::{PolicySet, compile};
use crate::time::Timestamp;

/// 2026-11-21.
const NOW: Timestamp = Timestamp::from_seconds(1_795_219_200);

/// Nothing panics, every fault stands within the text and on one line, the same text is the same policy, and none opens
/// the network to a caller that nobody knows.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let source = [Source {
        name: "p.yaml".to_owned(),
        text: text.to_owned(),
    }];
    let set = match compile(&source) {
        Ok(set) => set,
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a fault");
            let lines = text.split(['\n', '\r']).count();
            for fault in &faults {
                let line = usize::try_from(fault.line).unwrap_or(usize::MAX);
                assert!(line <= lines, "a fault beside the text");
                assert!(
                    !fault.to_string().contains('\n'),
                    "a fault of several lines"
                );
            }
            let again = compile(&source).err();
            assert!(again == Some(faults), "the same text, other faults");
            return;
        }
    };
    let again = compile(&source).map(|set| set.fingerprint().to_owned());
    assert!(
        again.as_deref() == Ok(set.fingerprint()),
        "the same text, another policy"
    );
    let now = NOW;
    drop(set.warnings(now));
    let Ok(name) = Name::parse("a.example") else {
        return;
    };
    let target = Target::Name(&name);
    let (port, protocol) = (443, Protocol::Tcp);
    let request = Request {
        caller: Caller::default(),
        action: Action::Connect {
            target,
            port,
            protocol,
        },
        now,
        counts: &[],
    };
    let verdict = evaluate(&set, &request);
    assert!(verdict.effect == Effect::Deny, "open to anybody");
}

/// The text before a line of three hyphens as a policy, each line after it as a call: nothing panics, the same is
/// decided the same, one more rule that denies and what was charged before allow nothing, and without a rule that
/// allows no tool is called.
pub fn calls(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (policy, calls) = text.split_once("\n---\n").unwrap_or((&text, ""));
    let Some(set) = compiled(policy, "") else {
        return;
    };
    let mut kept = Kept::default();
    let mut now = NOW;
    for line in calls.lines() {
        let Ok(call) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        now = now.plus_millis(call.get("after").and_then(Value::as_u64).unwrap_or(0));
        let call = Call::of(&call);
        call.ask(now, |request| {
            let fresh = decided(&set, request, &mut Kept::default());
            let effect = decided(&set, request, &mut kept);
            assert!(effect >= fresh, "what was charged before allows");
            if set.observes(&call.server) {
                return;
            }
            let given = set.rules().iter().any(|rule| rule.effect != Effect::Deny);
            assert!(
                given || effect == Effect::Deny || call.method != "tools/call",
                "a call that nothing allows"
            );
            let quoted = Value::from(&*call.server);
            let deny = format!("rules: [{{ id: one-more, servers: [{quoted}], effect: deny }}]");
            let narrower = compiled(policy, &deny);
            // What can never match or matter is a fault, and so is a server that is not in the register.
            let narrower = narrower.map(|set| decided(&set, request, &mut Kept::default()));
            assert!(
                narrower.is_none_or(|effect| effect == Effect::Deny),
                "allowed, though one more rule denies"
            );
        });
    }
}

/// The policy, and one that stands beside it.
fn compiled(policy: &str, beside: &str) -> Option<PolicySet> {
    let source = |name: &str, text: String| Source {
        name: name.to_owned(),
        text,
    };
    let beside = format!("version: 1\n{beside}\n");
    compile(&[
        source("p.yaml", policy.to_owned()),
        source("q.yaml", beside),
    ])
    .ok()
}

/// What is decided, twice and with every explanation; what passes is charged.
fn decided(set: &PolicySet, request: &Request<'_>, kept: &mut Kept) -> Effect {
    let keys = limit_keys(set, request);
    assert!(keys == limit_keys(set, request), "the same, other counters");
    let counts = kept.counts(&keys, request.now);
    let request = Request {
        counts: &counts,
        ..*request
    };
    let verdict = evaluate(set, &request);
    assert!(verdict == evaluate(set, &request), "the same, decided anew");
    let told = explain(set, &request).verdict;
    assert!(verdict == told, "explained as another");
    if verdict.effect == Effect::Allow {
        kept.charge(&keys, request.now);
    }
    verdict.effect
}

/// The counters.
#[derive(Default)]
struct Kept(HashMap<String, Counter>);

impl Kept {
    fn counts(&mut self, keys: &[LimitKey], now: Timestamp) -> Vec<Count> {
        let count = |key: &LimitKey| {
            let new = || Counter::new(key.cap);
            let counter = self.0.entry(key.key.clone()).or_insert_with(new);
            counter.count(key, now)
        };
        keys.iter().map(count).collect()
    }

    fn charge(&mut self, keys: &[LimitKey], now: Timestamp) {
        let mut charged = HashSet::new();
        for key in keys.iter().filter(|key| charged.insert(&key.key)) {
            if let Some(counter) = self.0.get_mut(&key.key) {
                counter.charge(key, now);
            }
        }
    }
}

/// A call, as a line tells it.
struct Call {
    user: Option<String>,
    host: Option<String>,
    /// Issuer, subject and claims.
    token: Option<(String, String, Tree)>,
    /// Authority and names.
    certificate: Option<(String, Vec<CertifiedName>)>,
    server: String,
    method: String,
    tool: Option<String>,
    arguments: Option<Tree>,
    hints: Option<Hints>,
    session: Option<String>,
}

impl Call {
    fn of(line: &Value) -> Self {
        let part = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
        let text = |name| part(line, name);
        let token = line.get("token").map(|token| {
            let part = |name| part(token, name).unwrap_or_default();
            let claims = token.get("claims").map_or(Tree::Null, Tree::of);
            (part("issuer"), part("subject"), claims)
        });
        let certificate = line.get("certificate").map(|certificate| {
            let name = |(kind, key)| {
                let text = part(certificate, key)?;
                Some(CertifiedName { kind, text })
            };
            let kinds = [
                (NameKind::Uri, "uri"),
                (NameKind::Dns, "dns"),
                (NameKind::Email, "email"),
                (NameKind::CommonName, "common_name"),
            ];
            let names = kinds.into_iter().filter_map(name).collect();
            (part(certificate, "authority").unwrap_or_default(), names)
        });
        let hints = line.get("hints").map(|hints| {
            let hint = |name| hints.get(name).and_then(Value::as_bool);
            Hints {
                read_only: hint("readOnlyHint"),
                destructive: hint("destructiveHint"),
                open_world: hint("openWorldHint"),
            }
        });
        Self {
            user: text("user"),
            host: text("host"),
            token,
            certificate,
            server: text("server").unwrap_or_default(),
            method: text("method").unwrap_or_else(|| "tools/call".to_owned()),
            tool: text("tool"),
            arguments: line.get("arguments").map(Tree::of),
            hints,
            session: text("session"),
        }
    }

    fn ask(&self, now: Timestamp, asked: impl FnOnce(&Request<'_>)) {
        let token = self.token.as_ref();
        let certificate = self.certificate.as_ref();
        let caller = Caller {
            workload: self.host.as_deref().map(Workload::Host),
            user: self.user.as_deref(),
            fetching: false,
            token: token.map(|(issuer, subject, claims)| Token {
                issuer,
                subject,
                claims: claims.as_json(),
            }),
            certificate: certificate.map(|(authority, names)| Certificate {
                authority,
                subject: names.first().map_or("", |name| &name.text),
                names,
            }),
            known_as: &[],
        };
        let action = Action::Mcp {
            server: &self.server,
            method: &self.method,
            name: self.tool.as_deref(),
            arguments: self.arguments.as_ref().map(Tree::as_json),
            hints: self.hints,
            session: self.session.as_deref(),
        };
        asked(&Request {
            caller,
            action,
            now,
            counts: &[],
        });
    }
}
