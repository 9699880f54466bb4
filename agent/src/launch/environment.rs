//! What a server finds in its environment: a small base, what policy gives, and Exeat's trust.

use std::path::Path;

use super::stage::Trust;

/// Every variable by which a runtime is told where its roots are, and takes them from a file that
/// holds the whole bundle.
pub(crate) const TRUST: [&str; 9] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
];

/// Options that every Java machine reads, whoever starts it. It says so on its standard error.
pub(crate) const JAVA: &str = "JAVA_TOOL_OPTIONS";

/// Variables that send a program's traffic elsewhere; without the last letter's case.
const PROXY: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "ftp_proxy",
    "no_proxy",
    "socks_proxy",
];

/// Where a server's program is looked for, and what it finds as `PATH`, unless policy gives another.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What the base is made of.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// The account's name.
    pub user: &'a str,
    /// Its home; `/` where it has none.
    pub home: &'a Path,
    /// `TERM` of the caller's terminal, where there is one.
    pub terminal: Option<&'a str>,
    /// The daemon's own `LANG`.
    pub language: Option<&'a str>,
}

/// The whole environment, sorted by name. What policy gives comes before the base; trust comes
/// before both, because a server that looks elsewhere only fails; proxy variables go, because the
/// kernel already sends everything through the gate.
pub fn environment(
    base: Base<'_>,
    policy: impl IntoIterator<Item = (String, String)>,
    trust: &Trust,
) -> Vec<(String, String)> {
    let mut variables = std::collections::BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        variables.insert(name.to_owned(), value.to_owned());
    };
    set("PATH", PATH);
    set("HOME", &base.home.to_string_lossy());
    set("USER", base.user);
    set("LOGNAME", base.user);
    set("LANG", base.language.unwrap_or("C.UTF-8"));
    if let Some(terminal) = base.terminal {
        set("TERM", terminal);
    }
    for (name, value) in policy {
        set(&name, &value);
    }
    for name in TRUST {
        set(name, &trust.bundle.to_string_lossy());
    }
    // Of two values of one property the last counts. No password: the certificates are no secret.
    let store = format!(
        "\"-Djavax.net.ssl.trustStore={}\" -Djavax.net.ssl.trustStoreType=JKS",
        trust.java.display()
    );
    let java = match variables.remove(JAVA) {
        Some(own) => format!("{own} {store}"),
        None => store,
    };
    variables.insert(JAVA.to_owned(), java);
    variables.retain(|name, _| !PROXY.contains(&name.to_ascii_lowercase().as_str()));
    variables.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(policy: &[(&str, &str)]) -> Vec<(String, String)> {
        let base = Base {
            user: "mcp",
            home: Path::new("/home/mcp"),
            terminal: None,
            language: None,
        };
        let policy = policy
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let trust = Trust {
            bundle: "/run/exeat/trust/ca-bundle.pem".into(),
            java: "/run/exeat/trust/java.jks".into(),
            covers: Vec::new(),
        };
        environment(base, policy, &trust)
    }

    fn get<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
        variables
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    #[test]
    fn trust_is_set_whatever_policy_says() {
        let variables = of(&[("SSL_CERT_FILE", "/tmp/mine"), ("LANG", "de_DE.UTF-8")]);
        for name in TRUST {
            assert_eq!(
                get(&variables, name),
                Some("/run/exeat/trust/ca-bundle.pem"),
                "{name}"
            );
        }
        assert_eq!(get(&variables, "LANG"), Some("de_DE.UTF-8"));
        assert_eq!(get(&variables, "HOME"), Some("/home/mcp"));
    }

    #[test]
    fn proxy_variables_go_in_every_case() {
        let variables = of(&[
            ("HTTP_PROXY", "x"),
            ("http_proxy", "x"),
            ("Https_Proxy", "x"),
            ("NO_PROXY", "*"),
        ]);
        assert!(
            variables
                .iter()
                .all(|(name, _)| !name.to_lowercase().ends_with("_proxy"))
        );
    }

    #[test]
    fn nothing_of_the_daemons_own_environment_is_there() {
        assert_eq!(of(&[]).len(), TRUST.len() + 6);
    }

    #[test]
    fn java_keeps_its_options_and_gets_one_store() {
        let ours = "\"-Djavax.net.ssl.trustStore=/run/exeat/trust/java.jks\" \
                    -Djavax.net.ssl.trustStoreType=JKS";
        assert_eq!(get(&of(&[]), JAVA), Some(ours));
        let mine = "-Xmx1g -Djavax.net.ssl.trustStore=/tmp/mine";
        let variables = of(&[(JAVA, mine)]);
        assert_eq!(get(&variables, JAVA), Some(&*format!("{mine} {ours}")));
    }
}
