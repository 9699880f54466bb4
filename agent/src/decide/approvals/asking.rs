//! What a call is to a person and to the disk: what is shown, and what an approval of it is bound to.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256, digest as digest_of};
use thiserror::Error;

use crate::channel::{APPROVAL_NAME, Approval, ApprovalCaller, encode_hex};
use crate::telemetry::clock::Timestamp;

/// Bytes of an id.
const ID: usize = 6;
/// Users who may have a part in one call: the process's, its workload's, and who had that started.
pub(super) const USERS: usize = 3;

/// What a person sees of a call, and who that person may not be.
#[derive(Clone, PartialEq)]
pub struct Shown {
    /// The arguments, masked.
    pub arguments: serde_json::Value,
    /// Names of further parameters, which are not shown and bound all the same.
    pub further: Vec<String>,
    /// Whom the token of the call is about, as the record has it.
    pub subject: Option<String>,
    /// The names by which who calls is known; who has one of them may not approve.
    pub names: BTreeSet<String>,
}

/// A call that needs an approval.
#[derive(Debug)]
pub struct Asking<'a> {
    /// The server's name.
    pub server: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// The rules that ask.
    pub rules: Vec<Arc<str>>,
    /// Who calls, as the kernel attests.
    pub caller: ApprovalCaller,
    /// Issuer and subject of the token that the call shows.
    pub token: Option<(&'a str, &'a str)>,
    /// Authority and subject of the client certificate that the call shows.
    pub certificate: Option<(&'a str, &'a str)>,
    /// The record of the call.
    pub record: String,
    /// The arguments as they are sent.
    pub arguments: &'a str,
    /// All parameters as they are sent, without what is about the message alone.
    pub bound: &'a str,
    /// What stands beside the message and says, as it does, what is done: path and query, and headers.
    pub beside: &'a [&'a [u8]],
    /// What a person is shown.
    pub shown: Shown,
    /// How long it waits.
    pub wait: Duration,
}

/// Why a call does not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotWaiting {
    /// Too many do.
    #[error("too many calls wait for an approval")]
    TooMany,
    /// Too many of this caller do.
    #[error("too many calls of this caller wait for an approval")]
    TooManyOfCaller,
    /// It cannot be shown to a person.
    #[error("a name that cannot be shown to a person")]
    Unshowable,
    /// No randomness for an id.
    #[error("no id could be made")]
    NoId,
}

/// Whether a text looks the same to whoever reads it, and is short enough to be kept.
pub(super) fn is_showable(text: &str) -> bool {
    let plain =
        |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && byte != b'"' && byte != b'\\';
    !text.is_empty() && text.len() <= APPROVAL_NAME && text.bytes().all(plain)
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        // Each after its length, so that nothing moves from one to the next.
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        context.update(&length.to_be_bytes());
        context.update(part);
    }
    encode_hex(context.finish().as_ref())
}

impl Asking<'_> {
    pub(super) fn is_showable(&self) -> bool {
        let ApprovalCaller {
            workload,
            user,
            uid,
            uids,
            ..
        } = &self.caller;
        let callers = [workload.as_deref(), user.as_deref()];
        let rules = self.rules.iter().map(|rule| &**rule);
        let mut names = rules
            .chain([self.server])
            .chain(callers.into_iter().flatten());
        // A tool's name may be longer than others (2025-11-25, "Tool Names").
        let tool = self.tool.len() <= 2 * APPROVAL_NAME
            && self
                .tool
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !br#""\"#.contains(&byte));
        tool && !self.tool.is_empty()
            && names.all(is_showable)
            && uids.len() <= USERS
            && uids.contains(uid)
    }

    /// The caller as it is kept.
    pub(super) fn told(&self) -> ApprovalCaller {
        let shows = self.token.is_some() || self.certificate.is_some();
        let token = shows.then(|| {
            let whole = digest(self.shows().map(str::as_bytes));
            whole.get(..16).unwrap_or_default().to_owned()
        });
        ApprovalCaller {
            token,
            ..self.caller.clone()
        }
    }

    /// Who issued the token, to whom, and who vouches for the certificate, of whom; empty where there is none.
    fn shows(&self) -> [&str; 4] {
        let (issuer, subject) = self.token.unwrap_or_default();
        let (authority, certified) = self.certificate.unwrap_or_default();
        [issuer, subject, authority, certified]
    }

    pub(super) fn digest(&self) -> String {
        // Not who else has a part in it, which a daemon may learn late.
        let ApprovalCaller {
            workload,
            user,
            uid,
            ..
        } = &self.caller;
        let [issuer, subject, authority, certified] = self.shows();
        let uid = uid.to_string();
        let parts = [
            // A name is never empty.
            workload.as_deref().unwrap_or_default(),
            user.as_deref().unwrap_or_default(),
            &uid,
            issuer,
            subject,
            authority,
            certified,
            self.server,
            self.tool,
            self.bound,
        ];
        digest(
            parts
                .map(str::as_bytes)
                .into_iter()
                .chain(self.beside.iter().copied()),
        )
    }

    pub(super) fn approval(&self, call: String, asked: Timestamp) -> Result<Approval, NotWaiting> {
        let mut id = [0; ID];
        aws_lc_rs::rand::fill(&mut id).map_err(|_unspecified| NotWaiting::NoId)?;
        let wait = i64::try_from(self.wait.as_micros()).unwrap_or(i64::MAX);
        let arguments = digest_of(&SHA256, self.arguments.as_bytes());
        let mut rules = self.rules.iter().map(ToString::to_string);
        Ok(Approval {
            id: encode_hex(&id),
            call,
            arguments: encode_hex(arguments.as_ref()),
            server: self.server.to_owned(),
            tool: self.tool.to_owned(),
            rule: rules.next().unwrap_or_default(),
            other_rules: rules.collect(),
            caller: self.told(),
            record: self.record.clone(),
            asked,
            until: Timestamp::from_microseconds(asked.microseconds().saturating_add(wait)),
            granted: None,
        })
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}
