//! Tells approvers of calls that wait, by webhooks: the gate's own exchanges, permitted by the configuration, each with
//! its record.

mod message;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{ACCEPT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout_at};

pub use self::message::{facts, why_asked};
use super::Stages;
use super::describe::{Story as _, finding, read, unread};
use crate::audit::record::{Cause, Http, Kind, Stage};
use crate::audit::{AuditUnavailable, OpenRecord, Outcome, RecordId, Start, Text};
use crate::channel::Approval;
use crate::config::HttpsUrl;
use crate::decide::approvals::{
    Approver, Link, LinkFault, Links, Shown, may_approve, recorded, takes_part,
};
use crate::forward::body::HttpFault;
use crate::forward::open::{Destination, OpenFault};
use crate::forward::upstream::{Body, Unheard};
use crate::identify::peer::Peer;
use crate::telemetry::clock::Timestamp;
use crate::tls::leaf::Alpn;

/// Whose connections these are, where connections are kept apart by workload: nobody's.
const NOBODY: u32 = 0;
/// Between one message and the next to the same webhook, and between the attempts at one.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// How calls that wait for a person reach one.
#[derive(Debug)]
pub struct Approving {
    /// Makes and reads links.
    pub links: Links,
    /// What links begin with: scheme, host and port.
    pub console: String,
    /// Where messages go.
    pub webhooks: Vec<Webhook>,
}

impl Approving {
    /// What a token says at `now`, and as who it decides.
    ///
    /// # Errors
    /// [`LinkFault`].
    pub fn read(&self, token: &str, now: Timestamp) -> Result<(Link, &Approver), LinkFault> {
        let link = self.links.read(token, now).inspect_err(|why| {
            tracing::warn!(%why, "a link of an approval");
        })?;
        let mut approvers = self.webhooks.iter().map(|webhook| &webhook.approver);
        let approver = approvers.find(|one| one.user == link.approver);
        Ok((link, approver.ok_or(LinkFault::Nobody)?))
    }
}

/// Where messages to one approver go.
pub struct Webhook {
    /// Who decides by the links in them.
    pub approver: Approver,
    /// Where to. Path and query may be a secret.
    url: HttpsUrl,
    private: bool,
    /// Time for one attempt.
    limit: Duration,
    /// Why the last message was not delivered.
    fault: Mutex<Option<String>>,
}

impl Webhook {
    /// One to which nothing was sent yet; each attempt has `limit`.
    pub fn new(approver: Approver, url: HttpsUrl, private: bool, limit: Duration) -> Self {
        Self {
            approver,
            url,
            private,
            limit,
            fault: Mutex::default(),
        }
    }

    /// Its host.
    pub fn host(&self) -> String {
        self.url.authority()
    }

    /// Why the last message was not delivered, where it was not.
    pub fn fault(&self) -> Option<String> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.clone()
    }

    /// Notes what became of a message; whether it is the first that failed.
    fn settle(&self, fault: Option<String>) -> bool {
        let mut last = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let first = last.is_none() && fault.is_some();
        *last = fault;
        first
    }

    /// Whether its approver may decide on a call by the policy in force.
    fn may_decide(&self, stages: &Stages, approval: &Approval, shown: Option<&Shown>) -> bool {
        let Approver { uid, user } = &self.approver;
        let state = stages.decider.in_force();
        !takes_part(&approval.caller, shown, &self.approver, &state.set)
            && may_approve(&state.set, approval.rules(), *uid, user)
    }
}

/// Why a message was not delivered. No part of its URL but the host is told.
#[derive(Debug, Error)]
enum Undelivered {
    /// It cannot be recorded.
    #[error(transparent)]
    Unrecorded(#[from] AuditUnavailable),
    /// No connection.
    #[error("opening a connection")]
    Open(#[source] Box<OpenFault>),
    /// HTTP failed.
    #[error("posting")]
    Post(#[source] HttpFault),
    /// Not 2xx; redirects are not followed.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// Not in time.
    #[error("it did not answer in time")]
    Late,
    /// The URL stands in no request.
    #[error("its URL stands in no request")]
    Url,
}

/// A webhook does not work.
#[derive(Debug, Error)]
#[error("telling `{approver}` of a call that waits for an approval, at `{host}`")]
struct Failed {
    approver: String,
    host: String,
    #[source]
    why: Undelivered,
}

/// Tells the approver of the webhook at `place` of every call that begins to wait, until the gate stops.
pub async fn serve_webhook(stages: Arc<Stages>, approving: Arc<Approving>, place: usize) {
    let Some(webhook) = approving.webhooks.get(place) else {
        return;
    };
    let bit = u32::try_from(place).unwrap_or(u32::MAX);
    let mut asked = stages.approvals.asked();
    let serving = async {
        loop {
            asked.borrow_and_update();
            while let Some((approval, shown)) =
                stages.approvals.put_before(bit, |approval, shown| {
                    webhook.may_decide(&stages, approval, shown)
                })
            {
                Box::pin(tell(&stages, &approving, webhook, &approval, &shown)).await;
                sleep(PAUSES[0]).await;
            }
            if asked.changed().await.is_err() {
                return;
            }
        }
    };
    stages.stopping.run_until_cancelled(serving).await;
}

/// Tells of one call, in a few attempts.
async fn tell(
    stages: &Stages,
    approving: &Approving,
    webhook: &Webhook,
    approval: &Approval,
    shown: &Shown,
) {
    let set = &stages.decider.in_force().set;
    let reason = why_asked(set, approval);
    let body = message::write(approving, webhook, approval, shown, reason.as_deref());
    let body = Bytes::from(body);
    // Others wait behind a webhook that is known not to work.
    let attempts = match webhook.fault() {
        None => PAUSES.len(),
        Some(_) => 1,
    };
    for attempt in 1..=attempts {
        if stages.approvals.undecided(&approval.id).is_none() {
            return;
        }
        match post(stages, webhook, approval, body.clone()).await {
            Ok(()) => {
                webhook.settle(None);
                return;
            }
            Err(why) if attempt == attempts => {
                let failed = Failed {
                    approver: webhook.approver.user.clone(),
                    host: webhook.host(),
                    why,
                };
                if webhook.settle(Some(Text::error(&failed).to_string())) {
                    finding(&stages.log, "webhook_failed", &failed, None).await;
                }
            }
            Err(_again) => sleep(PAUSES.get(attempt).copied().unwrap_or_default()).await,
        }
    }
}

/// One attempt, with its record.
async fn post(
    stages: &Stages,
    webhook: &Webhook,
    approval: &Approval,
    body: Bytes,
) -> Result<(), Undelivered> {
    let deadline = Instant::now() + webhook.limit;
    let opened = timeout_at(deadline, stages.log.open(Kind::Http, Start::default())).await;
    let mut record = opened.map_err(|_late| Undelivered::Late)??;
    {
        let mut record = record.record_mut();
        record.http = Some(Http {
            name: Some(Text::new(webhook.url.host().as_str())),
            sni: Some(Text::new(webhook.url.host().as_str())),
            port: Some(webhook.url.port()),
            version: Some(Text::fixed("HTTP/1.1")),
            method: Some(Text::fixed("POST")),
            ..Http::default()
        });
        record.approval = Some(recorded(approval, None));
        record.cause = approval.record.parse::<RecordId>().ok().map(Cause::Id);
    }
    let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
    let posted = timeout_at(deadline, send(stages, webhook, &mut record, body)).await;
    match posted.unwrap_or(Err(Undelivered::Late)) {
        Ok(()) => {
            record.tell_inspected(read(), unread("nothing in it counts"));
            record.tell_request_bytes(length);
            drop(record.close(Outcome::done()));
            Ok(())
        }
        Err(fault) => {
            record.fail(&fault);
            Err(fault)
        }
    }
}

async fn send(
    stages: &Stages,
    webhook: &Webhook,
    record: &mut OpenRecord,
    body: Bytes,
) -> Result<(), Undelivered> {
    let permit = stages.decider.webhook(webhook.private);
    record.tell_decision(permit.decision());
    record.stage(Stage::Forward);
    let peer = Peer::Name(webhook.url.host().clone());
    let to = Destination {
        workload: NOBODY,
        peer: &peer,
        port: webhook.url.port(),
        dialled: std::net::Ipv4Addr::UNSPECIFIED.into(),
    };
    let request = request(&webhook.url, body)?;
    let response = {
        let intended = record.intend().await?;
        let opened = stages.ways.tls(permit, &intended, to, &[Alpn::Http1]);
        let (mut sender, _alpn) = opened
            .await
            .map_err(|fault| Undelivered::Open(Box::new(fault)))?;
        sender.ready().await.map_err(Undelivered::Post)?;
        sender
            .send(intended, request, None::<Unheard>)
            .await
            .map_err(Undelivered::Post)?
    };
    let status = response.status();
    record.tell_status(status);
    if status.is_success() {
        Ok(())
    } else {
        Err(Undelivered::Status(status))
    }
}

fn request(url: &HttpsUrl, body: Bytes) -> Result<Request<Body>, Undelivered> {
    let body = Full::new(body).map_err(|never| match never {});
    let mut request = Request::new(body.boxed_unsync());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url
        .path()
        .parse::<Uri>()
        .map_err(|_unfit| Undelivered::Url)?;
    let host = HeaderValue::from_str(&url.authority()).map_err(|_unfit| Undelivered::Url)?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static("exeat"));
    Ok(request)
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("approver", &self.approver)
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}
