//! Configurations as the hosts write them: what is read, what is rewritten, and nothing else.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use proptest::prelude::*;
use tempfile::TempDir;

use super::entry::{How, entries};
use super::formats::Format;
use super::rewrite::rewrite;
use super::tree::Syntax;
use super::{Package, PlaceFault, Register, UndoFault, document, open, plan, undo, write};

/// What a host of each kind has in its file, and what it has afterwards.
const FILES: &[(&str, &str, &str)] = &[
    (
        ".config/Claude/claude_desktop_config.json",
        r#"{
  "globalShortcut": "",
  "mcpServers": {
    "filesystem": {
      "command": "npx",
      "args": [
        "-y",
        "@modelcontextprotocol/server-filesystem",
        "/home/dave/Desktop"
      ]
    },
    "bare": {
      "command": "/usr/local/bin/weather-mcp"
    }
  }
}
"#,
        r#"{
  "globalShortcut": "",
  "mcpServers": {
    "filesystem": {
      "command": "exeat",
      "args": ["run", "filesystem"]
    },
    "bare": {
      "command": "exeat",
      "args": ["run", "bare"]
    }
  }
}
"#,
    ),
    (
        ".claude.json",
        "{\"numStartups\":7,\"mcpServers\":{\"a b\":{\"type\":\"stdio\",\"command\":\"uvx\",\"args\":[\"mcp-server-git\"],\"env\":{\"X\":\"\\u00e9\"}}},\"projects\":{\"/src/x\":{\"mcpServers\":{\"remote\":{\"type\":\"http\",\"url\":\"https://mcp.example.com/mcp\"},\"time\":{\"command\":\"uvx\",\"args\":[\"mcp-server-time\"]}}}}}",
        "{\"numStartups\":7,\"mcpServers\":{\"a b\":{\"type\":\"stdio\",\"command\":\"exeat\",\"args\":[\"run\", \"a-b\"],\"env\":{\"X\":\"\\u00e9\"}}},\"projects\":{\"/src/x\":{\"mcpServers\":{\"remote\":{\"type\":\"http\",\"url\":\"https://mcp.example.com/mcp\"},\"time\":{\"command\":\"exeat\",\"args\":[\"run\", \"time\"]}}}}}",
    ),
    (
        ".cursor/mcp.json",
        "{\r\n\t\"mcpServers\": {\r\n\t\t\"git\": {\r\n\t\t\t\"command\": \"uvx\"\r\n\t\t}\r\n\t}\r\n}",
        "{\r\n\t\"mcpServers\": {\r\n\t\t\"git\": {\r\n\t\t\t\"command\": \"exeat\",\r\n\t\t\t\"args\": [\"run\", \"git\"]\r\n\t\t}\r\n\t}\r\n}",
    ),
    (
        ".config/Code/User/mcp.json",
        r#"{
  // Asked for once.
  "inputs": [{ "type": "promptString", "id": "token", "password": true }],
  "servers": {
    "files": {
      "type": "stdio",
      "command": "npx", /* pinned */
      "args": ["-y", "@modelcontextprotocol/server-filesystem@2026.8.31", "${workspaceFolder}", "--ro"],
      "env": { "TOKEN": "${input:token}" },
    },
    "remote": { "type": "http", "url": "https://mcp.example.com/mcp" }, // kept
  },
}
"#,
        r#"{
  // Asked for once.
  "inputs": [{ "type": "promptString", "id": "token", "password": true }],
  "servers": {
    "files": {
      "type": "stdio",
      "command": "exeat", /* pinned */
      "args": ["run", "files", "--", "${workspaceFolder}", "--ro"],
      "env": { "TOKEN": "${input:token}" },
    },
    "remote": { "type": "http", "url": "https://mcp.example.com/mcp" }, // kept
  },
}
"#,
    ),
    (
        ".codeium/windsurf/mcp_config.json",
        r#"{"mcpServers": {"r": {"serverUrl": "https://x.example/mcp"}, "py": {"args": ["-m", "mcp_server_x"], "command": "python3"}}}"#,
        r#"{"mcpServers": {"r": {"serverUrl": "https://x.example/mcp"}, "py": {"args": ["run", "py"], "command": "exeat"}}}"#,
    ),
    (
        ".config/zed/settings.json",
        r#"// Zed settings
{
  "theme": "One Dark", // a comment
  "context_servers": {
    "new": { "source": "custom", "command": "uv", "args": ["run", "/srv/mcp/main.py"], "env": {} },
    "old": { "command": { "path": "node", "args": ["/srv/mcp/index.js"], "env": null }, "settings": {} },
    "from-extension": { "source": "extension", "settings": {} },
  },
}
"#,
        r#"// Zed settings
{
  "theme": "One Dark", // a comment
  "context_servers": {
    "new": { "source": "custom", "command": "exeat", "args": ["run", "new"], "env": {} },
    "old": { "command": { "path": "exeat", "args": ["run", "old"], "env": null }, "settings": {} },
    "from-extension": { "source": "extension", "settings": {} },
  },
}
"#,
    ),
    (
        ".continue/config.yaml",
        "name: Local Config\nversion: 1.0.0\nschema: v1\nmodels:\n  - name: m\n    apiKey: ${{ secrets.KEY }}\nmcpServers:\n  # Über alles\n  - name: SQLite MCP\n    command: npx # why not\n    args:\n      - \"-y\"\n      - mcp-sqlite\n      - /tmp/x.db\n    env:\n      A: b\n\n  - command: uvx\n    name: git\n  - name: r\n    type: streamable-http\n    url: https://mcp.example.com/mcp\n  - { name: flow, command: uvx }\n",
        "name: Local Config\nversion: 1.0.0\nschema: v1\nmodels:\n  - name: m\n    apiKey: ${{ secrets.KEY }}\nmcpServers:\n  # Über alles\n  - name: SQLite MCP\n    command: \"exeat\" # why not\n    args:\n      - \"run\"\n      - \"SQLite-MCP\"\n    env:\n      A: b\n\n  - command: \"exeat\"\n    args: [\"run\", \"git\"]\n    name: git\n  - name: r\n    type: streamable-http\n    url: https://mcp.example.com/mcp\n  - { name: flow, command: \"exeat\", args: [\"run\", \"flow\"] }\n",
    ),
    (
        ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json",
        r#"{
  "mcpServers": {
    "git": {
      "command": "uvx",
      "args": ["mcp-server-git", "--repository", "/src"],
      "disabled": false,
      "autoApprove": ["git_status"]
    }
  }
}"#,
        r#"{
  "mcpServers": {
    "git": {
      "command": "exeat",
      "args": ["run", "git"],
      "disabled": false,
      "autoApprove": ["git_status"]
    }
  }
}"#,
    ),
    (
        ".codex/config.toml",
        "model = \"gpt-5\"  # mine\n\n[mcp_servers.docs]\ncommand = \"npx\" # fetched\nargs = [\n  \"-y\",\n  \"docs-mcp\",\n]\nenv = { \"API_KEY\" = \"value\" }\nstartup_timeout_sec = 20\n\n[mcp_servers.\"bare one\"]\ncommand = 'weather-mcp'\n\n[mcp_servers.remote]\nurl = \"https://mcp.example.com/mcp\"\nbearer_token_env_var = \"T\"\n\n[mcp_servers]\ninline = { command = \"uvx\" }\ndotted.command = \"uvx\"\n",
        "model = \"gpt-5\"  # mine\n\n[mcp_servers.docs]\ncommand = \"exeat\" # fetched\nargs = [\"run\", \"docs\"]\nenv = { \"API_KEY\" = \"value\" }\nstartup_timeout_sec = 20\n\n[mcp_servers.\"bare one\"]\ncommand = \"exeat\"\nargs = [\"run\", \"bare-one\"]\n\n[mcp_servers.remote]\nurl = \"https://mcp.example.com/mcp\"\nbearer_token_env_var = \"T\"\n\n[mcp_servers]\ninline = { command = \"exeat\", args = [\"run\", \"inline\"] }\ndotted.command = \"exeat\"\ndotted.args = [\"run\", \"dotted\"]\n",
    ),
    (
        ".gemini/settings.json",
        r#"{
  "mcp": { "allowed": ["pythonTools"] },
  "mcpServers": {
    "pythonTools": {
      "command": "python",
      "args": ["-m", "my_mcp_server", "$TOKEN"],
      "cwd": "./mcp", "timeout": 15000, "trust": false
    },
    "http": { "httpUrl": "https://x.example/mcp" }
  }
}"#,
        r#"{
  "mcp": { "allowed": ["pythonTools"] },
  "mcpServers": {
    "pythonTools": {
      "command": "exeat",
      "args": ["run", "pythonTools", "--", "$TOKEN"],
      "cwd": "./mcp", "timeout": 15000, "trust": false
    },
    "http": { "httpUrl": "https://x.example/mcp" }
  }
}"#,
    ),
];

fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Rewrites a text as the file at `path`; the new text and how many servers changed.
fn rewritten(path: &str, text: &str) -> (String, usize) {
    let path = Path::new(path);
    let mut register = Register::default();
    let done = rewrite(
        Format::of(path),
        Syntax::of(path),
        text,
        "exeat",
        |entry, stdio| register.name(&entry.name, stdio),
    );
    let done = done.unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
    (done.text, done.changes.len())
}

#[test]
fn every_host_is_rewritten_and_nothing_else() {
    for (path, before, after) in FILES {
        let (text, changes) = rewritten(path, before);
        assert_eq!(text, *after, "{path}");
        assert!(changes > 0, "{path}");
        // Twice is once.
        assert_eq!(rewritten(path, &text), (text.clone(), 0), "{path}");
    }
}

#[test]
fn every_known_file_has_its_host() {
    for (path, ..) in FILES {
        let absolute = Path::new("/home/dave").join(path);
        assert_ne!(Format::of(&absolute).id, "unknown", "{path}");
    }
    for (path, id) in [
        ("/src/x/.vscode/mcp.json", "vscode"),
        ("/home/d/.config/Code/User/profiles/1a2b/mcp.json", "vscode"),
        ("/src/.continue/mcpServers/a.yaml", "continue"),
        ("/src/.mcp.json", "claude-code"),
        ("/tmp/servers.json", "unknown"),
    ] {
        assert_eq!(Format::of(Path::new(path)).id, id, "{path}");
    }
}

#[test]
fn what_cannot_be_read_in_one_way_is_refused_without_quoting_it() {
    for (path, text) in [
        (
            "a.json",
            r#"{"mcpServers": {"x": {"command": "hunter2", "command": "b"}}}"#,
        ),
        ("a.json", r#"{"mcpServers": {"x": hunter2}}"#),
        ("a.json", "{'mcpServers': {}}"),
        ("a.toml", "[mcp_servers.x]\ncommand = hunter2\n"),
        (
            "a.yaml",
            "mcpServers:\n  - &hunter2 {name: x, command: y}\n",
        ),
        ("a.yaml", "mcpServers: [hunter2\n"),
        ("a.yaml", "a: 1\n---\nb: 2\n"),
    ] {
        let fault = Syntax::of(Path::new(path))
            .parse(text)
            .err()
            .map(|fault| fault.to_string());
        let fault = fault.unwrap_or_else(|| panic!("{text}"));
        assert!(fault.contains("line"), "{fault}");
        assert!(!fault.contains("hunter2"), "{fault}");
    }
}

#[test]
fn what_is_not_understood_is_left_alone() {
    for server in [
        r#"{"command": "npx", "args": ["-y", 3]}"#,
        r#"{"command": ["npx", "-y"]}"#,
        r#"{"command": "${workspaceFolder}/server"}"#,
        r#"{"command": null}"#,
        r"{}",
        r"7",
    ] {
        let text = format!(r#"{{"mcpServers": {{"x": {server}}}}}"#);
        assert_eq!(rewritten("a.json", &text), (text.clone(), 0));
        let root = Syntax::Json.parse(&text).unwrap();
        let found = entries(Format::of(Path::new("a.json")), &text, &root);
        assert!(
            matches!(found.first().unwrap().how, How::Other(_)),
            "{server}"
        );
    }
}

#[test]
fn one_server_has_one_name_and_two_have_two() {
    let text = r#"{"mcpServers": {"a!": {"command": "x", "args": ["1"]}},
        "projects": {"/p": {"mcpServers": {"a?": {"command": "x", "args": ["1"]}}},
                     "/q": {"mcpServers": {"a?": {"command": "x", "args": ["2"]}}}}}"#;
    let (text, changes) = rewritten("/home/d/.claude.json", text);
    assert_eq!(changes, 3);
    assert_eq!(text.matches(r#"["run", "a"]"#).count(), 2);
    assert_eq!(text.matches(r#"["run", "a-2"]"#).count(), 1);
}

const POLICY: &str = r#"
version: 1
servers:
  files:
    purpose: files
    owner: me
    launch: { command: npx, args: [-y, "@modelcontextprotocol/server-filesystem", /srv] }
  git: { purpose: git, owner: me, launch: { command: uvx, args: [mcp-server-git] } }
  taken: { purpose: x, owner: me, url: "https://mcp.example.com/mcp" }
"#;

fn compile(text: &str) -> exeat_policy::PolicySet {
    let source = exeat_policy::Source {
        name: "policy.yaml".into(),
        text: text.into(),
    };
    exeat_policy::compile(&[source]).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
}

#[test]
fn what_the_register_has_is_not_proposed_again() {
    let set = compile(POLICY);
    let mut register = Register::new(Some(&set));
    let stdio = |command: &str, args: &[&str]| super::Stdio {
        command: command.into(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: Vec::new(),
    };
    // The same command under another name, another path under the same name.
    let git = stdio("uvx", &["mcp-server-git"]);
    assert_eq!(register.name("repository", &git), "git");
    let files = stdio(
        "npx",
        &["@modelcontextprotocol/server-filesystem@2026.8.31", "/home"],
    );
    assert_eq!(register.name("files", &files), "files");
    assert_eq!(
        register.remote("other", "https://mcp.example.com/mcp?key=1"),
        None
    );
    assert!(register.proposals().is_empty());
    assert_eq!(register.name("taken", &stdio("x", &[])), "taken-2");
    assert_eq!(
        document(&register.proposals(), &[])
            .matches("purpose:")
            .count(),
        1
    );
}

#[test]
fn secrets_are_named_and_not_told() {
    let text = r#"{"mcpServers": {
      "github": {"command": "npx", "args": ["-y", "@x/github-mcp", "--token", "hunter2", "--url", "https://u:hunter3@x.example/?api_key=hunter4"],
        "env": {"GITHUB_TOKEN": "hunter5", "PLAIN": "ghp_0123456789abcdefghijABCDEFGHIJ012345", "LEVEL": "debug", "UV": "${env:UV}", "no-name": "x"}},
      "keyed": {"url": "https://hunter6@x.example/mcp"},
      "queried": {"url": "https://x.example/mcp?key=hunter7"}
    }}"#;
    let mut register = Register::default();
    let path = Path::new("a.json");
    let done = rewrite(
        Format::of(path),
        Syntax::Json,
        text,
        "exeat",
        |entry, stdio| register.name(&entry.name, stdio),
    );
    assert_eq!(
        register.remote("keyed", "https://hunter6@x.example/mcp"),
        None
    );
    let queried = register.remote("queried", "https://x.example/mcp?key=hunter7");
    assert_eq!(queried.as_deref(), Some("queried"));
    let proposed = document(&register.proposals(), &[]);
    assert!(
        !proposed.contains("hunter") && !proposed.contains("ghp_"),
        "{proposed}"
    );
    assert!(!format!("{:?}", done.unwrap()).contains("hunter"));
    insta::assert_snapshot!(proposed);
    compile(&proposed);
}

struct Home {
    directory: TempDir,
}

impl Home {
    fn with(path: &str, text: &str) -> (Self, PathBuf) {
        let directory = TempDir::new().unwrap();
        let file = directory.path().canonicalize().unwrap().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut options = fs::OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o640).open(&file);
        made.unwrap().write_all(text.as_bytes()).unwrap();
        (Self { directory }, file)
    }

    /// Imports a file; its backup.
    fn import(&self, file: &Path) -> PathBuf {
        assert!(self.directory.path().exists());
        let listed = open(file, uid()).unwrap();
        let mut register = Register::default();
        let rewritten = plan(&listed, "exeat", &mut register).unwrap();
        assert!(!rewritten.changes.is_empty());
        write(&listed, &rewritten).unwrap()
    }
}

#[test]
fn undo_gives_back_the_same_bytes() {
    for (path, before, after) in FILES {
        let (home, file) = Home::with(path, before);
        let backup = home.import(&file);
        assert_eq!(fs::read_to_string(&file).unwrap(), *after, "{path}");
        assert_eq!(fs::read_to_string(&backup).unwrap(), *before, "{path}");
        for file in [&file, &backup] {
            assert_eq!(fs::metadata(file).unwrap().mode() & 0o7777, 0o640, "{path}");
        }
        undo(&file, uid()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), *before, "{path}");
        assert_eq!(
            fs::metadata(&file).unwrap().mode() & 0o7777,
            0o640,
            "{path}"
        );
        // Neither the backup nor a temporary file stays.
        assert_eq!(
            fs::read_dir(file.parent().unwrap()).unwrap().count(),
            1,
            "{path}"
        );
        assert!(
            matches!(undo(&file, uid()), Err(UndoFault::Nothing(_))),
            "{path}"
        );
    }
}

#[test]
fn undo_refuses_a_file_that_changed_since() {
    let (path, before, after) = FILES.first().unwrap();
    let (home, file) = Home::with(path, before);
    let backup = home.import(&file);
    fs::write(&file, format!("{after} ")).unwrap();
    let fault = undo(&file, uid()).unwrap_err();
    assert!(
        fault.to_string().contains(backup.to_str().unwrap()),
        "{fault}"
    );
    assert_eq!(fs::read_to_string(&backup).unwrap(), *before);
    fs::write(&file, after).unwrap();
    undo(&file, uid()).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), *before);
}

#[test]
fn a_link_is_followed_and_stays_a_link() {
    let (path, before, after) = FILES.first().unwrap();
    let (home, file) = Home::with(path, before);
    let link = home.directory.path().join("link.json");
    symlink(&file, &link).unwrap();
    home.import(&link);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&file).unwrap(), *after);
    undo(&link, uid()).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), *before);
}

#[test]
fn what_changes_meanwhile_is_not_lost() {
    let (path, before, _) = FILES.first().unwrap();
    let (_home, file) = Home::with(path, before);
    let listed = open(&file, uid()).unwrap();
    let rewritten = plan(&listed, "exeat", &mut Register::default()).unwrap();
    fs::write(&file, "{}").unwrap();
    assert!(matches!(
        write(&listed, &rewritten),
        Err(PlaceFault::Changed(_))
    ));
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn only_a_regular_file_of_bounded_size_is_read() {
    let (home, file) = Home::with("a.json", "{}");
    let pipe = home.directory.path().join("pipe.json");
    mkfifo(&pipe, Mode::S_IRUSR).unwrap();
    assert!(
        open(&pipe, uid())
            .unwrap_err()
            .to_string()
            .contains("no regular file")
    );
    open(home.directory.path(), uid()).unwrap_err();
    let absent = open(&home.directory.path().join("absent"), uid()).unwrap_err();
    assert!(matches!(absent, super::FileFault::Place(fault) if fault.is_absent()));
    fs::File::create(&file)
        .unwrap()
        .set_len(super::MAX_FILE + 1)
        .unwrap();
    assert!(
        open(&file, uid())
            .unwrap_err()
            .to_string()
            .contains("16 MiB")
    );
    fs::write(&file, [0xff]).unwrap();
    assert!(
        open(&file, uid())
            .unwrap_err()
            .to_string()
            .contains("UTF-8")
    );
}

/// Needs root, as the tests of the whole project do: only root is led astray by others' links.
#[test]
fn root_follows_nobody_elses_links() {
    use std::os::unix::fs::{chown, lchown};
    assert_eq!(uid(), 0, "this test needs root");
    let (path, before, _) = FILES.first().unwrap();
    let (home, file) = Home::with(path, before);
    let base = home.directory.path().canonicalize().unwrap();
    let (mallory, dave) = (40_001, 40_002);
    let refused = |path: &Path, owner| {
        let fault = open(path, owner).map(|listed| listed.place.path);
        assert!(
            matches!(
                fault,
                Err(super::FileFault::Place(PlaceFault::Owner { .. }))
            ),
            "{fault:?}"
        );
    };
    // Root's own file through mallory's link, for root and for mallory.
    let link = base.join("link.json");
    symlink(&file, &link).unwrap();
    lchown(&link, Some(mallory), Some(mallory)).unwrap();
    refused(&link, 0);
    refused(&link, mallory);
    // Dave's file, for root and for mallory; for dave it is his and stays his.
    chown(&file, Some(dave), Some(dave)).unwrap();
    refused(&file, 0);
    refused(&file, mallory);
    let listed = open(&file, dave).unwrap();
    let rewritten = plan(&listed, "exeat", &mut Register::default()).unwrap();
    let backup = write(&listed, &rewritten).unwrap();
    for file in [&file, &backup] {
        let metadata = fs::metadata(file).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (dave, dave));
    }
    // A directory of mallory's on the way to dave's file.
    chown(file.parent().unwrap(), Some(mallory), None).unwrap();
    refused(&file, dave);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table is read line by line")]
fn packages_are_known_behind_their_launchers() {
    let npm = |name: &str| Package::Npm(name.into());
    let python = |name: &str| Package::Python(name.into());
    let program = |name: &str| Package::Program(name.into());
    for (line, package) in [
        (
            "npx -y @modelcontextprotocol/server-github@2026.8.31",
            npm("@modelcontextprotocol/server-github"),
        ),
        ("/usr/bin/npx --yes --package=@a/b b", npm("@a/b")),
        ("npx -p @a/b@1 b", npm("@a/b")),
        ("npm exec -y mcp-sqlite", npm("mcp-sqlite")),
        (
            "node /usr/lib/node_modules/npm/bin/npx-cli.js -y x-mcp",
            npm("x-mcp"),
        ),
        (
            "node /home/d/.npm/_npx/1f/node_modules/@a/b-mcp/dist/index.js --x",
            npm("@a/b-mcp"),
        ),
        ("node --require x /srv/index.js", program("/srv/index.js")),
        ("bunx x-mcp", npm("x-mcp")),
        ("deno run -A npm:@a/mcp@1", npm("@a/mcp")),
        ("uvx --from mcp_server.git==1.0 x", python("mcp-server-git")),
        (
            "uvx mcp-server-time@latest --tz UTC",
            python("mcp-server-time"),
        ),
        ("uv --version", program("uv")),
        ("uv run --directory /srv server.py", program("server.py")),
        (
            "uv run --with mcp python -m mcp_server_x",
            python("mcp-server-x"),
        ),
        ("pipx run --spec a_b c", python("a-b")),
        ("python3.12 -m mcp_server_fetch", python("mcp-server-fetch")),
        (
            "/opt/venv/bin/python /opt/venv/bin/mcp-server-fetch",
            python("mcp-server-fetch"),
        ),
        (
            "docker run -i --rm -e TOKEN ghcr.io/github/github-mcp-server:v1",
            Package::Image("ghcr.io/github/github-mcp-server".into()),
        ),
        ("docker ps", program("docker")),
        ("env A=b npx x-mcp", npm("x-mcp")),
        (
            "/usr/local/bin/weather-mcp --x",
            program("/usr/local/bin/weather-mcp"),
        ),
    ] {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (command, args) = words.split_first().unwrap();
        assert_eq!(Package::of(command, args), package, "{line}");
    }
    let shell = ["-c".to_owned(), "exec npx -y x-mcp".to_owned()];
    assert_eq!(Package::of("/bin/sh", &shell), npm("x-mcp"));
    assert!(program("weather-mcp").is(&program("/usr/bin/weather-mcp")));
    assert!(program("/opt/bin/mcp-server-git").is(&python("mcp-server-git")));
    assert!(!program("/a/x").is(&program("/b/x")));
    for (package, is) in [
        (npm("@modelcontextprotocol/server-memory"), true),
        (python("mcp-server-git"), true),
        (program("/srv/weather-mcp/index.js"), true),
        (program("/usr/bin/git"), false),
        (npm("typescript"), false),
        (npm("@modelcontextprotocol/inspector"), false),
    ] {
        assert_eq!(package.is_mcp(), is, "{package:?}");
    }
}

/// A JSON value that has nothing to do with servers, as it may be written.
fn unrelated() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("null".to_owned()),
        Just("true /* so */".to_owned()),
        Just("1.5e-7".to_owned()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[ {}\t]", items.join(" ,\n"))),
            prop::collection::vec(inner, 0..4).prop_map(|items| {
                let members = items.iter().enumerate();
                let members = members.map(|(at, item)| format!("\"k{at}\" : {item} // \u{e9}\n"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(any::<String>(), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn unrelated_bytes_never_change(
        before in unrelated(), between in unrelated(), after in unrelated(),
        command in "[a-z/é]{1,12}", args in texts(), name in any::<String>(),
    ) {
        let key = serde_json::to_string(&name).unwrap();
        let with = |command: &str, args: &str| format!(
            "{{ \"before\": {before},\n \"mcpServers\": {{ {key}: {{ \"env\": {between},\n  \"args\":{args} ,\"command\"  :{command}, \"k\":{after}, }} }},\n\"after\": {after} }}\n"
        );
        let text = with(&serde_json::to_string(&command).unwrap(), &serde_json::to_string(&args).unwrap());
        let mut register = Register::default();
        let path = Path::new("a.json");
        let done = rewrite(Format::of(path), Syntax::Json, &text, "exeat", |entry, stdio| {
            register.name(&entry.name, stdio)
        }).unwrap();
        let change = done.changes.first().unwrap();
        let items: Vec<String> = change.after.1.iter().map(|arg| super::tree::quoted(arg)).collect();
        prop_assert_eq!(&done.text, &with("\"exeat\"", &format!("[{}]", items.join(", "))));
        // Nothing is lost: the register's part and the host's are the whole.
        let own = change.after.1.get(3..).unwrap_or_default();
        let kept = change.before.args.len() - own.len();
        prop_assert_eq!(&change.before.args[kept..], own);
        // And what is proposed is a policy.
        compile(&document(&register.proposals(), &[]));
    }

    #[test]
    fn a_proposal_is_a_policy_and_tells_no_secret(
        name in any::<String>(), command in "[^$]{1,20}", args in texts(),
        variables in prop::collection::vec(("[A-Za-z_][A-Za-z0-9_]{0,8}", any::<String>()), 0..4),
    ) {
        let mut env: Vec<(String, String)> = vec![("ACCESS_TOKEN".into(), "hunter2-hunter2".into())];
        for (variable, value) in variables {
            if env.iter().all(|(name, _)| *name != variable) {
                env.push((variable, value));
            }
        }
        let mut register = Register::default();
        register.name(&name, &super::Stdio { command, args, env });
        let text = document(&register.proposals(), &[]);
        prop_assert!(!text.contains("hunter2"), "{}", text);
        compile(&text);
    }
}
