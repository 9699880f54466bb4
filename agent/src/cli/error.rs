//! Why a command failed: the sentence, the next step, and the exit status.

use std::error::Error;
use std::fmt::Display;
use std::io;

use crate::control::{Code, ControlError, Failure, chain};

/// The kinds of failure that scripts can tell apart; the number is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Refused, or something was found.
    Refused,
    /// The command line, the configuration or the policy is wrong.
    Usage,
    /// The daemon cannot be reached.
    Unreachable,
    /// Whoever read the output has stopped reading: no failure of the command.
    Reader,
}

/// A failed command.
#[derive(Debug)]
pub(super) struct CliError {
    /// What scripts see.
    pub(super) kind: Kind,
    /// What failed, on what, and why: joined with colons; empty if the output has said it all.
    pub(super) message: String,
    /// What to do next.
    pub(super) next: Option<String>,
}

impl Kind {
    /// The process's exit status.
    pub(super) const fn status(self) -> u8 {
        match self {
            Self::Reader => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
        }
    }
}

impl CliError {
    /// Of this kind, with this sentence.
    pub(super) fn new(kind: Kind, message: impl Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            next: None,
        }
    }

    /// Of this kind, with the error and its causes.
    pub(super) fn from_error(kind: Kind, error: &(dyn Error + 'static)) -> Self {
        Self::new(kind, chain(error))
    }

    /// Something failed on this machine: `attempt` says what was tried on what.
    pub(super) fn io(attempt: impl Display, error: &io::Error) -> Self {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let failed = Self::new(Kind::Usage, format_args!("{attempt}: {error}"));
        if denied {
            failed.with_next("run it as root, with `sudo`")
        } else {
            failed
        }
    }

    /// The output has said what was found; only the exit status is left to say.
    pub(super) const fn found() -> Self {
        Self {
            kind: Kind::Refused,
            message: String::new(),
            next: None,
        }
    }

    /// With the next step.
    #[must_use]
    pub(super) fn with_next(mut self, next: impl Display) -> Self {
        self.next = Some(next.to_string());
        self
    }
}

impl From<ControlError> for CliError {
    fn from(error: ControlError) -> Self {
        let next = match &error {
            ControlError::Unreachable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "the control socket is not open to this user: see `ls -l` on its directory"
            }
            ControlError::Unreachable { .. } => {
                "start it with `systemctl start exeat`, or `sudo exeat daemon` in a terminal"
            }
            ControlError::Invalid { .. } => return Self::from_error(Kind::Usage, &error),
            _ => "see what the daemon says: `journalctl -u exeat`",
        };
        Self::from_error(Kind::Unreachable, &error).with_next(next)
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let kind = match failure.code {
            Code::Refused | Code::NotFound | Code::Internal => Kind::Refused,
            Code::Invalid => Kind::Usage,
            Code::Busy | Code::Unavailable => Kind::Unreachable,
        };
        let failed = Self::new(kind, failure.message);
        match failure.code {
            Code::Busy => failed.with_next("try again in a moment"),
            Code::Unavailable | Code::Internal => {
                failed.with_next("see what the daemon says: `journalctl -u exeat`")
            }
            Code::Refused | Code::NotFound | Code::Invalid => failed,
        }
    }
}

/// A failure to write the output.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Kind::Reader, "");
        }
        Self::new(Kind::Usage, format_args!("write the output: {error}"))
    }
}
