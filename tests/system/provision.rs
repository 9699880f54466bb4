//! The virtual machine's script on a machine that has nothing: what it would install, in which order. The programs
//! that install are recording stand-ins here, in a root of their own whose `/usr` is this machine's.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use exeat_tests::process::{Finished, run};
use tempfile::TempDir;

use crate::place::LIMIT;

/// Notes its own call.
const RECORDER: &str = "#!/bin/bash\necho \"${0##*/} $* [${DEBIAN_FRONTEND-}${CARGO_TARGET_DIR-}] in $PWD\" >> /calls\n";

/// A root in which everything that the script calls to install is a stand-in.
struct Machine {
    root: TempDir,
}

impl Machine {
    /// Where `installed` are the packages that dpkg-query knows.
    fn new(installed: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        for directory in ["usr", "vagrant", "sources", "stand", "root", "dev", "tools"] {
            fs::create_dir(path.join(directory)).unwrap();
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{link}"), path.join(link)).unwrap();
        }
        // No other program of this machine's is found: it may have Rust already.
        for tool in ["cat", "chmod", "grep", "mkdir"] {
            symlink(format!("/usr/bin/{tool}"), path.join("tools").join(tool)).unwrap();
        }
        fs::write(path.join("dev/null"), "").unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vagrant/provision.sh");
        fs::copy(script, path.join("provision.sh")).unwrap();
        let machine = Self { root };
        let pattern = installed.join("|");
        machine.stand_in(
            "dpkg-query",
            &format!(
                "case ${{!#}} in {}) echo installed;; *) exit 1;; esac\n",
                if pattern.is_empty() { "-" } else { &pattern }
            ),
        );
        machine.stand_in("apt-get", "");
        machine.stand_in("curl", "echo the installer\n");
        // rustup's script, which puts cargo where it puts it. It is there before curl has fetched it: what curl says
        // comes first.
        let cargo = format!(
            "printf '%s' {} > ~/.cargo/bin/cargo; chmod 755 ~/.cargo/bin/cargo\n",
            quoted(RECORDER)
        );
        let record = RECORDER.trim_start_matches("#!/bin/bash\n");
        let text = format!("#!/bin/bash\ncat > /installer\nmkdir -p ~/.cargo/bin\n{record}{cargo}");
        machine.program("sh", &text);
        machine
    }

    /// A program that notes its call and then does this.
    fn stand_in(&self, name: &str, does: &str) {
        self.program(name, &format!("{RECORDER}{does}"));
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.root.path().join("stand").join(name);
        let mut options = fs::File::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Runs the script there: how it ended, and the calls of stand-ins but dpkg-query.
    async fn provision(&self, variables: &[(&str, &str)]) -> (Finished, Vec<String>) {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "/bin/sh", "-ec"])
            .arg(r#"mount --rbind /usr "$0/usr"; mount --bind /dev/null "$0/dev/null"; exec chroot "$0" /usr/bin/env PATH=/stand:/tools /bin/bash /provision.sh"#)
            .arg(self.root.path())
            .env_clear()
            .envs([("PATH", "/usr/sbin:/usr/bin"), ("HOME", "/root")])
            .envs(variables.iter().copied());
        let done = run(&mut command, LIMIT).await.unwrap();
        let text = fs::read_to_string(self.root.path().join("calls")).unwrap_or_default();
        let calls = text.lines().filter(|line| !line.starts_with("dpkg-query "));
        (done, calls.map(str::to_owned).collect())
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

const RUSTUP: [&str; 2] = [
    "curl --proto =https --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs [] in /",
    "sh -s -- -y --profile minimal --component clippy --component rustfmt [] in /",
];

#[tokio::test]
async fn a_fresh_machine_gets_packages_then_rust_then_the_demonstration() {
    let machine = Machine::new(&["ca-certificates"]);
    let (done, calls) = machine.provision(&[]).await;
    assert!(done.status.success(), "{done:?} {calls:?}");
    // Said before it is done.
    let said: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(
        said,
        [
            "installing build-essential curl",
            "installing Rust (rustup, stable)"
        ]
    );
    let wanted = [
        "apt-get update --quiet [noninteractive] in /",
        "apt-get install --yes --quiet --no-install-recommends build-essential curl [noninteractive] in /",
        "curl --proto =https --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs [noninteractive] in /",
        "sh -s -- -y --profile minimal --component clippy --component rustfmt [noninteractive] in /",
        // The host's build is not mixed with the guest's.
        "cargo xtask demo [noninteractive/var/cache/exeat/target] in /vagrant",
    ];
    assert_eq!(calls, wanted);
    let installer = fs::read_to_string(machine.root.path().join("installer")).unwrap();
    assert_eq!(
        installer, "the installer\n",
        "what curl fetched is what sh ran"
    );
}

#[tokio::test]
async fn what_is_there_is_not_installed_again_and_what_fails_ends_it() {
    let all = ["build-essential", "ca-certificates", "curl"];
    let machine = Machine::new(&all);
    let sources = [("EXEAT_SOURCE", "/sources")];
    let (done, calls) = machine.provision(&sources).await;
    assert!(done.status.success(), "{done:?} {calls:?}");
    assert_eq!(calls[..2], RUSTUP);
    assert_eq!(calls[2..], ["cargo xtask demo [] in /sources"]);
    // Now Rust is there, although a login shell's PATH does not say so.
    let (done, calls) = machine.provision(&sources).await;
    assert!(done.status.success(), "{done:?} {calls:?}");
    assert_eq!(calls[3..], ["cargo xtask demo [] in /sources"]);

    // Whatever cannot be done is the end: nothing is built on half a machine.
    let machine = Machine::new(&[]);
    machine.stand_in("apt-get", "exit 100\n");
    let (done, calls) = machine.provision(&sources).await;
    assert_eq!(done.status.code(), Some(100), "{done:?}");
    assert_eq!(calls, ["apt-get update --quiet [noninteractive] in /"]);
    let machine = Machine::new(&all);
    machine.stand_in("curl", "exit 6\n");
    let (done, calls) = machine.provision(&sources).await;
    assert!(!done.status.success(), "{done:?}");
    assert!(
        !calls.iter().any(|call| call.starts_with("cargo ")),
        "{calls:?}"
    );
}
