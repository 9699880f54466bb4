//! Every method that a released revision or an accepted extension defines.

use super::Era;

use Direction::{Both, BothThenToClient, BothThenToServer, ToClient, ToServer};
use Eras::{Any, Legacy, Modern};
use Subject::{Prompt, Reference, Resource, Task, Tool};

/// A method of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// As on the wire; compared exactly.
    pub name: &'static str,
    /// Whether an answer is due.
    pub kind: Kind,
    /// Who may send it.
    pub direction: Direction,
    /// Which revisions know it.
    pub eras: Eras,
    /// Which member names what it is about.
    pub subject: Subject,
}

impl Method {
    /// Whether the method exists in `era`.
    pub fn exists_in(&self, era: Era) -> bool {
        match self.eras {
            Any => true,
            Legacy => era == Era::Legacy,
            Modern => era == Era::Modern,
        }
    }

    /// Whether a client sends it, in `era`.
    pub fn goes_to_server(&self, era: Era) -> bool {
        match self.direction {
            ToServer | Both | BothThenToServer => true,
            BothThenToClient => era == Era::Legacy,
            ToClient => false,
        }
    }

    /// Whether a server sends it in `era`, as a message of its own.
    pub fn goes_to_client(&self, era: Era) -> bool {
        match self.direction {
            Both | BothThenToClient => true,
            BothThenToServer => era == Era::Legacy,
            ToClient => era == Era::Legacy || self.kind == Kind::Notification,
            ToServer => false,
        }
    }

    /// Whether a server asks for it inside a result (2026-07-28, "Multi Round-Trip Requests").
    pub fn stands_in_results(&self) -> bool {
        self.direction == ToClient && self.kind == Kind::Request
    }
}

/// Whether a message with the method carries an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With id.
    Request,
    /// Without.
    Notification,
}

/// Which revisions know a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eras {
    /// Some of both eras.
    Any,
    /// Revisions before 2026-07-28 only.
    Legacy,
    /// Revision 2026-07-28 or an accepted extension of it only.
    Modern,
}

/// Who sends it. In the modern era what a server asks for stands inside results instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Client to server.
    ToServer,
    /// Server to client.
    ToClient,
    /// Either way.
    Both,
    /// Either way in the legacy era, client to server in the modern one.
    BothThenToServer,
    /// Either way in the legacy era, server to client in the modern one.
    BothThenToClient,
}

/// Where in `params` the name stands that policy decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The method alone.
    None,
    /// `name`, a tool.
    Tool,
    /// `name`, a prompt.
    Prompt,
    /// `uri`, a resource.
    Resource,
    /// `ref`: a prompt's `name` or a resource template's `uri`.
    Reference,
    /// `taskId`.
    Task,
}

/// The method called `name`, compared exactly: a variant in another case is unknown to servers too.
pub fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// The table; frequent methods first.
pub const METHODS: &[Method] = &[
    request("tools/call", ToServer, Any, Tool),
    request("tools/list", ToServer, Any, Subject::None),
    request("resources/read", ToServer, Any, Resource),
    request("prompts/get", ToServer, Any, Prompt),
    request("ping", Both, Legacy, Subject::None),
    request("initialize", ToServer, Legacy, Subject::None),
    notification("notifications/initialized", ToServer, Legacy),
    request("server/discover", ToServer, Modern, Subject::None),
    request("resources/list", ToServer, Any, Subject::None),
    request("resources/templates/list", ToServer, Any, Subject::None),
    request("resources/subscribe", ToServer, Legacy, Resource),
    request("resources/unsubscribe", ToServer, Legacy, Resource),
    request("prompts/list", ToServer, Any, Subject::None),
    request("completion/complete", ToServer, Any, Reference),
    request("logging/setLevel", ToServer, Legacy, Subject::None),
    request("subscriptions/listen", ToServer, Modern, Subject::None),
    request("sampling/createMessage", ToClient, Any, Subject::None),
    request("elicitation/create", ToClient, Any, Subject::None),
    request("roots/list", ToClient, Any, Subject::None),
    request("tasks/get", BothThenToServer, Any, Task),
    request("tasks/result", Both, Legacy, Task),
    request("tasks/list", Both, Legacy, Subject::None),
    request("tasks/cancel", BothThenToServer, Any, Task),
    request("tasks/update", ToServer, Modern, Task),
    notification("notifications/cancelled", Both, Any),
    notification("notifications/progress", BothThenToClient, Any),
    notification("notifications/message", ToClient, Any),
    notification("notifications/tools/list_changed", ToClient, Any),
    notification("notifications/prompts/list_changed", ToClient, Any),
    notification("notifications/resources/list_changed", ToClient, Any),
    notification("notifications/resources/updated", ToClient, Any),
    notification("notifications/roots/list_changed", ToServer, Legacy),
    notification("notifications/subscriptions/acknowledged", ToClient, Modern),
    notification("notifications/elicitation/complete", ToClient, Legacy),
    notification("notifications/tasks/status", Both, Legacy),
    notification("notifications/tasks", ToClient, Modern),
];

const fn request(name: &'static str, direction: Direction, eras: Eras, subject: Subject) -> Method {
    Method {
        name,
        kind: Kind::Request,
        direction,
        eras,
        subject,
    }
}

const fn notification(name: &'static str, direction: Direction, eras: Eras) -> Method {
    Method {
        name,
        kind: Kind::Notification,
        direction,
        eras,
        subject: Subject::None,
    }
}
