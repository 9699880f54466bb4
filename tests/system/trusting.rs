//! `exeat ca`: the system's store of trusted certificates with the daemon's, and without it again. Debian's own tool
//! refreshes copies of the machine's files, laid over them in a mount namespace of each command's own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use exeat_tests::Lab;
use exeat_tests::cgroup::Cgroup;
use exeat_tests::daemon::binary;
use exeat_tests::lab::WORLD;
use exeat_tests::process::{must, run};

use crate::place::{LIMIT, foreign_policy};

const NAME: &str = "api.lab.example";
const BUNDLE: &str = "certs/ca-certificates.crt";
const DROPPED: &str = "/usr/local/share/ca-certificates";

/// A launcher of programs that see the copies in the place of `/etc/ssl` and of [`DROPPED`].
fn covered(lab: &Lab) -> Command {
    let mut command = lab.inside.command("unshare");
    let script = format!(
        r#"mount --bind "$0/ssl" /etc/ssl; mount --bind "$0/dropped" {DROPPED}
mount --bind "$0/resolv.conf" /etc/resolv.conf; exec "$@""#
    );
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec", &script])
        .arg(lab.directory());
    command
}

/// Runs `exeat ca ARGUMENTS` there: what it wrote to standard error and output.
async fn ca(lab: &Lab, arguments: &[&str]) -> String {
    let mut command = covered(lab);
    command
        .arg(binary().unwrap())
        .arg("ca")
        .args(arguments)
        .arg("--config")
        .arg(lab.directory().join("exeat.yaml"));
    let done = run(&mut command, LIMIT).await.unwrap();
    assert!(done.status.success(), "{arguments:?}: {done:?}");
    done.stderr + &done.stdout
}

/// Every name below a directory, and the text of the bundle.
fn store(lab: &Lab) -> (Vec<String>, String) {
    let ssl = lab.directory().join("ssl");
    let mut names: Vec<String> = fs::read_dir(ssl.join("certs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    (names, fs::read_to_string(ssl.join(BUNDLE)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_systems_store_trusts_the_gate_until_it_is_undone() {
    let lab = Lab::new().unwrap();
    let _api = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let workload = Cgroup::create(&format!("{}trust", lab.name())).unwrap();
    let name = workload.path().file_name().unwrap().to_str().unwrap();
    let egress = format!("{{ host: {NAME} }}");
    let daemon = lab.daemon(&foreign_policy(name, &[&egress])).await.unwrap();
    let machines = fs::read(Path::new("/etc/ssl").join(BUNDLE)).unwrap();
    for (from, to) in [("/etc/ssl", "ssl"), (DROPPED, "dropped")] {
        let to = lab.directory().join(to);
        must("cp", &[Path::new("-a"), Path::new(from), &to]).unwrap();
    }
    // As the tool itself writes the store of what is there.
    let done = run(covered(&lab).arg("update-ca-certificates"), LIMIT).await;
    assert!(done.as_ref().unwrap().status.success(), "{done:?}");
    let before = store(&lab);
    // A program that trusts what the system does, and no variable tells it otherwise.
    let fetch = async || {
        let mut command = workload.launcher(covered(&lab));
        command
            .args(["env", "--unset=CURL_CA_BUNDLE", "--unset=SSL_CERT_FILE"])
            .args([
                "--unset=SSL_CERT_DIR",
                "curl",
                "--silent",
                "--max-time",
                "20",
            ])
            .arg(format!("https://{NAME}/echo"));
        run(&mut command, LIMIT).await.unwrap().status.code()
    };
    // CURLE_PEER_FAILED_VERIFICATION.
    assert_eq!(fetch().await, Some(60));
    // A client that went for no reason of the daemon's looks the same on the wire; the record says what it said.
    let distrusted = daemon
        .record("the handshake that failed", |record| {
            record["tcp"]["sni"] == NAME
        })
        .await
        .unwrap();
    assert_eq!(
        distrusted["outcome"]["status"], "failed",
        "nobody refused it: {distrusted}"
    );
    assert_eq!(distrusted["outcome"]["stage"], "tls", "{distrusted}");
    assert_eq!(
        distrusted["outcome"]["error"],
        "TLS handshake with the workload: received fatal alert: UnknownCA"
    );
    assert_eq!(distrusted["decision"]["effect"], "allow", "{distrusted}");
    assert_eq!(distrusted["workload"]["name"], "demo", "{distrusted}");

    let exported = daemon.cli(&["ca", "export"]).await.unwrap().json().unwrap();
    let (pem, fingerprint) = (
        exported["pem"].as_str().unwrap(),
        exported["fingerprint"].as_str().unwrap(),
    );
    assert_eq!(
        pem,
        fs::read_to_string(lab.directory().join("state/ca.pem")).unwrap()
    );
    let file = lab.directory().join("exported.pem");
    let file = file.to_str().unwrap();
    ca(&lab, &["export", "--output", file]).await;
    assert_eq!(fs::read_to_string(file).unwrap(), pem);
    let again = daemon
        .cli(&["ca", "export", "--output", file])
        .await
        .unwrap();
    assert!(!again.status.success(), "it overwrites nothing: {again:?}");

    let said = ca(&lab, &["install", "--dry-run"]).await;
    assert!(
        said.contains(fingerprint) && said.contains("nothing was changed"),
        "{said}"
    );
    assert_eq!(store(&lab), before);

    let said = ca(&lab, &["install"]).await;
    assert!(said.contains(fingerprint), "said before it is done: {said}");
    assert!(said.contains("`exeat ca install --undo`"), "{said}");
    let (names, bundle) = store(&lab);
    assert!(bundle.contains(pem.trim()), "the bundle has it");
    assert_eq!(
        bundle.matches("BEGIN").count(),
        before.1.matches("BEGIN").count() + 1
    );
    assert!(names.iter().any(|name| name == "exeat.pem"), "{names:?}");
    assert_eq!(fetch().await, Some(0));
    // Twice is once.
    ca(&lab, &["install"]).await;
    assert_eq!(store(&lab), (names, bundle));

    let said = ca(&lab, &["install", "--undo"]).await;
    assert!(
        said.contains("removes `/usr/local/share/ca-certificates/exeat.crt`"),
        "{said}"
    );
    assert_eq!(store(&lab), before, "nothing of it is left");
    assert!(!lab.directory().join("dropped/exeat.crt").exists());
    assert_eq!(fetch().await, Some(60));

    let after = fs::read(Path::new("/etc/ssl").join(BUNDLE)).unwrap();
    assert_eq!(machines, after, "the machine's own store was left alone");
    assert!(!Path::new(DROPPED).join("exeat.crt").exists());
}
