//! Short ways to say what tests say often.

use exeat_policy::{
    Action, Caller, Name, PolicySet, Protocol, Request, Source, Target, Verdict, Workload, compile,
    evaluate,
};

pub(crate) use crate::naive::question::NOW;

pub(crate) fn source(name: &str, text: &str) -> Source {
    Source {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

/// A policy without its `version` line.
pub(crate) fn policy(text: &str) -> PolicySet {
    match compile(&[source("p.yaml", &format!("version: 1\n{text}"))]) {
        Ok(set) => set,
        Err(faults) => panic!("{}", shown(&faults)),
    }
}

pub(crate) fn faults(text: &str) -> String {
    match compile(&[source("p.yaml", text)]) {
        Ok(_) => String::new(),
        Err(faults) => shown(&faults),
    }
}

pub(crate) fn shown(faults: &[exeat_policy::Fault]) -> String {
    faults
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn user(user: &str) -> Caller<'_> {
    Caller {
        user: Some(user),
        ..Caller::default()
    }
}

pub(crate) fn server(name: &str) -> Caller<'_> {
    Caller {
        workload: Some(Workload::Server(name)),
        ..Caller::default()
    }
}

pub(crate) fn host(name: &str) -> Caller<'_> {
    Caller {
        workload: Some(Workload::Host(name)),
        ..Caller::default()
    }
}

pub(crate) fn ask(set: &PolicySet, caller: Caller<'_>, action: Action<'_>) -> Verdict {
    evaluate(
        set,
        &Request {
            caller,
            action,
            now: NOW,
            counts: &[],
        },
    )
}

pub(crate) fn mcp<'a>(server: &'a str, method: &'a str, name: Option<&'a str>) -> Action<'a> {
    Action::Mcp {
        server,
        method,
        name,
        arguments: None,
        hints: None,
        session: None,
    }
}

pub(crate) fn call<'a>(server: &'a str, tool: &'a str) -> Action<'a> {
    mcp(server, "tools/call", Some(tool))
}

pub(crate) fn connect(name: &Name, port: u16) -> Action<'_> {
    Action::Connect {
        target: Target::Name(name),
        port,
        protocol: Protocol::Tcp,
    }
}

pub(crate) fn http<'a>(name: &'a Name, method: &'a str, path: &'a str) -> Action<'a> {
    Action::Http {
        target: Target::Name(name),
        port: 443,
        method,
        path,
        tls: true,
        upgrade: false,
        calls: &[],
    }
}

/// `effect reason rule`, the way a person would read a verdict.
pub(crate) fn said(verdict: &Verdict) -> String {
    let mut out = format!("{}: {}", verdict.effect, verdict.reason);
    if let Some(rule) = &verdict.rule {
        out.push_str(&format!(" ({rule})"));
    }
    if let Some(would) = &verdict.would {
        out.push_str(&format!("; would {}: {}", would.effect, would.reason));
    }
    out
}
