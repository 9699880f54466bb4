//! What keeps the daemon from starting is said in one sentence, and harms no daemon that runs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use exeat_tests::Lab;
use exeat_tests::daemon::binary;
use exeat_tests::process::run;

use crate::place::policy;

const ENTRY: &str = "{ host: api.lab.example }";
const LIMIT: Duration = Duration::from_secs(30);

/// Runs a daemon that cannot start and returns its one sentence.
async fn fails(mut command: Command) -> String {
    let done = run(&mut command, LIMIT).await.unwrap();
    assert_eq!(
        done.status.code(),
        Some(2),
        "{} {}",
        done.stdout,
        done.stderr
    );
    let said = done.stderr.trim();
    assert!(said.starts_with("exeat: "), "{said}");
    said.to_owned()
}

fn with_config(lab: &Lab, name: &str, change: impl Fn(&str) -> String) -> Command {
    let text = fs::read_to_string(lab.directory().join("exeat.yaml")).unwrap();
    let path = lab.directory().join(name);
    fs::write(&path, change(&text)).unwrap();
    let mut command = lab.inside.command(binary().unwrap());
    command.arg("daemon").arg("--config").arg(path);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why_in_a_sentence() {
    let lab = Lab::new().unwrap();
    let daemon = lab.daemon(&policy(&[ENTRY])).await.unwrap();
    let holder = daemon.pid().to_string();

    let said = fails(with_config(&lab, "same.yaml", str::to_owned)).await;
    assert!(said.contains(&holder), "{said}");
    let elsewhere = |key: &str, value: &str| {
        let (key, value) = (key.to_owned(), value.to_owned());
        move |text: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(&key))
                .unwrap()
                .to_owned();
            text.replace(&line, &format!("{key} {value}"))
        }
    };
    let run_dir = format!("{}/run2", lab.directory().display());
    let said = fails(with_config(
        &lab,
        "pins.yaml",
        elsewhere("run_dir:", &run_dir),
    ))
    .await;
    assert!(said.contains(&holder), "the pins' holder: {said}");
    println!("{said}");
    let said = fails(with_config(&lab, "user.yaml", |text| {
        elsewhere("gate:", "{ user: no-such-user }")(text)
            .replace("/run\n", "/run3\n")
            .replace("bpffs: /sys/fs/bpf/", "bpffs: /sys/fs/bpf/x")
    }))
    .await;
    assert!(said.contains("no-such-user"), "{said}");
    println!("{said}");
    let said = fails(with_config(&lab, "bad.yaml", |text| {
        format!("{text}\nlimitz: 1\nlimits: {{ body_bytes: x }}\n")
    }))
    .await;
    assert!(
        said.contains("limitz") && said.contains("a size"),
        "every fault at once: {said}"
    );
    assert_eq!(said.lines().count(), 2, "one a line: {said}");
    println!("{said}");
    let bad = lab.directory().join("bad-policy.yaml");
    fs::write(&bad, "version: 1\nservers: { demo: { nonsense: true } }\n").unwrap();
    let mut command = with_config(&lab, "policy.yaml", |text| {
        text.replace("/run\n", "/run4\n")
    });
    command.arg("--policy").arg(&bad);
    let said = fails(command).await;
    assert!(said.contains("bad-policy.yaml:2:"), "{said}");
    println!("{said}");
    let mut nobody = lab.inside.command("setpriv");
    let own = lab.directory().join("exeat-copy");
    fs::copy(binary().unwrap(), &own).unwrap();
    nobody
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(own)
        .arg("daemon");
    nobody
        .arg("--config")
        .arg(lab.directory().join("exeat.yaml"));
    let said = fails(nobody).await;
    assert!(said.contains("root"), "{said}");
    println!("{said}");
    assert_eq!(
        daemon.status().await.unwrap()["supervisor"]["pid"],
        daemon.pid(),
        "the first daemon is unharmed"
    );
}
