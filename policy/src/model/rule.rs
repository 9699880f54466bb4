//! Rules, limits and the words they are made of.

use std::fmt;
use std::sync::Arc;

use super::argument::{ArgumentTest, Pointer};
use crate::cel::Condition;
use crate::fault::Place;
use crate::glob::Glob;
use crate::number::Amount;
use crate::time::Date;

/// One rule, or one grant of a role.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name, unique over all files; of the first grant of role `reader` it is `reader/1`.
    pub id: Arc<str>,
    /// How it is written.
    pub written: Written,
    /// Identities and hosts that it is about, roles replaced by their members; empty: everyone.
    pub who: Vec<Arc<str>>,
    /// Servers that it is about; empty: all.
    pub servers: Vec<Arc<str>>,
    /// Patterns over the method; `None` means every method where the rule
    /// [is about everything](Self::is_about_everything), else `tools/call`.
    pub methods: Option<Vec<Glob>>,
    /// Which tools, prompts or resources.
    pub tools: Selector,
    /// Other forms of its patterns, where it restricts by URIs.
    pub(crate) also: Box<[Glob]>,
    /// What must hold of the arguments.
    pub args: Vec<ArgumentTest>,
    /// What else must hold.
    pub when: Option<Condition>,
    /// What follows.
    pub effect: Effect,
    /// Whether it is enforced.
    pub mode: Mode,
    /// What the record says about it.
    pub reason: Option<String>,
    /// Who may approve, of a rule that asks for an approval: identities and hosts, roles replaced by their
    /// members.
    pub approvers: Vec<Arc<str>>,
    /// How long an approval is waited for, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The last day (UTC) on which it holds.
    pub expires: Option<Date>,
    /// Where it is defined.
    pub place: Place,
}

impl Rule {
    /// Whether it narrows nothing but who and which servers, so that every method is meant, and starting the
    /// server too. What asks for an approval or a dry run is about calls alone.
    #[must_use]
    pub fn is_about_everything(&self) -> bool {
        self.methods.is_none()
            && self.tools == Selector::Any
            && !self.is_conditional()
            && matches!(self.effect, Effect::Allow | Effect::Deny)
    }

    /// Whether it looks at more than the name of what is called.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        !self.args.is_empty() || self.when.is_some()
    }
}

/// How a rule is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Under `rules`.
    Rule,
    /// As a grant of a role.
    Grant,
}

/// Which tools (or prompts, or resources) a rule or limit is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// All.
    Any,
    /// Those whose name matches one of the patterns; a request without a name has the empty one.
    Names(Vec<Glob>),
    /// Tools of these classes; never anything but a tool. A rule that allows means a tool with no other
    /// class, any other rule or limit a tool with any of them.
    Classes(ClassSet),
    /// Both: tools of these names and of these classes.
    Both(Vec<Glob>, ClassSet),
}

impl Selector {
    /// The patterns over names, where names count.
    #[must_use]
    pub fn names(&self) -> Option<&[Glob]> {
        match self {
            Self::Names(names) | Self::Both(names, _) => Some(names),
            Self::Any | Self::Classes(_) => None,
        }
    }

    /// The classes, where classes count.
    #[must_use]
    pub const fn classes(&self) -> Option<ClassSet> {
        match self {
            Self::Classes(classes) | Self::Both(_, classes) => Some(*classes),
            Self::Any | Self::Names(_) => None,
        }
    }
}

/// What a decision says, from the weakest to the strongest: of several rules the strongest effect counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// It may happen.
    Allow,
    /// It is answered as if it happened, and does not.
    DryRun,
    /// It waits for a person.
    Approve,
    /// It may not.
    Deny,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::DryRun => "dry_run",
            Self::Approve => "approve",
            Self::Deny => "deny",
        })
    }
}

/// Whether a denial is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum Mode {
    /// It is.
    #[default]
    Enforce,
    /// It is only recorded.
    Observe,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        })
    }
}

/// What a tool can do, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// It only reads.
    Read,
    /// It changes something, without destroying.
    Write,
    /// It may destroy.
    Destructive,
    /// It reaches the open world.
    External,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::External => "external",
        })
    }
}

/// The classes of one tool: one where the policy names it, up to two where only its hints are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClassSet(u8);

impl ClassSet {
    /// All classes, from least to most.
    const ALL: [Class; 4] = [
        Class::Read,
        Class::Write,
        Class::Destructive,
        Class::External,
    ];

    /// The set of these classes.
    #[must_use]
    pub fn of(classes: &[Class]) -> Self {
        Self(classes.iter().fold(0, |set, class| set | Self::bit(*class)))
    }

    /// The classes, from least to most.
    pub fn iter(self) -> impl Iterator<Item = Class> {
        Self::ALL
            .into_iter()
            .filter(move |class| self.0 & Self::bit(*class) != 0)
    }

    /// Whether any class is in both sets.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether every class of this set is in the other.
    #[must_use]
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    const fn bit(class: Class) -> u8 {
        match class {
            Class::Read => 1,
            Class::Write => 2,
            Class::Destructive => 4,
            Class::External => 8,
        }
    }
}

impl fmt::Display for ClassSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, class) in self.iter().enumerate() {
            write!(f, "{}{class}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A limit on messages: calls of tools, where it names no methods.
#[derive(Debug, Clone)]
pub struct Limit {
    /// What has a counter of its own; never empty.
    pub per: Vec<Per>,
    /// Servers that it is about; empty: all.
    pub servers: Vec<Arc<str>>,
    /// Patterns over the method; `None` means `tools/call`.
    pub methods: Option<Vec<Glob>>,
    /// Which tools, prompts or resources.
    pub tools: Selector,
    /// Other forms of its patterns, where they are of URIs.
    pub(crate) also: Box<[Glob]>,
    /// The argument that [`Cap::Sum`] adds up.
    pub sum: Option<Pointer>,
    /// How much is allowed.
    pub cap: Cap,
    /// Whether a call that failed at the server takes nothing in the end.
    pub refund: bool,
    /// Where it is defined.
    pub place: Place,
}

/// What it allows, and what has a counter of its own.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cap)?;
        if let Some(pointer) = &self.sum {
            write!(f, " of {pointer}")?;
        }
        for (index, per) in self.per.iter().enumerate() {
            write!(f, "{}{per}", if index == 0 { " per " } else { ", " })?;
        }
        Ok(())
    }
}

/// What has a counter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Per {
    /// Each MCP session.
    Session,
    /// Each tool, or prompt, of each server.
    Tool,
    /// Each caller: the Unix user where the kernel attested one, else the workload.
    Identity,
    /// Each server.
    Server,
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::Tool => "tool",
            Self::Identity => "identity",
            Self::Server => "server",
        })
    }
}

/// How much a limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cap {
    /// So many calls in all.
    Calls(u64),
    /// So many calls in any window of this length: exact and sliding.
    Rate {
        /// The number of calls, at least 1.
        calls: u32,
        /// The window in milliseconds, at least 1000.
        window_ms: u64,
    },
    /// So much of an argument in any window of this length: exact and sliding.
    Sum {
        /// The most that the calls of one window may add up to.
        max: Amount,
        /// The window in milliseconds, at least 1000.
        window_ms: u64,
    },
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls(1) => f.write_str("1 call"),
            Self::Calls(calls) => write!(f, "{calls} calls"),
            Self::Rate { calls, window_ms } => {
                let calls = Self::Calls(u64::from(*calls));
                write!(f, "{calls} in {} s", window_ms / 1000)
            }
            Self::Sum { max, window_ms } => write!(f, "a sum of {max} in {} s", window_ms / 1000),
        }
    }
}
