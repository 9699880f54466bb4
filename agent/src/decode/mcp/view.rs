//! What policy looks at in a message, read once and typed.

use std::fmt;

use thiserror::Error;

use super::era::{META_CLIENT_CAPABILITIES, META_CLIENT_INFO, spoken};
use super::methods::{Method, Subject, method};
use crate::decode::json::{Object, Value};
use crate::decode::rpc::{Id, Message, confusable};

/// The longest name of a tool, a prompt or a task, in bytes: names are kept of what is under way, and said in answers.
/// Those of tools have at most 128 letters (2025-11-25 Tools, "Tool Names").
pub const MAX_NAME: usize = 1_024;
/// The longest URI of a resource.
const URI: usize = 8_192;

/// Resources whose changes one `subscriptions/listen` may ask for.
const SUBSCRIBED: usize = 1_024;

/// A request or notification as policy sees it. Borrowed from the message that will be forwarded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    /// The decoded method.
    pub method: &'a str,
    /// The protocol's entry for it; `None` for vendor methods.
    pub known: Option<&'static Method>,
    /// `None` for notifications.
    pub id: Option<&'a Id>,
    /// What it is about.
    pub name: Option<Name<'a>>,
    /// `arguments` of tools/call and prompts/get, `argument` of completion/complete. Absent and `null` are alike.
    pub arguments: Option<&'a Object>,
    /// `_meta.progressToken`: a string or a number.
    pub progress_token: Option<&'a Value>,
    /// Who the client says it is: `clientInfo` of initialize, or `_meta` of a modern request. Not proved.
    pub client: Option<Client<'a>>,
    /// What the client offers: `capabilities` of initialize, or `_meta` of a modern request.
    pub capabilities: Option<&'a Object>,
    /// `protocolVersion` of initialize.
    pub asks_for: Option<&'a str>,
    /// `taskId`, of any method that carries one.
    pub task: Option<&'a str>,
    /// `cursor` of a list request, opaque.
    pub cursor: Option<&'a str>,
    /// `inputResponses` of a modern retry: what the client's user or model answered.
    pub input_responses: Option<&'a Object>,
    /// `_meta` whole.
    pub meta: Option<&'a Object>,
}

/// What a message is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// A tool.
    Tool(&'a str),
    /// A prompt, also as completed by completion/complete.
    Prompt(&'a str),
    /// A resource's URI, or the template that completion/complete names.
    Resource(&'a str),
    /// A task's id.
    Task(&'a str),
}

impl<'a> Name<'a> {
    /// The decoded text.
    pub fn text(self) -> &'a str {
        match self {
            Name::Tool(text) | Name::Prompt(text) | Name::Resource(text) | Name::Task(text) => text,
        }
    }

    fn bounded(self) -> Result<Self, ViewFault> {
        let longest = match self {
            Name::Tool(_) | Name::Prompt(_) | Name::Task(_) => MAX_NAME,
            Name::Resource(_) => URI,
        };
        if self.text().len() > longest {
            return Err(ViewFault::LongName);
        }
        Ok(self)
    }
}

/// What an implementation says of itself; unproved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Client<'a> {
    /// `name`, or empty.
    pub name: &'a str,
    /// `version`, or empty.
    pub version: &'a str,
}

impl<'a> Client<'a> {
    pub(super) fn read(value: &'a Value) -> Option<Client<'a>> {
        let member = |key| value.get(key).and_then(Value::as_str).unwrap_or("");
        value.as_object().map(|_| Client {
            name: member("name"),
            version: member("version"),
        })
    }
}

/// A message of a known method without what the method needs. Answered with -32602.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ViewFault {
    /// No `name` (or `uri`, `ref`, `taskId`), or not a string.
    #[error("the method's subject is missing or not a string")]
    Name,
    /// What the method is about has a name longer than [`MAX_NAME`], or a URI longer than [`URI`].
    #[error("a name of more than 1,024 bytes, or a URI of more than 8,192")]
    LongName,
    /// `subscriptions/listen` asks for changes of resources, and not by a list of at most [`SUBSCRIBED`] URIs.
    #[error("resourceSubscriptions that is no list of at most 1,024 URIs")]
    Subscriptions,
    /// `arguments` is neither an object nor null.
    #[error("arguments that are not an object")]
    Arguments,
    /// `_meta` is not an object.
    #[error("_meta that is not an object")]
    Meta,
    /// A response: there is nothing to view.
    #[error("a response where a request or notification is due")]
    Response,
}

/// Views `message`.
///
/// # Errors
/// A [`ViewFault`] when the method is known and the message lacks what it is decided by.
pub fn view(message: &Message) -> Result<View<'_>, ViewFault> {
    let name = message.method().ok_or(ViewFault::Response)?;
    let known = method(name);
    let params = message.params();
    let member = |key: &str| params.and_then(|params| params.get(key));
    let meta = match member("_meta") {
        None => None,
        Some(Value::Object(meta)) => Some(meta),
        Some(_) => return Err(ViewFault::Meta),
    };
    let in_meta = |key: &str| meta.and_then(|meta| meta.get(key));
    let initialize = name == "initialize";
    let at = |initialize_key: &str, meta_key: &str| {
        if initialize {
            member(initialize_key)
        } else {
            in_meta(meta_key)
        }
    };
    Ok(View {
        method: name,
        known,
        id: message.id(),
        name: subject_in_era(message, known)?,
        arguments: arguments(known, params)?,
        progress_token: in_meta("progressToken"),
        client: at("clientInfo", META_CLIENT_INFO).and_then(Client::read),
        capabilities: at("capabilities", META_CLIENT_CAPABILITIES).and_then(Value::as_object),
        asks_for: member("protocolVersion")
            .filter(|_| initialize)
            .and_then(Value::as_str),
        task: member("taskId").and_then(Value::as_str),
        cursor: member("cursor").and_then(Value::as_str),
        input_responses: member("inputResponses").and_then(Value::as_object),
        meta,
    })
}

/// The resources whose changes `subscriptions/listen` asks for, which are in no name of the message (2026-07-28,
/// "Subscriptions"): `params.notifications.resourceSubscriptions`.
///
/// # Errors
/// [`ViewFault`] where a server may see others.
pub fn subscribed(message: &Message) -> Result<Vec<Name<'_>>, ViewFault> {
    let params = message
        .params()
        .filter(|_| message.method() == Some("subscriptions/listen"));
    let Some(filter) = member(params, "notifications")? else {
        return Ok(Vec::new());
    };
    let filter = filter.as_object().ok_or(ViewFault::Subscriptions)?;
    let Some(listed) = member(Some(filter), "resourceSubscriptions")? else {
        return Ok(Vec::new());
    };
    let uris = listed.as_array().filter(|uris| uris.len() <= SUBSCRIBED);
    let named = uris.ok_or(ViewFault::Subscriptions)?.iter().map(|uri| {
        let uri = uri.as_str().ok_or(ViewFault::Subscriptions)?;
        Name::Resource(uri).bounded()
    });
    named.collect()
}

/// A member that is there and not null, under no other name that a reader takes for it.
fn member<'a>(
    object: Option<&'a Object>,
    key: &'static str,
) -> Result<Option<&'a Value>, ViewFault> {
    let Some(object) = object else {
        return Ok(None);
    };
    if object.keys().any(|other| confusable(other, &[key])) {
        return Err(ViewFault::Subscriptions);
    }
    Ok(object.get(key).filter(|value| !value.is_null()))
}

/// What the message names. A method that its era has dropped executes nothing without a name: whoever sends it
/// so is told by the server that there is no such method, as it would be without us.
fn subject_in_era<'a>(
    message: &'a Message,
    known: Option<&Method>,
) -> Result<Option<Name<'a>>, ViewFault> {
    let era = spoken(message, None).era;
    match subject(known, message.params()) {
        Err(ViewFault::Name) if known.is_some_and(|known| !known.exists_in(era)) => Ok(None),
        other => other,
    }
}

fn subject<'a>(
    known: Option<&Method>,
    params: Option<&'a Object>,
) -> Result<Option<Name<'a>>, ViewFault> {
    let text = |object: Option<&'a Object>, key: &str| {
        object
            .and_then(|object| object.get(key))
            .and_then(Value::as_str)
            .ok_or(ViewFault::Name)
    };
    let name = match known.map(|known| known.subject) {
        None | Some(Subject::None) => return Ok(None),
        Some(Subject::Tool) => Name::Tool(text(params, "name")?),
        Some(Subject::Prompt) => Name::Prompt(text(params, "name")?),
        Some(Subject::Resource) => Name::Resource(text(params, "uri")?),
        Some(Subject::Task) => Name::Task(text(params, "taskId")?),
        Some(Subject::Reference) => {
            let reference = params.and_then(|params| params.get("ref")?.as_object());
            match text(reference, "type")? {
                "ref/prompt" => Name::Prompt(text(reference, "name")?),
                "ref/resource" => Name::Resource(text(reference, "uri")?),
                _ => return Err(ViewFault::Name),
            }
        }
    };
    name.bounded().map(Some)
}

fn arguments<'a>(
    known: Option<&Method>,
    params: Option<&'a Object>,
) -> Result<Option<&'a Object>, ViewFault> {
    let key = match known.map(|known| known.subject) {
        Some(Subject::Tool | Subject::Prompt) => "arguments",
        Some(Subject::Reference) => "argument",
        None | Some(Subject::None | Subject::Resource | Subject::Task) => return Ok(None),
    };
    match params.and_then(|params| params.get(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(arguments)) => Ok(Some(arguments)),
        Some(_) => Err(ViewFault::Arguments),
    }
}

// Content is the caller's or the server's: not for logs.
impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Name::Tool(_) => "tool",
            Name::Prompt(_) => "prompt",
            Name::Resource(_) => "resource",
            Name::Task(_) => "task",
        })
    }
}
