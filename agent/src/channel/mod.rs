//! The one channel between the supervisor and the gate: typed messages on a packet socket.
//!
//! The gate holds strangers' bytes, so the supervisor takes everything on its end as hostile:
//! bounded size, no descriptors, nothing but the messages of [`ToSupervisor`].

mod approval;
mod artefact;
mod endpoint;
mod frame;
mod message;
#[cfg(test)]
mod tests;

pub use approval::{APPROVAL_NAME, Approval, ApprovalCaller, Granted, MOST_APPROVALS};
pub use artefact::{
    ARTEFACTS_AT_ONCE, Artefact, ArtefactRest, MOST_ARTEFACT_BYTES, MOST_ARTEFACTS, Package,
    Registry,
};
pub(crate) use endpoint::watch;
pub use endpoint::{Channel, GateEnd, Received, SupervisorEnd, pair};
pub use frame::{ChannelError, Frame, MAX_DESCRIPTORS, receive_frame, send_frame};
pub use message::{
    Approving, ClientIdentity, Disconnection, Done, FIRST_USER, Health, Hex, HostProcess, Kind,
    Lifecycle, Message, NotStarted, Placeholder, Process, ProxyCredentials, Role, RunVerdict,
    Secret, Session, Setup, Source, ToGate, ToSupervisor, Unregistered, Workload, decode_hex,
    encode_hex,
};
