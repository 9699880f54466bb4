//! What can be typed: the grammar of the command line, with an example for each command.

mod policy;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::de::DeserializeOwned;

pub use self::policy::{
    CheckArguments, DiffArguments, DraftArguments, ExplainArguments, PolicyCommand, TestArguments,
};
pub use super::internal::InternalCommand;
use crate::audit::record::Effect;
use crate::audit::{Kind, RecordId, Status};

/// Lets MCP servers and agents reach what policy allows, and records what they do.
#[derive(Debug, Parser)]
#[command(
    name = "exeat",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "\
Exit status: 0 done, 1 refused or found something, 2 usage or configuration, 3 daemon unreachable.

Examples:
  exeat doctor                     what this machine supports
  exeat policy check               is the policy right?
  exeat run github                 start a registered server
  exeat audit tail                 watch what happens"
)]
pub struct Cli {
    /// Options that every command has.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Print JSON: one document, or a line for each item of a stream
    #[arg(long, global = true)]
    pub json: bool,
    /// The daemon's configuration file
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The daemon's control socket, where it is not the configured one
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon, in the foreground
    #[command(after_help = "\
Examples:
  sudo exeat daemon                          with /etc/exeat
  sudo exeat daemon --policy ./policy.d      with another policy
  systemctl start exeat                      as a service")]
    Daemon(DaemonArguments),
    /// Start a registered stdio server under its policy, on this terminal or these pipes
    #[command(after_help = "\
The exit status is the server's own; a signal that ended the server ends this command, too.

Examples:
  exeat run github                           what a host's configuration calls
  exeat run github -- --toolsets issues      with arguments that its `extra_args` cover
  {\"mcpServers\": {\"github\": {\"command\": \"exeat\", \"args\": [\"run\", \"github\"]}}}")]
    Run(RunArguments),
    /// Show what runs, and prove that policy is enforced
    #[command(after_help = "\
Examples:
  exeat status                     with a live proof: a managed process tries what is forbidden
  exeat status --no-canary         without it
  exeat status --json | jq .status.workloads")]
    Status(StatusArguments),
    /// Show the register of servers, and who may call what
    #[command(after_help = "\
Examples:
  exeat servers                    all of them
  exeat servers show github        one, with what it may reach
  sudo exeat servers matrix        how many tools each role may call
  sudo exeat servers disconnect github --reason \"leaks tokens\"
  sudo exeat servers reconnect github")]
    Servers(ServersArguments),
    /// Show the calls that wait for a person, and decide on them
    #[command(after_help = "\
Listed is what you called and what you may approve; to administrators, everything. Who calls cannot approve.

Examples:
  exeat approvals                  what waits
  exeat approvals approve 3f9c02a7b1d4
  exeat approvals deny 3f9c02a7b1d4 --reason \"not before the audit\"")]
    Approvals(ApprovalsArguments),
    /// Have the MCP hosts of this machine start their servers through Exeat
    #[command(
        subcommand,
        after_help = "\
Examples:
  exeat hosts import --dry-run     what would change in your hosts' configuration
  exeat hosts import               the same, then asks and writes
  exeat hosts import --undo"
    )]
    Hosts(HostsCommand),
    /// List the MCP servers and hosts of this machine, registered or not
    #[command(after_help = "\
Looked at: hosts' configuration files (your own; as root, everybody's), running processes, listening sockets
and the audit log. Nothing is sent to anyone, unless --probe says so.
Exit status 1: a server or host is not registered, or is started without Exeat.

Examples:
  sudo exeat discover              everybody's
  exeat discover --probe           and ask each local listener whether it speaks MCP
  exeat discover --json | jq '.found[] | select(.standing != \"managed\")'")]
    Discover(DiscoverArguments),
    /// Ask the audit log who did what
    #[command(
        subcommand,
        after_help = "\
Examples:
  exeat audit query --since 2h --effect deny
  exeat audit query --since \"last tuesday\" --until \"last tuesday\" --server github
  exeat audit tail --kind finding"
    )]
    Audit(AuditCommand),
    /// Check the policy, and ask it why
    #[command(
        subcommand,
        after_help = "\
Examples:
  exeat policy check ./policy.d
  exeat policy explain --user dave --server github --tool create_issue
  exeat policy explain --server github --request GET https://api.github.com/user"
    )]
    Policy(PolicyCommand),
    /// Show or install the certificate of the daemon's CA
    #[command(
        subcommand,
        after_help = "\
Examples:
  exeat ca export > exeat-ca.pem
  sudo exeat ca install            trust it on this whole machine
  sudo exeat ca install --undo"
    )]
    Ca(CaCommand),
    /// Say what this machine supports, and what to do about what it does not
    #[command(after_help = "\
Examples:
  exeat doctor
  exeat doctor --no-runtimes       without starting node, python and the like
  exeat doctor --json | jq '.[] | select(.standing != \"ok\")'")]
    Doctor(DoctorArguments),
    /// Detach the programs that hold processes to the policy; they stay in the kernel without the daemon
    #[command(after_help = "\
Refused while the daemon runs, and while a server that it started does. Keys, records and policy stay.
Processes that others started are free afterwards.

Examples:
  sudo systemctl stop exeat && sudo exeat uninstall")]
    Uninstall,
    /// The unprivileged half of the daemon, which starts it
    #[command(hide = true)]
    Gate,
    /// For Exeat's own use
    #[command(subcommand, hide = true)]
    Internal(InternalCommand),
}

/// Of `daemon`.
#[derive(Debug, Args)]
pub struct DaemonArguments {
    /// The policy, a file or a directory, instead of the configured one
    #[arg(long, value_name = "PATH")]
    pub policy: Option<PathBuf>,
}

/// Of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The server's name in the register
    pub name: String,
    /// Arguments after those of the register
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// Of `status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Do not start the process that proves enforcement
    #[arg(long)]
    pub no_canary: bool,
}

/// Of `approvals`.
#[derive(Debug, Args)]
pub struct ApprovalsArguments {
    /// What to do with them; absent: list.
    #[command(subcommand)]
    pub command: Option<ApprovalsCommand>,
}

/// What to do with a call that waits.
#[derive(Debug, Subcommand)]
pub enum ApprovalsCommand {
    /// Let one call pass, once, exactly as it is
    #[command(after_help = "Example:\n  exeat approvals approve 3f9c02a7b1d4")]
    Approve {
        /// Its id, as `exeat approvals` lists it
        id: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Do what the link of a message says, as whom it was made for
    #[command(
        after_help = "Example:\n  exeat approvals decide --token 3f9c02a7b1d4/approve/dana/1798750000/8c1f..."
    )]
    Decide {
        /// The link, or what stands in it behind `/approvals/`
        #[arg(long, value_name = "TOKEN")]
        token: String,
    },
    /// Refuse one call
    #[command(
        after_help = "Example:\n  exeat approvals deny 3f9c02a7b1d4 --reason \"not before the audit\""
    )]
    Deny {
        /// Its id, as `exeat approvals` lists it
        id: String,
        /// Why, for the record and for the caller
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// Of `servers`.
#[derive(Debug, Args)]
pub struct ServersArguments {
    /// What to do with them; absent: list.
    #[command(subcommand)]
    pub command: Option<ServersCommand>,
}

/// Of `servers matrix`.
#[derive(Debug, Args)]
pub struct MatrixArguments {
    /// The policy: a file or directory, in place of what the daemon loads
    #[arg(long, value_name = "PATH")]
    pub policy: Option<PathBuf>,
    /// Name the grants by which nothing that was recorded was allowed
    #[arg(long)]
    pub unused: bool,
    /// Look at records since this time
    #[arg(long, value_name = "TIME", requires = "unused", default_value = "30d")]
    pub since: String,
    /// Where to read.
    #[command(flatten)]
    pub directory: DirectoryArguments,
}

/// What to do with a server.
#[derive(Debug, Subcommand)]
pub enum ServersCommand {
    /// Show one server, with what it may reach
    #[command(after_help = "Example:\n  exeat servers show github")]
    Show {
        /// Its name in the register
        name: String,
    },
    /// Show which role may call how many tools of which server
    #[command(after_help = "\
Counted is what every member of the role may call with some arguments, of the tools that are known: those that the
register names, and those that the server has listed since the gate began. --json names them.
Exit status 1, with --unused: a grant was not used.

Examples:
  sudo exeat servers matrix
  sudo exeat servers matrix --unused --since 30d           and the grants that nobody used
  exeat servers matrix --policy ./policy.d --json | jq '.cells[] | select(.role == \"reader\")'")]
    Matrix(Box<MatrixArguments>),
    /// Cut one server off: it reaches nothing, and nobody reaches it, until it is reconnected
    #[command(after_help = "\
Its callers are told; nothing hangs. It holds over restarts of the daemon and of the machine. Only for root.

Examples:
  sudo exeat servers disconnect github --reason \"leaks tokens\"
  sudo exeat servers disconnect github --drain             calls in flight may take 30 seconds
  sudo exeat servers disconnect github --drain --within 120")]
    Disconnect {
        /// Its name in the register
        name: String,
        /// Let calls in flight come to their end; new ones are refused at once
        #[arg(long)]
        drain: bool,
        /// Seconds that calls in flight may take
        #[arg(long, value_name = "SECONDS", requires = "drain", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
        within: u32,
        /// Why, for the record and for those who look
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Take a disconnection back: policy alone decides again
    #[command(
        after_help = "Example:\n  sudo exeat servers reconnect github --reason \"token was rotated\""
    )]
    Reconnect {
        /// Its name in the register
        name: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// What to do with hosts.
#[derive(Debug, Subcommand)]
pub enum HostsCommand {
    /// Rewrite hosts' configuration so that each server is started by `exeat run`, and propose register entries
    #[command(after_help = "\
Without FILE: the files that known hosts keep in your home, and in the current directory.
Known: Claude Desktop, Claude Code, Cursor, VS Code, GitHub Copilot, Windsurf, Zed, Continue, Cline, Codex, Gemini CLI.
Only the command and its arguments change, after a backup beside the file; --undo puts the file back unless it
changed since. Secrets are never shown.

Examples:
  exeat hosts import --dry-run
  exeat hosts import ~/.cursor/mcp.json --entries servers.yaml
  sudo exeat hosts import --user dave --yes
  exeat hosts import --undo ~/.cursor/mcp.json")]
    Import(ImportArguments),
}

/// Of `hosts import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Configuration files of hosts
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Put the files back as they were
    #[arg(long, conflicts_with_all = ["entries", "exeat", "policy", "dry_run"])]
    pub undo: bool,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Write without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// For this user, whose home and files it is then; for root
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Write the proposed register entries to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub entries: Option<PathBuf>,
    /// The register: a policy file or directory, instead of the configured one
    #[arg(long, value_name = "PATH")]
    pub policy: Option<PathBuf>,
    /// How the hosts call Exeat, where it is not in their PATH
    #[arg(long, value_name = "PATH")]
    pub exeat: Option<PathBuf>,
}

/// Of `discover`.
#[derive(Debug, Args)]
pub struct DiscoverArguments {
    /// Ask each TCP listener on this machine whether it speaks MCP: a few requests to /mcp, /sse and /
    #[arg(long)]
    pub probe: bool,
    /// The register: a policy file or directory, instead of the configured one
    #[arg(long, value_name = "PATH")]
    pub policy: Option<PathBuf>,
    /// How far back in the audit log
    #[arg(long, value_name = "TIME", default_value = "7d")]
    pub since: String,
    /// Read the audit log's segments in this directory, without the daemon
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
}

/// What to ask the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the records that match, oldest first
    #[command(after_help = "\
Times: 10m, 2h, 3d, 1w (ago); today, yesterday, tuesday, \"last tuesday\"; 2026-11-20,
\"2026-11-20 14:05\", 14:05; 2026-11-20T14:05:00Z. A day given to --until is included.

Examples:
  exeat audit query --since 10m
  exeat audit query --since yesterday --until yesterday --effect deny
  exeat audit query --tool create_issue --text acme --limit 20 --json
  sudo exeat audit query --dir /var/lib/exeat/audit      without the daemon")]
    Query(QueryArguments),
    /// Print the records that match as they are written
    #[command(after_help = "\
Examples:
  exeat audit tail
  exeat audit tail --effect deny --server github
  exeat audit tail --json | jq .decision")]
    Tail(FilterArguments),
    /// Prove that the log is complete and unchanged
    #[command(after_help = "\
Examples:
  sudo exeat audit verify
  exeat audit verify --dir ./copied-segments
  sudo exeat audit verify --known 18234:9f2c...  was anything cut off since?")]
    Verify(VerifyArguments),
    /// Print the JSON Schema of a record
    #[command(after_help = "Example:\n  exeat audit schema > record.schema.json")]
    Schema,
}

/// Of `audit query`.
#[derive(Debug, Clone, Args)]
pub struct QueryArguments {
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArguments,
    /// Not before this time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Not after this time; of a day, its end
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// The newest so many of those that match
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: Option<u32>,
    /// Where to read.
    #[command(flatten)]
    pub directory: DirectoryArguments,
}

/// Which records.
#[derive(Debug, Default, Clone, PartialEq, Eq, Args)]
pub struct FilterArguments {
    /// Kind of record: mcp, http, tcp, dns, exec, approval, policy, finding, lifecycle
    #[arg(long, value_name = "KIND", value_parser = word::<Kind>)]
    pub kind: Option<Kind>,
    /// Name of the server, acting or called; * stands for any letters
    #[arg(long, value_name = "NAME")]
    pub server: Option<String>,
    /// Name of the calling identity or Unix user; * stands for any letters
    #[arg(long, value_name = "NAME")]
    pub caller: Option<String>,
    /// Name of the tool, prompt or resource; * stands for any letters
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// What was decided: allow, deny, approve, `dry_run`
    #[arg(long, value_name = "EFFECT", value_parser = word::<Effect>)]
    pub effect: Option<Effect>,
    /// How it ended: done, refused, failed, abandoned
    #[arg(long, value_name = "STATUS", value_parser = word::<Status>)]
    pub status: Option<Status>,
    /// This record (its whole id) and those that it led to
    #[arg(long, value_name = "ID", value_parser = word::<RecordId>)]
    pub cause: Option<RecordId>,
    /// A text that occurs in the record
    #[arg(long)]
    pub text: Option<String>,
}

/// Where segments are read from.
#[derive(Debug, Clone, Args)]
pub struct DirectoryArguments {
    /// Read the segments in this directory, without the daemon
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
}

/// Of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// A record that must be in the log: the `head` of an earlier proof, kept elsewhere
    #[arg(long, value_name = "NUMBER:HASH")]
    pub known: Vec<String>,
    /// Where to read.
    #[command(flatten)]
    pub directory: DirectoryArguments,
}

/// A word of the audit log's schema.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
}

/// What to do with the CA.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Add the certificate to what this whole machine trusts; processes under `exeat run` need it not
    #[command(after_help = "\
Examples:
  sudo exeat ca install
  sudo exeat ca install --dry-run  only say what would be done
  sudo exeat ca install --undo")]
    Install(InstallArguments),
    /// Print the certificate as PEM
    #[command(after_help = "\
Examples:
  exeat ca export
  exeat ca export --output exeat-ca.pem")]
    Export(ExportArguments),
}

/// Of `ca install`.
#[derive(Debug, Args)]
pub struct InstallArguments {
    /// Take the certificate out again
    #[arg(long)]
    pub undo: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// Of `ca export`.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// Write it to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Do not start the runtimes that are found
    #[arg(long)]
    pub no_runtimes: bool,
}
