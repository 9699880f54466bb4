//! Policy: what may be done by whom; pure, total and deterministic.
//!
//! [`compile`] turns files into a checked [`PolicySet`] or reports every fault; [`evaluate`] answers a
//! [`Request`] from it. Time and counters are inputs: the same inputs give the same verdict.
#![forbid(unsafe_code)]

pub mod cel;
mod check;
mod container;
mod decide;
mod fault;
mod glob;
mod index;
mod json;
mod load;
mod methods;
mod model;
mod name;
mod number;
pub mod oracle;
mod path;
mod schema;
mod set;
mod text;
mod time;
mod uri;
pub mod yaml;

pub use self::container::{Container, ContainerFault, Image};
pub use self::decide::{
    Action, Binding, Caller, Certificate, CertifiedName, Considered, Count, Counter, Egress,
    Explanation, Hints, LimitKey, Origin, Outcome, Range, Reason, Request, Subject, Target, Tested,
    Token, Underway, Unevaluated, Used, Verdict, Workload, Would, callable, evaluate, explain,
    limit_keys, listable, ports_for, ranges, reachable,
};
pub use self::fault::{Fault, Place, Source, Span};
pub use self::glob::{Glob, GlobFault};
pub use self::json::{AsJson, Json, List, Members};
pub use self::methods::{Governance, governance, methods};
pub use self::model::{
    ArgumentPlace, ArgumentTest, Authorization, Bound, Breaker, Cap, CertificateTest, Cidr,
    CidrFault, Claim, ClaimTest, Class, ClassSet, Content, Credential, Data, Directory, DryRun,
    Effect, EgressRule, Endpoint, EnvValue, Grant, Host, HostRule, Identity, Kind, Label, Launch,
    Limit, Mask, Matcher, Mode, NameKind, NameTest, Pattern, PatternFault, Per, Placement, Pointer,
    PointerFault, Process, Proof, Protocol, RangeRule, Responses, Role, Rule, Scalar, SecretOrigin,
    Selector, Server, Test, Tls, TokenTest, Tool, Transport, Type, Unregistered, Url, UrlFault,
    Wire, Written,
};
pub use self::name::{HostFault, HostPattern, Name, NameFault};
pub use self::number::Amount;
pub use self::path::{PathFault, PathGlob, PathGlobFault, normalise_path};
pub use self::schema::schema;
pub use self::set::{PolicySet, compile};
pub use self::text::confusable;
pub use self::time::{Date, Timestamp};
