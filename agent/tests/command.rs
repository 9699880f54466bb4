//! The binary as scripts see it: exit statuses, and what goes where.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    use tempfile::TempDir;

    struct Place {
        directory: TempDir,
    }

    impl Place {
        fn new() -> Self {
            let directory = TempDir::new().unwrap();
            fs::write(directory.path().join("exeat.yaml"), "version: 1\n").unwrap();
            Self { directory }
        }

        fn path(&self) -> &Path {
            self.directory.path()
        }

        fn exeat(&self, arguments: &[&str]) -> Command {
            let mut command = Command::new(env!("CARGO_BIN_EXE_exeat"));
            command
                .arg("--config")
                .arg(self.path().join("exeat.yaml"))
                .arg("--socket")
                .arg(self.path().join("control.sock"))
                .args(arguments)
                .current_dir(self.path())
                .env("TZ", "UTC")
                .stdin(Stdio::null());
            command
        }

        fn run(&self, arguments: &[&str]) -> Output {
            self.exeat(arguments).output().unwrap()
        }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn check(output: &Output, status: i32, said: &str) {
        let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{all}");
        assert!(all.contains(said), "`{said}` is missing in:\n{all}");
    }

    #[test]
    fn without_a_daemon_the_status_is_3_and_the_next_step_is_said() {
        let place = Place::new();
        for arguments in [
            &["status"][..],
            &["servers"],
            &["servers", "show", "github"],
            &["audit", "tail"],
            &["policy", "explain", "--server", "github"],
            &["ca", "export"],
            &["run", "github"],
        ] {
            let output = place.run(arguments);
            check(&output, 3, "connect to the daemon at `");
            check(&output, 3, "start it with `systemctl start exeat`");
            assert!(output.stdout.is_empty(), "{arguments:?}");
        }
        // A socket that nobody answers on is no daemon either.
        drop(UnixListener::bind(place.path().join("control.sock")).unwrap());
        check(&place.run(&["status"]), 3, "Connection refused");
    }

    #[test]
    fn a_mistake_of_usage_is_2() {
        let place = Place::new();
        for arguments in [
            &["frobnicate"][..],
            &[],
            &["status", "--nonsense"],
            &["audit", "query", "--limit", "x"],
        ] {
            assert_eq!(place.run(arguments).status.code(), Some(2), "{arguments:?}");
        }
        check(
            &place.run(&["audit", "query", "--since", "whenever"]),
            2,
            "read `whenever` as a time",
        );
    }

    #[test]
    fn help_and_version_are_answers() {
        let place = Place::new();
        check(&place.run(&["--help"]), 0, "exeat policy check");
        check(&place.run(&["policy", "explain", "--help"]), 0, "--tool");
        check(&place.run(&["--version"]), 0, "exeat 0.");
    }

    #[test]
    fn a_wrong_configuration_is_2_with_its_place() {
        let place = Place::new();
        fs::write(place.path().join("exeat.yaml"), "version: 1\nnonsense: 3\n").unwrap();
        check(&place.run(&["status"]), 2, "exeat.yaml:2:1");
        fs::remove_file(place.path().join("exeat.yaml")).unwrap();
        check(&place.run(&["status"]), 2, "exeat.yaml");
    }

    const GOOD: &str = "\
version: 1
servers:
  github:
    purpose: issues
    owner: platform@example.com
    launch: { command: /usr/bin/true, user: nobody }
    egress: [{ host: api.github.com }]
identities:
  dave: { user: dave }
rules:
  - { id: dave-may, who: [dave], servers: [github], effect: allow }
";

    #[test]
    fn a_good_policy_is_0() {
        let place = Place::new();
        fs::create_dir(place.path().join("policy.d")).unwrap();
        fs::write(place.path().join("policy.d/a.yaml"), GOOD).unwrap();
        fs::write(place.path().join("policy.d/a.test.yaml"), "no: policy").unwrap();
        fs::write(place.path().join("policy.d/README"), "no: policy").unwrap();
        let output = place.run(&["policy", "check", "policy.d"]);
        check(
            &output,
            0,
            "valid: 1 file, 1 server, 0 hosts, 1 identity, 1 rule",
        );
        let output = place.run(&["policy", "check", "policy.d", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&report["valid"], &report["servers"]),
            (&true.into(), &1.into())
        );
    }

    #[test]
    fn a_bad_policy_is_2_and_every_fault_has_its_line() {
        let place = Place::new();
        let bad = GOOD
            .replace("effect: allow", "efect: allow")
            .replace("version: 1", "version: 7");
        fs::write(place.path().join("bad.yaml"), bad).unwrap();
        let output = place.run(&["policy", "check", "bad.yaml"]);
        assert_eq!(output.status.code(), Some(2));
        insta::assert_snapshot!(text(&output.stdout));
        assert!(output.stderr.is_empty());
        check(
            &place.run(&["policy", "check", "missing.yaml"]),
            2,
            "read `missing.yaml`",
        );
        fs::create_dir(place.path().join("empty")).unwrap();
        check(
            &place.run(&["policy", "check", "empty"]),
            2,
            "there is no *.yaml file in it",
        );
    }

    #[test]
    fn files_explain_themselves_without_a_daemon() {
        let place = Place::new();
        fs::write(place.path().join("good.yaml"), GOOD).unwrap();
        let explain = |arguments: &[&str]| {
            let fixed = ["policy", "explain", "--policy", "good.yaml"];
            place.run(&[&fixed[..], arguments].concat())
        };
        let call = ["--server", "github", "--tool", "create_issue"];
        let output = explain(&[&["--user", "dave"], &call[..]].concat());
        check(&output, 0, "allow by rule `dave-may`");
        check(
            &explain(&[&["--user", "eve"], &call[..]].concat()),
            0,
            "deny",
        );
        check(
            &explain(&[
                "--server",
                "github",
                "--request",
                "GET",
                "https://api.github.com/x",
            ]),
            0,
            "allow",
        );
        check(
            &explain(&["--server", "github", "--connect", "192.0.2.1:443"]),
            0,
            "deny",
        );
        check(
            &explain(&["--server", "github", "--request", "GET", "nonsense"]),
            2,
            "read `nonsense`",
        );
    }

    #[test]
    fn schemas_are_json() {
        let place = Place::new();
        for what in ["audit", "policy"] {
            let output = place.run(&[what, "schema"]);
            assert!(output.status.success());
            let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(schema["$schema"].is_string(), "{what}");
        }
    }

    #[test]
    fn a_reader_who_has_left_is_no_failure() {
        let place = Place::new();
        let mut child = place
            .exeat(&["policy", "schema"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        check(&output, 0, "");
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    }

    #[test]
    fn the_canary_says_what_it_saw() {
        let place = Place::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = format!("tcp/{}", listener.local_addr().unwrap());
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let output = place.run(&["internal", "canary", &open, &format!("tcp/{closed}")]);
        check(&output, 0, "");
        let attempts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(attempts[0]["refused"], false);
        assert_eq!(attempts[1]["refused"], true);
        check(
            &place.run(&["internal", "canary", "nonsense"]),
            2,
            "read `nonsense` as a target",
        );
    }

    #[test]
    fn an_empty_directory_is_an_unproved_log() {
        let place = Place::new();
        check(
            &place.run(&["audit", "verify", "--dir", "missing"]),
            2,
            "open the audit log `missing`",
        );
        check(
            &place.run(&["audit", "verify", "--dir", ".", "--known", "x"]),
            2,
            "read `x`",
        );
        fs::create_dir(place.path().join("log")).unwrap();
        let output = place.run(&["audit", "query", "--dir", "log"]);
        check(&output, 0, "no record matches");
    }

    const HOST: &str = r#"{
  // mine
  "mcpServers": {
    "github": { "command": "npx", "args": ["-y", "@x/github-mcp", "--token", "hunter2"],
      "env": { "GITHUB_TOKEN": "hunter3" } },
    "tracker": { "url": "https://mcp.example.com/mcp?key=hunter4" },
  },
}
"#;

    /// A home with a host's configuration in it, and commands that are run from there.
    fn home() -> (Place, std::path::PathBuf) {
        let place = Place::new();
        let file = place.path().join(".cursor/mcp.json");
        fs::create_dir(place.path().join(".cursor")).unwrap();
        fs::write(&file, HOST).unwrap();
        fs::write(
            place.path().join("exeat.yaml"),
            format!("version: 1\npolicy: {}/policy.d\n", place.path().display()),
        )
        .unwrap();
        (place, file)
    }

    fn at_home(place: &Place, arguments: &[&str]) -> Output {
        let output = place
            .exeat(arguments)
            .env("HOME", place.path())
            .output()
            .unwrap();
        for stream in [&output.stdout, &output.stderr] {
            assert!(!text(stream).contains("hunter"), "{}", text(stream));
        }
        output
    }

    #[test]
    fn an_import_shows_asks_writes_and_is_undone() {
        let (place, file) = home();
        let output = at_home(&place, &["hosts", "import", "--dry-run"]);
        check(&output, 0, "- npx -y @x/github-mcp --token [masked]");
        check(&output, 0, "+ exeat run github");
        check(&output, 0, "GITHUB_TOKEN: { secret: github-token }");
        check(
            &output,
            0,
            "mcpServers.tracker stays: it is reached at a URL",
        );
        let output = at_home(&place, &["hosts", "import"]);
        check(&output, 2, "say `--yes`");
        assert_eq!(fs::read_to_string(&file).unwrap(), HOST);
        let output = at_home(
            &place,
            &["hosts", "import", "--yes", "--entries", "new.yaml"],
        );
        check(&output, 0, "rewrote `");
        let after = fs::read_to_string(&file).unwrap();
        let wanted = HOST.replace("\"npx\"", "\"exeat\"").replace(
            r#"["-y", "@x/github-mcp", "--token", "hunter2"]"#,
            r#"["run", "github"]"#,
        );
        assert_eq!(after, wanted);
        check(
            &place.run(&["policy", "check", "new.yaml"]),
            0,
            "valid: 1 file, 2 servers",
        );
        let output = at_home(&place, &["hosts", "import", "--yes"]);
        check(&output, 0, "nothing to change");
        check(&output, 0, "it is `exeat run github` already");
        assert_eq!(fs::read_to_string(&file).unwrap(), after);
        check(
            &at_home(&place, &["hosts", "import", "--undo"]),
            0,
            "restored `",
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), HOST);
        check(
            &at_home(&place, &["hosts", "import", "--undo"]),
            0,
            "nothing to undo",
        );
    }

    #[test]
    fn an_import_for_programs_is_one_document() {
        let (place, file) = home();
        let path = file.to_str().unwrap();
        check(
            &at_home(&place, &["hosts", "import", path, "--json"]),
            2,
            "say `--yes`",
        );
        let output = at_home(&place, &["hosts", "import", path, "--json", "--yes"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["files"][0]["written"], true, "{report}");
        assert_eq!(report["files"][0]["format"], "cursor");
        assert_eq!(report["files"][0]["changes"][0]["after"][2], "github");
        assert!(
            report["entries"].as_str().unwrap().contains("url:"),
            "{report}"
        );
        let backup = report["files"][0]["backup"].as_str().unwrap();
        assert_eq!(fs::read_to_string(backup).unwrap(), HOST);
        // What was written since is not thrown away.
        fs::write(&file, "{}").unwrap();
        let output = at_home(&place, &["hosts", "import", path, "--undo"]);
        check(&output, 1, "was changed after Exeat had rewritten it");
        assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
        check(
            &at_home(&place, &["hosts", "import", "absent.json"]),
            2,
            "absent.json",
        );
        fs::write(&file, "{ hunter").unwrap();
        check(&at_home(&place, &["hosts", "import", path]), 2, "line 1");
        check(
            &at_home(&place, &["hosts", "import", "--exeat", "bin/x"]),
            2,
            "no absolute path",
        );
    }

    #[test]
    fn what_is_discovered_is_compared_with_the_register() {
        let (place, _) = home();
        let output = at_home(&place, &["discover", "--json"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let inventory: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mine = place.path().to_str().unwrap();
        let found = |inventory: &serde_json::Value, name: &str| {
            let mut found = inventory["found"].as_array().unwrap().iter();
            let mine = |found: &&serde_json::Value| {
                found["name"] == name && found["seen"].to_string().contains(mine)
            };
            found
                .find(mine)
                .cloned()
                .unwrap_or_else(|| panic!("{inventory}"))
        };
        let github = found(&inventory, "github");
        assert_eq!(github["standing"], "unregistered");
        assert!(github["entry"].as_str().unwrap().contains("purpose:"));
        assert_eq!(found(&inventory, "cursor")["kind"], "host");
        fs::create_dir(place.path().join("policy.d")).unwrap();
        let policy = GOOD
            .replace("/usr/bin/true", "npx")
            .replace(", user: nobody", ", args: [-y, \"@x/github-mcp\"]");
        fs::write(place.path().join("policy.d/a.yaml"), policy).unwrap();
        let output = at_home(&place, &["discover", "--json"]);
        let inventory = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found(&inventory, "github")["standing"], "around");
        check(
            &at_home(&place, &["hosts", "import", "--yes"]),
            0,
            "rewrote `",
        );
        let output = at_home(&place, &["discover", "--json"]);
        let inventory = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found(&inventory, "github")["standing"], "managed");
        check(&at_home(&place, &["discover"]), 1, "STANDING");
        check(
            &at_home(&place, &["discover", "--since", "whenever"]),
            2,
            "whenever",
        );
    }
}
