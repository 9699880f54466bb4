//! Egress entries.

use std::sync::Arc;

use super::words::http_method;
use super::{Loader, tables};
use crate::model::{Cidr, EgressRule, HostRule, Kind, Protocol, RangeRule, Tls, Wire};
use crate::name::HostPattern;
use crate::path::PathGlob;
use crate::yaml::{Fields, Node, Span};

/// The most ports in one entry: each is an entry of the kernel's table for each address.
const PORTS_MAX: usize = 64;

impl Loader<'_> {
    pub(super) fn egress(&mut self, node: &Node) -> Option<EgressRule> {
        let fields = self.reader.fields(node, &tables::EGRESS)?;
        match (fields.get("host"), fields.get("cidr")) {
            (Some(host), None) => self.host_rule(fields, host).map(EgressRule::Host),
            (None, Some(cidr)) => self.range_rule(fields, cidr).map(EgressRule::Range),
            (Some(_), Some(cidr)) => {
                self.reader
                    .fault(cidr.span, "an egress entry has either `host` or `cidr`");
                None
            }
            (None, None) => {
                self.reader
                    .fault(fields.span, "an egress entry needs `host` or `cidr`");
                None
            }
        }
    }

    fn host_rule(&mut self, fields: Fields<'_>, node: &Node) -> Option<HostRule> {
        const WIRES: [(&str, Wire); 2] = [("http", Wire::Http), ("tcp", Wire::Tcp)];
        let host = self.reader.parsed(node, "a host name", HostPattern::parse);
        let wire = fields.get("protocol").map_or(Some(Wire::Http), |node| {
            self.reader.choice(node, &WIRES, &[])
        });
        let tls = fields.get("tls").map_or(Some(Tls::Intercept), |node| {
            self.reader.choice(node, &tables::TLS, &[])
        });
        let opaque = wire == Some(Wire::Tcp);
        if opaque {
            self.meaningless(
                fields,
                &["tls", "methods", "paths", "upgrade", "kind", "credential"],
                "`protocol: tcp`",
            );
        } else if tls == Some(Tls::Passthrough) {
            self.meaningless(
                fields,
                &["methods", "paths", "upgrade", "credential"],
                "`tls: passthrough`",
            );
        } else if tls == Some(Tls::Off) {
            // A secret in clear text is nobody's any more.
            self.meaningless(fields, &["credential"], "`tls: off`");
        }
        let ports = self.host_ports(fields, opaque, tls)?;
        let kind = fields
            .get("kind")
            .and_then(|node| self.reader.choice(node, &[("model", Kind::Model)], &[]));
        let addresses = fields
            .get("addresses")
            .and_then(|node| self.reader.choice(node, &[("synthetic", ())], &[]));
        let mut flag = |key| {
            fields
                .get(key)
                .and_then(|node| self.reader.flag(node))
                .unwrap_or_default()
        };
        let (private, upgrade) = (flag("private"), flag("upgrade"));
        let methods = self.patterns(fields, "methods", "a method", |text| {
            http_method(text).map(Arc::from)
        });
        let paths = self.patterns(fields, "paths", "a path's pattern", PathGlob::parse);
        let credential = self.sent_credential(fields, &methods);
        Some(HostRule {
            host: host?,
            ports,
            methods,
            paths,
            tls: if opaque { Tls::Passthrough } else { tls? },
            private,
            wire: wire?,
            kind,
            upgrade,
            synthetic: addresses.is_some() || opaque,
            credential,
        })
    }

    fn sent_credential(&mut self, fields: Fields<'_>, methods: &[Arc<str>]) -> Option<Arc<str>> {
        // An echo of the request.
        let tells = |method: &Arc<str>| &**method == "TRACE";
        if let Some(node) = fields.get("credential")
            && methods.iter().any(tells)
        {
            self.reader.fault(
                node.span,
                "`credential` has no meaning beside the method TRACE",
            );
        }
        self.credential_named(fields)
    }

    /// 443, or 80 for plain HTTP; opaque TCP has no usual port.
    fn host_ports(
        &mut self,
        fields: Fields<'_>,
        opaque: bool,
        tls: Option<Tls>,
    ) -> Option<Vec<u16>> {
        match fields.get("ports") {
            Some(node) => Some(self.ports(node)),
            None if opaque => {
                self.reader
                    .fault(fields.span, "`ports` is missing beside `protocol: tcp`");
                None
            }
            None if tls == Some(Tls::Off) => Some(vec![80]),
            None => Some(vec![443]),
        }
    }

    fn range_rule(&mut self, fields: Fields<'_>, node: &Node) -> Option<RangeRule> {
        const PROTOCOLS: [(&str, Protocol); 2] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
        self.meaningless(
            fields,
            &[
                "methods",
                "paths",
                "tls",
                "private",
                "kind",
                "upgrade",
                "addresses",
                "credential",
            ],
            "`cidr`",
        );
        let net = self.reader.parsed(node, "a network", Cidr::parse);
        let ports = self
            .reader
            .required(fields, "ports", "an entry with `cidr`")
            .map(|node| self.ports(node));
        let protocol = fields.get("protocol").map_or(Some(Protocol::Tcp), |node| {
            self.reader.choice(node, &PROTOCOLS, &[])
        });
        Some(RangeRule {
            net: net?,
            ports: ports?,
            protocol: protocol?,
        })
    }

    /// A control that is written and does nothing is a fault.
    pub(super) fn meaningless(&mut self, fields: Fields<'_>, keys: &[&str], beside: &str) {
        for key in keys {
            if let Some(node) = fields.get(key) {
                self.reader
                    .fault(node.span, format!("`{key}` has no meaning beside {beside}"));
            }
        }
    }

    fn ports(&mut self, node: &Node) -> Vec<u16> {
        let mut ports = Vec::new();
        let items = self.reader.list(node, "ports").unwrap_or_default();
        if items.is_empty() || items.len() > PORTS_MAX {
            self.reader.fault(
                node.span,
                format!("expected 1 to {PORTS_MAX} ports, found {}", items.len()),
            );
        }
        for item in items {
            let port = self.reader.integer(item, "a port", 1..=65535);
            let port = port.and_then(|port| u16::try_from(port).ok());
            if port.is_some_and(|port| ports.contains(&port)) {
                self.reader.fault(item.span, "the port stands here twice");
            }
            ports.extend(port);
        }
        ports.sort_unstable();
        ports
    }

    /// A list that narrows; empty it would allow nothing.
    pub(super) fn patterns<T, E: std::fmt::Display>(
        &mut self,
        fields: Fields<'_>,
        key: &str,
        what: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let Some(node) = fields.get(key) else {
            return Vec::new();
        };
        let Some(items) = self.reader.list(node, key) else {
            return Vec::new();
        };
        if items.is_empty() {
            self.reader.fault(
                node.span,
                format!("an empty `{key}` would allow nothing; leave it out to allow all"),
            );
        }
        items
            .iter()
            .filter_map(|item| self.reader.parsed(item, what, &parse))
            .collect()
    }

    /// A connection is treated in one way: entries for the same host and port must agree on it.
    pub(super) fn check_agreement(&mut self, rules: &[(Span, EgressRule)]) {
        let hosts: Vec<(Span, &HostRule)> = rules
            .iter()
            .filter_map(|(span, rule)| Some((*span, rule.host()?)))
            .collect();
        let mut sorted = hosts;
        sorted.sort_by(|(_, left), (_, right)| left.host.cmp(&right.host));
        for group in sorted.chunk_by(|(_, left), (_, right)| left.host == right.host) {
            let mut seen: Vec<(u16, Span, &HostRule)> = Vec::new();
            for (span, rule) in group {
                for port in &rule.ports {
                    let earlier = seen.iter().find(|(other, _, _)| other == port);
                    let Some((_, first, other)) = earlier else {
                        seen.push((*port, *span, rule));
                        continue;
                    };
                    if let Some(key) = disagreement(rule, other) {
                        let message = format!(
                            "`{}` port {port}: `{key}` differs from the entry in line {}",
                            rule.host, first.line
                        );
                        self.reader.fault(*span, message);
                        break;
                    }
                }
            }
        }
    }
}

/// The first key on which two entries for one connection differ.
fn disagreement(left: &HostRule, right: &HostRule) -> Option<&'static str> {
    [
        ("protocol", left.wire != right.wire),
        ("tls", left.tls != right.tls),
        ("private", left.private != right.private),
        ("addresses", left.synthetic != right.synthetic),
        ("kind", left.kind != right.kind),
    ]
    .into_iter()
    .find_map(|(key, differs)| differs.then_some(key))
}
