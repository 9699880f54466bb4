//! Callers that are known by their client certificates: decided, recorded, refused, and looked at again as they stay.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::authority::{Authority, Leaf};
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::Daemon;
use exeat_tests::lab::WORLD;
use exeat_tests::stdio::Session;
use exeat_tests::upstream::Upstream;
use exeat_tests::wait::{wait_for, wait_until};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::place::LIMIT;
use crate::serving::{Told, curl};

const NAME: &str = "mcp.lab.example";
const BOT: &str = "spiffe://corp.example/agents/bot";
const CLIENT: &str = include_str!("clients/certified.py");

/// A managed host, the registered server that it may reach, and the authorities of clients.
struct Site<'lab> {
    lab: &'lab Lab,
    host: Cgroup,
    upstream: Upstream,
    corp: Authority,
}

impl<'lab> Site<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        let corp = Authority::new("corp clients").unwrap();
        fs::write(lab.directory().join("corp.pem"), corp.pem()).unwrap();
        Self {
            host: Cgroup::create(&format!("{}-host", lab.name())).unwrap(),
            upstream: lab.https(&[NAME], (WORLD, 443).into()).unwrap(),
            corp,
            lab,
        }
    }

    /// A policy with these identities and rules. The host's clients have pipes at both ends, like servers.
    fn policy(&self, identities: &str, rules: &str) -> String {
        let cgroup = self.host.path().file_name().unwrap().to_str().unwrap();
        format!(
            "version: 1
servers: {{ remote: {{ purpose: test, owner: lab, url: \"https://{NAME}/mcp\" }} }}
hosts: {{ agent: {{ match: {{ cgroup: /{cgroup} }}, servers: [remote], unregistered: allow }} }}
identities: {{ {identities} }}
rules: [{rules}]
"
        )
    }

    async fn daemon(&self, policy: &str) -> Daemon<'lab> {
        let directory = self.lab.directory().display();
        let settings = format!(
            "tls: {{ extra_roots: [{directory}/world-ca.pem], \
             client_authorities: [{{ name: corp, roots: {directory}/corp.pem }}] }}"
        );
        self.lab.daemon_with(policy, &settings).await.unwrap()
    }

    /// Where a certificate and its key are, without `.pem` and `.key`.
    fn put(&self, name: &str, leaf: &Leaf) -> PathBuf {
        leaf.write(self.lab.directory(), name).unwrap();
        self.lab.directory().join(name)
    }

    fn bot(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let leaf = self.corp.client_leaf(|params| {
            params.subject_alt_names = vec![uri(BOT)];
            change(params);
        });
        leaf.unwrap()
    }

    /// A call of `tool` by curl, with this certificate.
    async fn call(&self, tool: &str, certificate: Option<&str>, options: &[&str]) -> Told {
        let message = message(tool);
        let url = format!("https://{NAME}/mcp");
        let at = |kind: &str| {
            let name = certificate.unwrap_or_default();
            let path = self.lab.directory().join(format!("{name}.{kind}"));
            path.to_str().unwrap().to_owned()
        };
        let (cert, key) = (at("pem"), at("key"));
        let mut arguments = vec![
            "--header",
            "content-type: application/json",
            "--header",
            "accept: application/json, text/event-stream",
            "--data",
            &message,
            &url,
        ];
        arguments.extend_from_slice(options);
        if certificate.is_some() {
            arguments.extend(["--cert", &cert, "--key", &key]);
        }
        curl(self.host.launcher(self.lab.direct()), &arguments).await
    }

    /// A client that keeps its connection.
    fn client(&self, name: &str, certificate: Option<&PathBuf>, version: &str) -> Client {
        let mut command = self.host.launcher(self.lab.direct());
        let trust = self.lab.directory().join("state/ca.pem");
        command.args(["/usr/bin/python3", "-c", CLIENT, NAME]);
        command
            .arg(trust)
            .arg(certificate.map_or_else(PathBuf::new, Clone::clone))
            .arg(version);
        let log = self.lab.directory().join(format!("{name}.log"));
        Client(Session::start(command, &log).unwrap())
    }
}

struct Client(Session);

impl Client {
    async fn say(&mut self, line: &str) -> Value {
        self.0.raw(format!("{line}\n").as_bytes()).await.unwrap();
        let told = self.0.line().await.unwrap().expect("the client lives");
        serde_json::from_str(&told).unwrap()
    }

    async fn call(&mut self) -> Value {
        self.say(&message("work")).await
    }

    /// Calls until the answer, or what stands in its place, holds `what`.
    async fn until(&mut self, what: &str) {
        let mut last = Value::Null;
        let found = wait_for("the answer", LIMIT, async || {
            last = self.call().await;
            last.to_string().contains(what).then_some(())
        });
        assert!(found.await.is_ok(), "{what}: {last}");
    }
}

fn message(tool: &str) -> String {
    let params = json!({ "name": tool, "arguments": {} });
    json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params }).to_string()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

const IDENTITIES: &str = "
  bot: { certificate: { authority: corp, uri: \"spiffe://corp.example/agents/*\" } },
  ann: { certificate: { authority: corp, email: ann@corp.example } },
  build: { certificate: { authority: corp, dns: \"build-*.corp.example\" } },
  legacy: { certificate: { authority: corp, common_name: \"legacy app\" } }";
const RULES: &str = "
  { id: by-bot, who: [bot], servers: [remote], tools: [work], effect: allow },
  { id: by-ann, who: [ann], servers: [remote], tools: [review], effect: allow },
  { id: by-build, who: [build], servers: [remote], tools: [build], effect: allow },
  { id: by-legacy, who: [legacy], servers: [remote], tools: [old], effect: allow }";

/// The ways to speak of one client: versions of TLS and of HTTP.
const WAYS: [&[&str]; 3] = [
    &["--tlsv1.2", "--tls-max", "1.2", "--http1.1"],
    &["--tlsv1.3", "--http1.1"],
    &["--tlsv1.3", "--http2"],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_are_verified_decided_and_recorded() {
    let lab = Lab::new().unwrap();
    let site = Site::new(&lab);
    let daemon = site.daemon(&site.policy(IDENTITIES, RULES)).await;
    let bot = site.bot(|_| {});
    site.put("bot", &bot);
    let named = |names: Vec<SanType>, common: &str| {
        let leaf = site.corp.client_leaf(|params| {
            params.subject_alt_names = names;
            params.distinguished_name.push(DnType::CommonName, common);
        });
        leaf.unwrap()
    };
    let email = SanType::Rfc822Name("ann@corp.example".try_into().unwrap());
    site.put("ann", &named(vec![email], "Ann"));
    let dns = SanType::DnsName("Build-7.corp.example".try_into().unwrap());
    site.put("build", &named(vec![dns], "x"));
    site.put("legacy", &named(Vec::new(), "legacy app"));
    site.put("other", &named(vec![uri("spiffe://corp.example/web")], "x"));

    for way in WAYS {
        // Whoever shows nothing is the host alone, which may reach the server and call nothing.
        let told = site.call("work", None, way).await;
        assert!(told.body.contains("Unknown tool"), "{way:?} {told:?}");
        for (tool, certificate) in [
            ("work", "bot"),
            ("review", "ann"),
            ("build", "build"),
            ("old", "legacy"),
        ] {
            let told = site.call(tool, Some(certificate), way).await;
            assert!(
                told.body.contains("result"),
                "{way:?} {certificate} {told:?}"
            );
        }
        for (tool, certificate) in [("review", "bot"), ("work", "ann"), ("work", "other")] {
            let told = site.call(tool, Some(certificate), way).await;
            assert!(told.body.contains("Unknown tool"), "{way:?} {told:?}");
        }
    }
    assert_eq!(site.upstream.seen().len(), 4 * WAYS.len());

    let of = async |subject: &str| {
        let by = |record: &Value| record["identity"]["subject"] == subject;
        daemon.record("a call by certificate", by).await.unwrap()
    };
    let called = of(BOT).await;
    assert_eq!(called["identity"]["name"], "bot", "{called}");
    assert_eq!(called["identity"]["verified_by"], "certificate", "{called}");
    assert_eq!(called["identity"]["issuer"], "corp", "{called}");
    assert_eq!(called["workload"]["name"], "agent", "{called}");
    assert_eq!(called["decision"]["rule"], "by-bot", "{called}");
    let certificate = &called["identity"]["certificate"];
    assert_eq!(certificate["subject"], BOT, "{called}");
    assert_eq!(certificate["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(of("CN=legacy app").await["identity"]["name"], "legacy");
    // Known to be somebody, and nobody whom policy knows.
    let unknown = of("spiffe://corp.example/web").await;
    assert_eq!(unknown["identity"]["name"], "", "{unknown}");
    assert_eq!(unknown["decision"]["effect"], "deny", "{unknown}");

    // No certificate or key is in the log.
    let secret = |pem: &str| pem.lines().nth(1).unwrap().to_owned();
    let records = serde_json::to_string(&daemon.audit().unwrap()).unwrap();
    for text in [&bot.key_pem, &bot.certificate_pem] {
        assert!(!records.contains(&secret(text)) && !daemon.log().contains(&secret(text)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_certificate_is_a_refusal() {
    let lab = Lab::new().unwrap();
    let site = Site::new(&lab);
    let everybody = "{ id: all, servers: [remote], tools: [work], effect: allow }";
    let daemon = site.daemon(&site.policy(IDENTITIES, everybody)).await;
    let twin = Authority::new("corp clients").unwrap();
    let bot = |params: &mut CertificateParams| params.subject_alt_names = vec![uri(BOT)];
    let over = |params: &mut CertificateParams| params.not_after = date_time_ymd(2021, 1, 1);
    let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(2047, 1, 1);
    let server = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let nul = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![uri(&format!("{BOT}\0.evil"))];
    };
    let nobody = |params: &mut CertificateParams| params.subject_alt_names = Vec::new();
    let unknown = "a client certificate of no authority in `tls.client_authorities`";
    let bad = "a client certificate with a wrong signature";
    for (name, leaf, why) in [
        (
            "over",
            site.bot(over),
            "a client certificate that has expired",
        ),
        (
            "early",
            site.bot(early),
            "a client certificate that is not valid yet",
        ),
        ("alone", Authority::lone_leaf(bot).unwrap(), unknown),
        ("twin", twin.client_leaf(bot).unwrap(), bad),
        (
            "server",
            site.bot(server),
            "a client certificate that is not for clients",
        ),
        (
            "nul",
            site.bot(nul),
            "a client certificate with a name that is not plain text",
        ),
        (
            "nobody",
            site.bot(nobody),
            "a client certificate that names nobody",
        ),
    ] {
        site.put(name, &leaf);
        for way in WAYS {
            // Not even what everybody may.
            let told = site.call("work", Some(name), way).await;
            assert_eq!(told.status, "403", "{name} {way:?} {told:?}");
            assert!(
                told.body.contains(r#""code":"invalid_certificate""#),
                "{name} {told:?}"
            );
        }
        let by = |record: &Value| record["decision"]["reason"] == why;
        let refused = daemon.record(why, by).await.unwrap();
        assert_eq!(refused["decision"]["effect"], "deny", "{refused}");
        assert_eq!(refused["identity"]["verified_by"], "kernel", "{refused}");
    }
    assert_eq!(site.upstream.seen().len(), 0);
    let told = site.call("work", None, &[]).await;
    assert!(told.body.contains("result"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_looked_at_again_on_a_living_connection() {
    let lab = Lab::new().unwrap();
    let site = Site::new(&lab);
    let allowed = site.policy(IDENTITIES, RULES);
    let daemon = site.daemon(&allowed).await;
    let long = site.put("long", &site.bot(|_| {}));
    for version in ["TLSv1_2", "TLSv1_3"] {
        let mut client = site.client(version, Some(&long), version);
        let told = client.call().await;
        assert_eq!(told["status"], 200, "{told}");
        // No session is resumed: each connection proves that it has the key.
        let told = client.say("resume").await;
        assert_eq!(told["reused"], false, "{told}");

        // Another authority of the same name.
        let file = lab.directory().join("corp.pem");
        fs::write(&file, Authority::new("corp clients").unwrap().pem()).unwrap();
        daemon.reload().unwrap();
        client.until("invalid_certificate").await;
        // One that is none changes nothing.
        fs::write(&file, "rubbish").unwrap();
        daemon.reload().unwrap();
        let by = |record: &Value| record["finding"]["what"] == "client_authorities_refused";
        daemon.record("a finding", by).await.unwrap();
        client.until("invalid_certificate").await;
        fs::write(&file, site.corp.pem()).unwrap();
        daemon.reload().unwrap();
        client.until("result").await;

        // Another policy.
        let others = RULES.replace("who: [bot]", "who: [ann]");
        daemon
            .replace_policy(&site.policy(IDENTITIES, &others))
            .unwrap();
        client.until("Unknown tool").await;
        daemon.replace_policy(&allowed).unwrap();
        client.until("result").await;
    }
    // Its own time.
    let now = u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap();
    let short = site.bot(|params| {
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now + 15);
    });
    let short = site.put("short", &short);
    let mut client = site.client("short", Some(&short), "TLSv1_3");
    client.until("result").await;
    client.until("invalid_certificate").await;
    // That may have been one under way.
    client.until("invalid_certificate").await;
    let why = "a client certificate that has expired";
    let by = |record: &Value| record["decision"]["reason"] == why;
    daemon.record(why, by).await.unwrap();
}

/// What a certificate began must not outlast it, nor the authority that vouched for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_certificate_began_ends_with_it() {
    let lab = Lab::new().unwrap();
    let site = Site::new(&lab);
    let policy = site.policy(IDENTITIES, RULES);
    let daemon = site.daemon(&policy.replace("/mcp\"", "/\"")).await;
    let now = u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap();
    let short = site.bot(|params| {
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now + 15);
    });
    site.put("short", &short);
    site.put("long", &site.bot(|_| {}));
    let slow = format!("https://{NAME}/slow?ms=60000");
    let message = message("work");
    let asked = async |name: &str| {
        let at = |kind: &str| lab.directory().join(format!("{name}.{kind}"));
        let (cert, key) = (at("pem"), at("key"));
        let mut arguments = vec![
            "--header",
            "content-type: application/json",
            "--data",
            &message,
        ];
        arguments.extend([
            "--cert",
            cert.to_str().unwrap(),
            "--key",
            key.to_str().unwrap(),
        ]);
        arguments.push(&slow);
        curl(site.host.launcher(lab.direct()), &arguments).await
    };
    let withdrawn = async {
        wait_until("both wait for their answers", LIMIT, || {
            site.upstream.seen().len() == 2
        })
        .await
        .unwrap();
        let other = Authority::new("corp clients").unwrap();
        fs::write(lab.directory().join("corp.pem"), other.pem()).unwrap();
        daemon.reload().unwrap();
    };
    let (expired, unvouched, ()) = tokio::join!(asked("short"), asked("long"), withdrawn);
    for told in [expired, unvouched] {
        assert_eq!(told.status, "403", "{told:?}");
        assert!(told.body.contains("invalid_certificate"), "{told:?}");
    }
    let why = "the client certificate that authorised it ceased to count while it was answered";
    wait_until("two records say so", LIMIT, || {
        let records = daemon.audit().unwrap();
        let told = |record: &&Value| record["decision"]["reason"] == why;
        records.iter().filter(told).count() == 2
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_asked_for_certificates_as_policy_begins_to_want_them() {
    let lab = Lab::new().unwrap();
    let site = Site::new(&lab);
    let nobody = site.policy("x: { user: x }", "");
    let daemon = site.daemon(&nobody).await;
    let bot = site.put("bot", &site.bot(|_| {}));
    let mut client = site.client("before", Some(&bot), "TLSv1_3");
    client.until("Unknown tool").await;
    // Whoever was not asked is let go, and asked when it comes back.
    daemon
        .replace_policy(&site.policy(IDENTITIES, RULES))
        .unwrap();
    client.until("\"error\":\"").await;
    let mut client = site.client("after", Some(&bot), "TLSv1_3");
    client.until("result").await;
    // Where nobody is known by one any more, what is shown says nothing, and is not looked at.
    daemon.replace_policy(&nobody).unwrap();
    client.until("Unknown tool").await;
}
