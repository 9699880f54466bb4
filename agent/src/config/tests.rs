//! The configuration: what is read, what is refused and where.

use std::fs;
use std::path::Path;

use exeat_policy::Source;

use super::*;

const EVERYTHING: &str = r#"
version: 1
policy: /srv/policy.yaml
state_dir: /srv/state
run_dir: /srv/run
bpffs: /sys/fs/bpf/other
cgroup: exeat-2
gate: { user: 990 }
docker: { data_root: /srv/docker }
listeners: { proxy_port: 15001, dns_port: 15053 }
dns: { upstream: [9.9.9.9, "[2620:fe::fe]:5353", "10.0.0.1:53"] }
tls:
  extra_roots: [/etc/ssl/corp.pem]
  client_certificates: [{ host: api.example.com, cert: /c.pem, key: /k.pem }]
  client_authorities: [{ name: corp, roots: /clients.pem }]
issuers: [{ issuer: "https://a.example", audience: mcp, jwks: { file: /a.json }, algorithms: [ES256], leeway: 0s }]
approvals: { listen: "127.0.0.1:8377", console_url: "https://exeat.example", secret_file: /k, webhooks: [{ approver: dana, url_file: /u }] }
upstream_proxy: { url: "http://proxy.example:3128/", username: exeat, password_file: /p }
audit: { sync: 0ms, segment_bytes: 1048576 }
limits:
  body_bytes: 1048576
  header_bytes: 16384
  held_bytes: 33554432
  header_deadline: 5s
  connect_deadline: 500ms
  idle_deadline: 1h
  fetch_deadline: 90s
  connections_per_workload: 8
shutdown: 2m
"#;

fn from(text: &str) -> Result<Config, Vec<String>> {
    let source = Source {
        name: "exeat.yaml".into(),
        text: text.into(),
    };
    parse(&source).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn every_setting_is_read_and_no_default_is_left() {
    let config = from(EVERYTHING).unwrap();
    let default = Config::default();
    let (config_json, default_json) = (
        serde_json::to_value(&config).unwrap(),
        serde_json::to_value(&default).unwrap(),
    );
    for (key, value) in config_json.as_object().unwrap() {
        assert_ne!(value, &default_json[key], "{key}");
    }
    assert_eq!(config.gate.user, "990");
    assert_eq!(config.limits.connect_deadline, Duration::from_millis(500));
    assert_eq!(
        config.upstream_proxy.unwrap().url,
        "http://proxy.example:3128"
    );
    let DnsUpstream::Servers(servers) = config.dns.upstream else {
        panic!("servers")
    };
    assert_eq!(servers[1], "[2620:fe::fe]:5353".parse().unwrap());
    assert_eq!(servers[0].port(), 53);
}

#[test]
fn a_file_with_the_version_alone_means_the_defaults() {
    assert_eq!(from("version: 1\n").unwrap(), Config::default());
}

#[test]
fn every_fault_is_told_at_once_with_its_place() {
    let faults = from(
        "version: 2\npolicy: relative\ngate: { user: root }\nlisteners: { proxy_port: 70000 }\n\
         shutdwon: 1s\naudit: { sync: 20 ms }\ndns: { upstream: [] }\n\
         upstream_proxy: { url: \"https://u:p@x\", password_file: /p }\ncgroup: ../x\n",
    )
    .unwrap_err();
    for start in [
        "exeat.yaml:1:10: ",
        "exeat.yaml:2:9: ",
        "exeat.yaml:3:15: ",
        "exeat.yaml:4:26: ",
        "exeat.yaml:5:1: unknown key `shutdwon`",
        "exeat.yaml:6:16: ",
        "exeat.yaml:7:18: ",
        "exeat.yaml:8:24: ",
        "exeat.yaml:9:9: ",
    ] {
        assert!(
            faults.iter().any(|fault| fault.starts_with(start)),
            "{start} in {faults:#?}"
        );
    }
}

#[test]
fn what_is_held_has_room_for_the_largest_body() {
    let with = |limits: &str| from(&format!("version: 1\nlimits: {{ {limits} }}\n"));
    let config = with("body_bytes: 2048, held_bytes: 2048").unwrap();
    assert_eq!(config.limits.held_bytes, 2048);
    for (limits, place) in [
        ("body_bytes: 2049, held_bytes: 2048", "exeat.yaml:2:41: "),
        ("held_bytes: 2048", "exeat.yaml:2:23: "),
        ("body_bytes: 134217729", "exeat.yaml:2:23: "),
    ] {
        let faults = with(limits).unwrap_err().join("\n");
        assert!(faults.starts_with(place), "{limits}: {faults}");
        assert!(faults.contains("no room for a body"), "{limits}: {faults}");
    }
}

#[test]
fn client_authorities_are_read_strictly() {
    let with = |authorities: &str| {
        from(&format!(
            "version: 1\ntls: {{ client_authorities: {authorities} }}\n"
        ))
    };
    let one = "{ name: corp, roots: /a.pem }";
    let config = with(&format!("[{one}]")).unwrap();
    let [authority] = &*config.tls.client_authorities else {
        panic!("one is there");
    };
    assert_eq!(authority.name, "corp");
    assert_eq!(authority.roots, Path::new("/a.pem"));
    for (authorities, fault) in [
        (format!("[{one}, {one}]"), "stands here twice"),
        ("[{ name: corp }]".to_owned(), "`roots` is missing"),
        ("[{ roots: /a.pem }]".to_owned(), "`name` is missing"),
        ("[{ name: corp, roots: a.pem }]".to_owned(), "absolute"),
        (
            "[{ name: corp, file: /a }]".to_owned(),
            "unknown key `file`",
        ),
    ] {
        let faults = with(&authorities).unwrap_err().join("\n");
        assert!(faults.contains(fault), "{authorities}: {faults}");
    }
}

#[test]
fn issuers_are_read_strictly() {
    let with = |issuers: &str| from(&format!("version: 1\nissuers: {issuers}\n"));
    let one = r#"{ issuer: "https://a.example", audience: [mcp, other], jwks: { file: /a.json } }"#;
    let config = with(&format!("[{one}]")).unwrap();
    assert_eq!(config.issuers[0].audience, ["mcp", "other"]);
    assert_eq!(config.issuers[0].algorithms, TokenAlgorithm::ALL);
    for (issuers, fault) in [
        (format!("[{one}, {one}]"), "stands here twice"),
        (one.replace("[mcp, other]", "[]"), "at least one audience"),
        (one.replace("audience: [mcp, other], ", ""), "audience"),
        (one.replace("/a.json", "a.json"), "an absolute path"),
        (one.replace("mcp, other", "mcp, 7"), "an audience"),
        (
            one.replace("jwks", "algorithms: [], jwks"),
            "at least one algorithm",
        ),
        (one.replace("jwks", "algorithms: [HS256], jwks"), "HS256"),
        (one.replace("jwks", "algorithms: [none], jwks"), "none"),
        (one.replace("jwks", "leeway: 10m, jwks"), "300000 ms"),
        (one.replace("issuer:", "isuer:"), "isuer"),
    ] {
        let text = if issuers.starts_with('[') {
            issuers
        } else {
            format!("[{issuers}]")
        };
        let faults = with(&text).unwrap_err();
        assert!(
            faults.iter().any(|found| found.contains(fault)),
            "{text}: {faults:#?}"
        );
    }
}

#[test]
fn keys_are_fetched_where_no_file_has_them() {
    let with = |issuer: &str| from(&format!("version: 1\nissuers: [{{ {issuer} }}]\n"));
    let found = with(r#"issuer: "https://a.example/t", audience: mcp, refresh: 2h"#).unwrap();
    let issuer = &found.issuers[0];
    assert!(matches!(&issuer.jwks, KeySource::Discovered(url) if url.path() == "/t"));
    assert_eq!(issuer.max_age, Duration::from_hours(2));
    let url = r#"issuer: a, audience: mcp, jwks: { url: "https://a.example/k" }, private: true, max_age: 5m"#;
    let found = with(url).unwrap();
    assert!(matches!(&found.issuers[0].jwks, KeySource::Url(url) if url.path() == "/k"));
    assert!(found.issuers[0].private);
    let again = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&again).unwrap(), found);
    for (issuer, fault) in [
        ("issuer: a, audience: mcp".to_owned(), "no `jwks` says"),
        (
            r#"issuer: "https://a.example/?x", audience: mcp"#.to_owned(),
            "without a query",
        ),
        (url.replace("https:", "http:"), "https://"),
        (url.replace("a.example", "127.0.0.1"), "addresses"),
        (
            url.replace("{ url", "{ file: /k, url"),
            "either `file` or `url`",
        ),
        (
            url.replace("url: \"https://a.example", "file: \""),
            "no meaning",
        ),
        (url.replace("5m", "4m"), "shorter than `refresh`"),
        (
            url.replace("private: true", "private: yes"),
            "`true` or `false`",
        ),
    ] {
        let faults = with(&issuer).unwrap_err();
        assert!(
            faults.iter().any(|found| found.contains(fault)),
            "{issuer}: {faults:#?}"
        );
    }
}

#[test]
fn what_is_no_configuration_is_refused() {
    for text in [
        "",
        "[]",
        "version: one",
        "policy: /x\n",
        "version: 1\nversion: 1\n",
        "a: &b 1\n",
    ] {
        from(text).unwrap_err();
    }
}

#[test]
fn an_absent_file_is_an_error_only_where_it_was_named() {
    let missing = Path::new("/nonexistent/exeat.yaml");
    assert!(matches!(load(Some(missing)), Err(ConfigError::Read { .. })));
}

#[test]
fn the_reference_page_is_the_one_in_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    if std::env::var_os("EXEAT_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, page()).unwrap();
    }
    assert_eq!(
        fs::read_to_string(path).unwrap(),
        page(),
        "run with EXEAT_BLESS=1 to write it"
    );
}

/// Every leaf of the configuration stands in the reference, and the reference names no other.
#[test]
fn the_reference_names_every_setting() {
    let mut config = from(EVERYTHING).unwrap();
    config.dns.upstream = DnsUpstream::Servers(Vec::new());
    let mut expected = vec!["version".to_owned()];
    let value = serde_json::to_value(&config).unwrap();
    for (key, value) in value.as_object().unwrap() {
        if let Some(first) = value.get(0).filter(|_| key == "issuers") {
            let fields = first.as_object().unwrap().keys();
            expected.extend(fields.map(|name| format!("{key}[].{name}")));
        }
        match value.as_object().filter(|_| key != "shutdown") {
            Some(section) => expected.extend(section.keys().map(|name| format!("{key}.{name}"))),
            None => expected.push(key.clone()),
        }
    }
    // One list deeper, and of two ways to say the same.
    expected.push("approvals".to_owned());
    let webhook = ["approver", "url", "url_file", "private"];
    expected.extend(webhook.map(|name| format!("approvals.webhooks[].{name}")));
    expected.sort();
    let page = page();
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut found: Vec<_> = rows.map(str::to_owned).collect();
    found.sort();
    assert_eq!(found, expected);
}
