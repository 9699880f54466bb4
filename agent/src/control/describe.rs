//! Entries of the policy, in a line each.

use exeat_policy::EgressRule;

/// One egress entry in a line.
pub fn egress(rule: &EgressRule) -> String {
    match rule {
        EgressRule::Host(rule) => {
            let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
            let methods = if rule.methods.is_empty() {
                String::new()
            } else {
                format!("{} ", rule.methods.join(","))
            };
            let paths: Vec<&str> = rule
                .paths
                .iter()
                .map(exeat_policy::PathGlob::as_str)
                .collect();
            format!(
                "{methods}{}:{} {}",
                rule.host,
                ports.join(","),
                paths.join(" ")
            )
            .trim_end()
            .to_owned()
        }
        EgressRule::Range(rule) => {
            let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
            format!("{}:{} {}", rule.net, ports.join(","), rule.protocol)
        }
    }
}
