//! Runtimes that bring their own resolver, TLS or trust: musl, dig, Go and Java, each from Debian's packages.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::lab::{WORLD, WORLD_OTHER, WORLD_V6};
use exeat_tests::process::{must, run};

use crate::place::{LIMIT, exchange, managed, policy};

const NAME: &str = "api.lab.example";
const ENTRY: &str = "{ host: api.lab.example, methods: [GET], paths: [/echo] }";

/// Writes a program's source into the lab.
fn source(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.directory().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Looks `names` up with musl, in a managed process whose resolv.conf says `options`; one line for each.
async fn musl(lab: &Lab, cgroup: &Cgroup, options: &str, names: &[&str]) -> Vec<String> {
    let resolv = format!("nameserver 93.184.215.53\n{options}\n");
    fs::write(lab.directory().join("resolv.conf"), resolv).unwrap();
    let mut command = cgroup.launcher(lab.direct());
    command.arg(lab.directory().join("resolve")).args(names);
    let done = run(&mut command, LIMIT).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    done.stdout.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn musl_finds_names_by_its_search_list() {
    let lab = Lab::new().unwrap();
    lab.dns.points(NAME, &[WORLD]);
    lab.dns.points("both.lab.example", &[WORLD_OTHER, WORLD_V6]);
    lab.dns.points("evil.lab.example", &[WORLD]);
    let code = source(&lab, "resolve.c", include_str!("clients/resolve.c"));
    let program = lab.directory().join("resolve");
    let (code, program) = (code.to_str().unwrap(), program.to_str().unwrap());
    must("musl-gcc", &["-static", "-o", program, code]).unwrap();
    let name = format!("{}host", lab.name());
    let cgroup = Cgroup::create(&name).unwrap();
    let policy = format!(
        "version: 1
hosts:
  agent:
    match: {{ cgroup: /{name} }}
    egress: [{{ host: {NAME} }}, {{ host: both.lab.example }}]
"
    );
    let daemon = lab.daemon(&policy).await.unwrap();
    let v4 = |name: &str| format!("{name}: {WORLD}");
    let none = |name: &str| format!("{name}: Name does not resolve");

    // The first domain of the list does not have it, and the answer that says so must send musl on.
    let got = musl(
        &lab,
        &cgroup,
        "search corp.example lab.example",
        &["api", NAME, "api.lab.example.", "evil", "nowhere"],
    )
    .await;
    let wanted = [
        v4("api"),
        v4(NAME),
        v4("api.lab.example."),
        none("evil"),
        none("nowhere"),
    ];
    assert_eq!(got, wanted);
    // As in clusters: every name is tried under each domain first.
    let got = musl(
        &lab,
        &cgroup,
        "search a.svc.cluster.example svc.cluster.example cluster.example\noptions ndots:5",
        &[NAME, "both.lab.example", "evil.lab.example"],
    )
    .await;
    assert_eq!(got[0], v4(NAME));
    let both = &got[1];
    assert!(
        both.contains(&WORLD_OTHER.to_string()) && both.contains(&WORLD_V6.to_string()),
        "{both}"
    );
    assert_eq!(got[2], none("evil.lab.example"));
    // What was tried on the way was nobody's business.
    let asked = lab.dns.asked();
    let allowed = [NAME, "both.lab.example"];
    assert!(
        asked.iter().all(|asked| allowed.contains(&&*asked.name)),
        "{asked:?}"
    );
    daemon
        .record("a name of the search list", |record| {
            record["dns"]["name"] == "api.corp.example" && record["decision"]["effect"] == "deny"
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dig_is_told_addresses_and_nothing_else() {
    let lab = Lab::new().unwrap();
    lab.dns.points(NAME, &[WORLD, WORLD_V6]);
    let _daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let (v4, v6) = (WORLD.to_string(), WORLD_V6.to_string());
    let rows: [(&[&str], &str, &str); 10] = [
        (&[NAME, "A"], "NOERROR", &v4),
        (&[NAME, "AAAA"], "NOERROR", &v6),
        (&["+tcp", NAME, "A"], "NOERROR", &v4),
        (&["+noedns", NAME, "A"], "NOERROR", &v4),
        (&["+dnssec", "+bufsize=512", NAME, "AAAA"], "NOERROR", &v6),
        (&[NAME, "HTTPS"], "NOERROR", ""),
        (&[NAME, "SVCB"], "NOERROR", ""),
        (&[NAME, "TXT"], "NOERROR", ""),
        (&["c2VjcmV0.evil.lab.example", "TXT"], "NXDOMAIN", ""),
        (&["+tcp", "evil.lab.example", "A"], "NXDOMAIN", ""),
    ];
    for (arguments, code, address) in rows {
        let program = [&["dig", "@8.8.8.8", "+tries=1", "+time=5"][..], arguments].concat();
        let done = managed(&lab, &program).await;
        let said = &done.stdout;
        assert!(
            said.contains(&format!("status: {code}")),
            "{program:?}: {said}"
        );
        let count = u32::from(!address.is_empty());
        assert!(said.contains(&format!("ANSWER: {count},")), "{said}");
        assert!(said.contains(address), "{program:?}: {said}");
    }
    let asked = lab.dns.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.name == NAME && ["A", "AAAA"].contains(&&*asked.kind)),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_works_with_either_of_its_resolvers() {
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let code = source(&lab, "get.go", include_str!("clients/get.go"));
    let program = lab.directory().join("get-go");
    build_go(&lab, &code, &program);
    let program = program.to_str().unwrap();
    for resolver in ["go", "cgo"] {
        let debug = format!("GODEBUG=netdns={resolver}");
        let get = async |url: &str| {
            let done = managed(&lab, &["env", &debug, program, url]).await;
            done.json().unwrap()
        };
        let path = format!("/echo?{resolver}");
        let answer = get(&format!("https://{NAME}{path}")).await;
        assert_eq!(answer["status"], 200, "{resolver}: {answer}");
        let record = exchange(&daemon, &path).await;
        assert_eq!(record["http"]["version"], "HTTP/2", "{record}");
        let answer = get(&format!("https://{NAME}/secret?{resolver}")).await;
        assert_eq!(answer["status"], 403, "{resolver}: {answer}");
        for (url, error) in [
            ("https://evil.lab.example/echo", "no such host"),
            ("https://93.184.215.15/echo", "connection refused"),
        ] {
            let answer = get(url).await;
            let said = answer["error"].as_str().unwrap();
            assert!(said.contains(error), "{resolver}: {answer}");
        }
    }
    assert_eq!(server.seen().len(), 2);
}

/// With the C library's resolver in it as well.
fn build_go(lab: &Lab, code: &Path, program: &Path) {
    let set = |name: &str, value: &Path| format!("{name}={}", value.display());
    must(
        "env",
        &[
            "CGO_ENABLED=1",
            "GO111MODULE=off",
            "GOFLAGS=",
            "GOTOOLCHAIN=local",
            &set("GOCACHE", &lab.directory().join("go-cache")),
            "go",
            "build",
            "-o",
            program.to_str().unwrap(),
            code.to_str().unwrap(),
        ],
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_trusts_the_store_that_it_is_given() {
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let code = source(&lab, "Get.java", include_str!("clients/Get.java"));
    let directory = lab.directory().to_str().unwrap();
    must("javac", &["-d", directory, code.to_str().unwrap()]).unwrap();
    let java = ["java", "-cp", directory, "Get"];
    // By the options that every Java reads; and without them, by the store that lies over Debian's.
    let bare = ["env", "--unset=JAVA_TOOL_OPTIONS"];
    for (name, before) in [("told", &[][..]), ("bare", &bare[..])] {
        let get = async |url: String| {
            let program = [before, &java[..], &[url.as_str()]].concat();
            managed(&lab, &program).await
        };
        let path = format!("/echo?{name}");
        let done = get(format!("https://{NAME}{path}")).await;
        assert!(done.stdout.starts_with("200 "), "{name}: {done:?}");
        let record = exchange(&daemon, &path).await;
        assert_eq!(record["decision"]["effect"], "allow", "{record}");
        let done = get(format!("https://{NAME}/secret?{name}")).await;
        assert!(done.stdout.starts_with("403 "), "{name}: {done:?}");
        let done = get("https://evil.lab.example/echo".to_owned()).await;
        assert!(done.stdout.contains("ConnectException"), "{name}: {done:?}");
    }
    assert_eq!(server.seen().len(), 2);
    assert_eq!(server.failed(), Vec::<String>::new());
}
