//! Who may ask what, and which process answers: the one table.
//!
//! | command | administrator | ordinary user | managed process | answered by |
//! |---|---|---|---|---|
//! | `status`, `servers`, `servers show`, `audit query`, `audit tail`, `doctor` | all | own | refused | gate |
//! | `run` | as policy decides | as policy decides | as policy decides | supervisor |
//! | `policy explain` | all | refused | refused | gate |
//! | `approvals` | all | own, and what they may approve | refused | gate |
//! | `approvals approve`, `approvals deny`, `approvals decide` | as policy decides | as policy decides | refused | gate |
//! | `canary`, `reload` | all | refused | refused | supervisor |
//! | `servers disconnect`, `servers reconnect` | root alone | refused | refused | supervisor |
//! | `ca export` | all | all | all | gate |
//!
//! Own of the register and of what `status` says of it are the servers that the user may start or call by policy, alone or
//! in a host that runs for it. Whether policy is enforced, which is in force and how large it is, everybody is told.
//!
//! Administrators are root and the users *listed* as members of the group `exeat`. Having it as the
//! primary group is not enough: that is how the gate's own user has it, and a gate that was taken
//! over must not steer the supervisor. A process within a managed cgroup is a managed process,
//! whoever its user is: a server that runs as an administrator must not read the log or learn the
//! policy. The gate itself may ask nothing.

use serde::{Deserialize, Serialize};

use super::command::Command;

/// What a client is to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Root itself.
    Root,
    /// A listed member of the administrators' group.
    Administrator,
    /// Anybody else who has an account.
    Ordinary,
    /// A process in a managed workload.
    Managed,
    /// The gate.
    Gate,
}

impl Standing {
    /// In the words of a refusal.
    pub const fn described(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Administrator => "administrators: only root may do it",
            Self::Ordinary => "ordinary users: ask an administrator",
            Self::Managed => "processes under policy",
            Self::Gate => "the gate",
        }
    }
}

/// How much of the answer a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    All,
    /// What carries the client's own uid, and the servers that it may use.
    Own,
    /// What policy decides for this client.
    Policy,
    /// Nothing.
    Refused,
}

/// Which process answers a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The privileged one.
    Supervisor,
    /// The unprivileged one.
    Gate,
}

/// What `standing` gets of `command`.
pub const fn scope(standing: Standing, command: &Command) -> Scope {
    match standing {
        Standing::Gate => Scope::Refused,
        Standing::Root => root(command),
        Standing::Administrator => administrator(command),
        Standing::Ordinary => ordinary(command),
        Standing::Managed => managed(command),
    }
}

const fn root(command: &Command) -> Scope {
    match command {
        Command::ServerDisconnect(_) | Command::ServerReconnect(_) => Scope::All,
        command => administrator(command),
    }
}

const fn administrator(command: &Command) -> Scope {
    match command {
        Command::Run(_) | Command::ApprovalDecide(_) | Command::ApprovalLink(_) => Scope::Policy,
        Command::ServerDisconnect(_) | Command::ServerReconnect(_) => Scope::Refused,
        Command::Status
        | Command::Approvals
        | Command::Canary
        | Command::Servers
        | Command::ServerShow(_)
        | Command::AuditQuery(_)
        | Command::AuditTail(_)
        | Command::PolicyExplain(_)
        | Command::Reload
        | Command::CaExport
        | Command::Doctor => Scope::All,
    }
}

const fn ordinary(command: &Command) -> Scope {
    match command {
        Command::Run(_) | Command::ApprovalDecide(_) | Command::ApprovalLink(_) => Scope::Policy,
        Command::CaExport => Scope::All,
        Command::Status
        | Command::Doctor
        | Command::Approvals
        | Command::Servers
        | Command::ServerShow(_)
        | Command::AuditQuery(_)
        | Command::AuditTail(_) => Scope::Own,
        Command::PolicyExplain(_)
        | Command::Canary
        | Command::Reload
        | Command::ServerDisconnect(_)
        | Command::ServerReconnect(_) => Scope::Refused,
    }
}

const fn managed(command: &Command) -> Scope {
    match command {
        Command::Run(_) => Scope::Policy,
        Command::CaExport => Scope::All,
        Command::Status
        | Command::Approvals
        | Command::ApprovalDecide(_)
        | Command::ApprovalLink(_)
        | Command::Canary
        | Command::Servers
        | Command::ServerShow(_)
        | Command::ServerDisconnect(_)
        | Command::ServerReconnect(_)
        | Command::AuditQuery(_)
        | Command::AuditTail(_)
        | Command::PolicyExplain(_)
        | Command::Reload
        | Command::Doctor => Scope::Refused,
    }
}

impl Command {
    /// Which process answers it.
    pub const fn place(&self) -> Place {
        match self {
            Self::Run(_)
            | Self::Reload
            | Self::Canary
            | Self::ServerDisconnect(_)
            | Self::ServerReconnect(_) => Place::Supervisor,
            Self::Status
            | Self::Servers
            | Self::ServerShow(_)
            | Self::Approvals
            | Self::ApprovalDecide(_)
            | Self::ApprovalLink(_)
            | Self::AuditQuery(_)
            | Self::AuditTail(_)
            | Self::PolicyExplain(_)
            | Self::CaExport
            | Self::Doctor => Place::Gate,
        }
    }
}
