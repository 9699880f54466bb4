//! What can be typed after `exeat policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::QueryArguments;

/// What to do with the policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Report every fault in the policy's files, with file, line and column
    #[command(after_help = "\
Examples:
  exeat policy check                       what the daemon would load
  exeat policy check ./policy.d            other files, before they are installed
  exeat policy check a.yaml b.yaml --json  for editors and CI
  exeat policy check ./policy.d --manifest github=tools.json

Names of tools are compared with what servers list: what fits nothing is a warning by what the daemon saw since it
began, where it answers an administrator, and a fault by --manifest, which takes what `tools/list` answered (one page
after the other, each with its own --manifest) or `exeat servers show github --json`.")]
    Check(CheckArguments),
    /// Put the cases in *.test.yaml to the policy
    #[command(after_help = "\
Examples:
  exeat policy test                        the cases beside the policy that the daemon would load
  exeat policy test ./policy.d --junit report.xml
  exeat policy test a.yaml a.test.yaml

A file of cases:
  version: 1
  today: 2027-02-01                        left out: the day on which it runs
  cases:
    - name: dave may pay a little
      user: dave                           and host: NAME, for a managed host
      server: billing
      tool: pay                            or method: and of:, request: [GET, URL], connect:
      hints: { readOnlyHint: true }        what the server lists of the tool; left out: nothing
      args: { amountCents: 100 }
      expect: { effect: allow, rule: small-payments }
    - { name: nobody may, server: billing, tool: pay, expect: deny }
    - name: whoever shows a token          taken as it is written: nothing is verified
      token: { issuer: https://login.example.com, subject: ann, claims: { groups: [analysts] } }
      server: billing
      method: resources/read
      expect: deny
    - name: or a client certificate        uri, dns and email: one or a list; common_name
      certificate: { authority: corp, uri: spiffe://corp/robot }
      server: billing
      tool: pay
      expect: deny")]
    Test(TestArguments),
    /// Say how a call would be decided, by which rule, and why not by the others
    #[command(after_help = "\
Examples:
  exeat policy explain --user dave --server github --tool create_issue
  exeat policy explain --user dave --server github --tool create_issue --args '{\"title\":\"x\"}'
  exeat policy explain --user dave --server github      may dave start it?
  exeat policy explain --server github --request GET https://api.github.com/user
  exeat policy explain --server github --connect 10.20.0.7:5432 --policy ./policy.d
  exeat policy explain --user dave --server github --tool look --hint readOnlyHint=true
  exeat policy explain --issuer https://login.example.com --subject ann --claim groups=analysts --server github --tool search
  exeat policy explain --token-claims payload.json --server github --tool search
  exeat policy explain --authority corp --uri spiffe://corp/agent --server github --tool search

A token or a certificate is taken as it is stated: nothing is verified. The daemon answers by
limits' counts as they stand and by the hints that it saw servers list. --policy asks files alone:
limits are unused there, and a tool has the hints that are stated, or none. Breakers and
disconnections are not asked.")]
    Explain(Box<ExplainArguments>),
    /// Say what another policy would decide otherwise, of what was recorded
    #[command(after_help = "\
Examples:
  exeat policy diff /etc/exeat/policy.d ./policy.d
  exeat policy diff /etc/exeat/policy.d ./policy.d --since 7d --server github
  exeat policy diff old.yaml new.yaml --dir ./audit --json

Each recorded exchange is put to both policies; limits are counted from the first one on. Callers with tokens are known by the
identities in the record, where both policies define them alike. What cannot be told is counted, with the reason.")]
    Diff(Box<DiffArguments>),
    /// Write the least privilege that allows what was observed
    #[command(after_help = "\
Examples:
  sudo exeat policy draft --since 14d --output draft.yaml
  sudo exeat policy draft --since 14d --server github
  exeat policy draft --dir ./audit --policy ./policy.d > draft.yaml

The register is that of the policy; in place of its egress lists, allow rules and grants stands what was recorded as
allowed and still is. Rules that restrict, and limits, are kept. What a record leaves out (secrets, long texts, claims
of tokens) makes no constraint. Grants that nothing needed are named in comments. Exit status 1: something could not be told by a rule, and is left out.")]
    Draft(Box<DraftArguments>),
    /// Print the JSON Schema of policy files, for editors
    #[command(after_help = "Example:\n  exeat policy schema > exeat-policy.schema.json")]
    Schema,
}

/// Of `policy check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Files, or directories whose *.yaml files are taken in name order
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The same, as an option
    #[arg(long, value_name = "PATH")]
    pub policy: Option<PathBuf>,
    /// What a server lists, in place of asking the daemon; SERVER= where the file does not say whose it is
    #[arg(long, value_name = "[SERVER=]FILE")]
    pub manifest: Vec<String>,
}

/// Of `policy test`.
#[derive(Debug, Args)]
pub struct TestArguments {
    /// Files, or directories whose *.yaml and *.test.yaml files are taken in name order
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Write the result to this file too, as the XML that CI servers read
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

/// Of `policy diff`.
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// The policy to compare with: a file, or a directory whose *.yaml files are taken in name order
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// The policy that is compared
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// Which records.
    #[command(flatten)]
    pub records: QueryArguments,
}

/// Of `policy draft`.
#[derive(Debug, Args)]
pub struct DraftArguments {
    /// The policy to start from: a file or directory, in place of what the daemon loads
    #[arg(long, value_name = "PATH")]
    pub policy: Option<PathBuf>,
    /// Write to this new file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Which records.
    #[command(flatten)]
    pub records: QueryArguments,
}

/// Of `policy explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// Ask these files instead of the running daemon
    #[arg(long, value_name = "PATH")]
    pub policy: Option<PathBuf>,
    /// Unix user that calls
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Managed host that calls
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Issuer of the token that the call shows
    #[arg(long, value_name = "ISSUER")]
    pub issuer: Option<String>,
    /// Whom the token is about
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// What the token claims, a text; given twice for one NAME, a list
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "token_claims")]
    pub claim: Vec<String>,
    /// All that the token claims, a JSON object; its iss and sub stand for --issuer and --subject
    #[arg(long, value_name = "FILE")]
    pub token_claims: Option<PathBuf>,
    /// Authority of the client certificate that the call shows, as exeat.yaml calls it
    #[arg(long, value_name = "NAME")]
    pub authority: Option<String>,
    /// URI that the certificate names
    #[arg(long, value_name = "URI", requires = "authority")]
    pub uri: Vec<String>,
    /// Host that the certificate names
    #[arg(long, value_name = "NAME", requires = "authority")]
    pub dns: Vec<String>,
    /// Address of mail that the certificate names
    #[arg(long, value_name = "ADDRESS", requires = "authority")]
    pub email: Vec<String>,
    /// Common name of the certificate
    #[arg(long, value_name = "NAME", requires = "authority")]
    pub common_name: Option<String>,
    /// Server that is called, or whose outbound traffic is judged
    #[arg(long, value_name = "NAME")]
    pub server: Option<String>,
    /// Tool that is called
    #[arg(long, value_name = "NAME", group = "action")]
    pub tool: Option<String>,
    /// Protocol method, where it is not tools/call
    #[arg(long, value_name = "METHOD", group = "action")]
    pub method: Option<String>,
    /// Resource or prompt that the method names
    #[arg(long, value_name = "NAME", requires = "method")]
    pub name: Option<String>,
    /// Arguments of the call, a JSON object
    #[arg(long, value_name = "JSON")]
    pub args: Option<String>,
    /// Hint that the server lists of the tool: readOnlyHint, destructiveHint or openWorldHint; without --policy, in place
    /// of what the daemon saw
    #[arg(long, value_name = "NAME=BOOL", requires = "tool")]
    pub hint: Vec<String>,
    /// Outbound HTTP request of the server
    #[arg(long, num_args = 2, value_names = ["METHOD", "URL"], group = "action")]
    pub request: Option<Vec<String>>,
    /// The request asks for an upgrade
    #[arg(long, requires = "request")]
    pub upgrade: bool,
    /// The server has not read its first message, so that it may fetch its own code
    #[arg(long, conflicts_with = "host")]
    pub fetching: bool,
    /// Outbound TCP connection of the server
    #[arg(long, value_name = "HOST:PORT", group = "action")]
    pub connect: Option<String>,
    /// Outbound UDP of the server
    #[arg(long, value_name = "HOST:PORT", group = "action")]
    pub udp: Option<String>,
}
