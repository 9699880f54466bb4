//! What the stages write into records, in one vocabulary.

use std::error::Error;
use std::io;

use hyper::{Request, StatusCode};
use thiserror::Error;

use crate::audit::record::{
    Decision, Extent, Finding, Http, Inspected, Inspection, Kind, Tcp, Workload,
};
use crate::audit::{Log, OpenRecord, Outcome, Shared, Text};
use crate::decide::{Refused, overruled};
use crate::forward::body::Received;
use crate::forward::tunnel::{Ended, Traffic};
use crate::forward::upstream::Version;
use crate::identify::peer::Peer;
use crate::intake::Arrived;
use crate::telemetry::clock;

/// The TLS handshake with the workload failed.
#[derive(Debug, Error)]
#[error("TLS handshake with the workload")]
pub(super) struct Handshake(#[source] pub(super) io::Error);

/// The policy changed, or the gate stopped, while bytes passed.
#[derive(Debug, Error)]
#[error("cut: the policy changed or the gate stops")]
pub(super) struct Cut;

/// The workload ended, while bytes passed.
#[derive(Debug, Error)]
#[error("cut: the workload ended")]
struct Gone;

/// What a stage says to a record.
pub(super) trait Story: Sized {
    /// Where the process meant to go.
    fn tell_arrival(&mut self, arrived: &Arrived);
    /// The server name in the handshake.
    fn tell_server_name(&mut self, name: Option<&str>);
    /// On what an exchange came.
    fn tell_connection(
        &mut self,
        arrived: &Arrived,
        version: Version,
        tls: bool,
        name: Option<Text>,
    );
    /// What was asked for.
    fn tell_request(&mut self, request: &Request<Received>);
    /// The peer that was agreed on.
    fn tell_connection_peer(&mut self, peer: &Peer, tls: bool);
    /// Which credential is put into the request.
    fn tell_credential(&mut self, name: &str);
    /// The status that the caller gets.
    fn tell_status(&mut self, status: StatusCode);
    /// How much of the request's body was sent on.
    fn tell_request_bytes(&mut self, bytes: u64);
    /// How much was answered.
    fn tell_response_bytes(&mut self, bytes: u64);
    /// What was decided.
    fn tell_decision(&mut self, decision: &Decision);
    /// Bytes go by unread.
    fn tell_passed(&mut self, peer: &Peer);
    /// How many.
    fn tell_traffic(&mut self, traffic: &Traffic);
    /// How much of the exchange was looked into.
    fn tell_inspected(&mut self, request: Inspection, response: Inspection);
    /// Ends it: refused by a decision.
    fn refuse(self, refused: &Refused);
    /// Ends it: refused before a decision.
    fn refuse_with(self, why: impl Why);
    /// Ends it: permitted and failed.
    fn fail(self, error: &(dyn Error + Send + Sync));
    /// Ends it: permitted, and given up by whoever asked before anything came of it.
    fn abandon(self, error: &(dyn Error + Send + Sync));
    /// Ends it as bytes ended to pass; `gone`: the workload is, with all that ran in it.
    fn end_tunnel(self, ended: Ended, gone: bool);
}

/// A reason for a record: a fixed text or an error with its causes.
pub(super) trait Why {
    /// The text, masked.
    fn text(&self) -> Text;
}

impl Why for &'static str {
    fn text(&self) -> Text {
        Text::fixed(self)
    }
}

impl Why for Text {
    fn text(&self) -> Text {
        self.clone()
    }
}

impl<E: Error> Why for &E {
    fn text(&self) -> Text {
        Text::error(self)
    }
}

impl Story for OpenRecord {
    fn tell_arrival(&mut self, arrived: &Arrived) {
        self.record_mut().tcp = Some(Tcp {
            protocol: Text::fixed("tcp"),
            address: Some(arrived.address),
            port: Some(arrived.port),
            ..Tcp::default()
        });
    }

    fn tell_server_name(&mut self, name: Option<&str>) {
        let mut record = self.record_mut();
        if let Some(tcp) = &mut record.tcp {
            tcp.sni = name.map(Text::new);
        }
    }

    fn tell_connection(
        &mut self,
        arrived: &Arrived,
        version: Version,
        tls: bool,
        name: Option<Text>,
    ) {
        self.record_mut().http = Some(Http {
            sni: name.clone().filter(|_| tls),
            name,
            address: Some(arrived.address),
            port: Some(arrived.port),
            version: Some(Text::fixed(match version {
                Version::Http1 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            })),
            ..Http::default()
        });
    }

    fn tell_request(&mut self, request: &Request<Received>) {
        let path = request
            .uri()
            .path_and_query()
            .map_or("", |path| path.as_str());
        let mut record = self.record_mut();
        if let Some(http) = &mut record.http {
            http.method = Some(Text::new(request.method().as_str()));
            http.path = Some(Text::path(path));
        }
    }

    fn tell_connection_peer(&mut self, peer: &Peer, tls: bool) {
        let mut record = self.record_mut();
        if let Some(http) = &mut record.http
            && http.name.is_none()
        {
            let name = Some(Text::new(&peer.to_string()));
            http.sni = name.clone().filter(|_| tls);
            http.name = name;
        }
    }

    fn tell_credential(&mut self, name: &str) {
        let mut record = self.record_mut();
        // A batch's messages but the first, and what is said to a server beside, have no other part of HTTP.
        let http = record.http.get_or_insert_default();
        http.credential = Some(Text::new(name));
    }

    fn tell_status(&mut self, status: StatusCode) {
        let mut record = self.record_mut();
        if let Some(http) = &mut record.http {
            http.status = Some(status.as_u16());
        }
    }

    fn tell_request_bytes(&mut self, bytes: u64) {
        let mut record = self.record_mut();
        if let Some(http) = &mut record.http {
            http.request_bytes = Some(bytes);
        }
    }

    fn tell_response_bytes(&mut self, bytes: u64) {
        let mut record = self.record_mut();
        if let Some(http) = &mut record.http {
            http.response_bytes = Some(bytes);
        }
    }

    fn tell_decision(&mut self, decision: &Decision) {
        self.record_mut().decision = Some(decision.clone());
    }

    fn tell_passed(&mut self, peer: &Peer) {
        let mut record = self.record_mut();
        if let Some(tcp) = &mut record.tcp {
            tcp.name = Some(Text::new(&peer.to_string()));
        }
        let unread = unread("passed through by policy");
        drop(record);
        self.tell_inspected(unread.clone(), unread);
    }

    fn tell_traffic(&mut self, traffic: &Traffic) {
        let mut record = self.record_mut();
        if let Some(tcp) = &mut record.tcp {
            tcp.sent_bytes = Some(traffic.sent());
            tcp.received_bytes = Some(traffic.received());
        }
    }

    fn tell_inspected(&mut self, request: Inspection, response: Inspection) {
        self.record_mut().inspected = Some(Inspected { request, response });
    }

    fn refuse(mut self, refused: &Refused) {
        self.tell_decision(refused.decision());
        drop(self.close(Outcome::refused()));
    }

    fn refuse_with(mut self, why: impl Why) {
        let why = why.text();
        let mut record = self.record_mut();
        record.decision = Some(overruled(record.decision.take(), why.clone()));
        drop(record);
        drop(self.close(Outcome {
            error: Some(why),
            ..Outcome::refused()
        }));
    }

    fn fail(self, error: &(dyn Error + Send + Sync)) {
        drop(self.close(Outcome::failed(Text::error(error))));
    }

    fn abandon(self, error: &(dyn Error + Send + Sync)) {
        drop(self.close(Outcome {
            error: Some(Text::error(error)),
            ..Outcome::default()
        }));
    }

    fn end_tunnel(self, ended: Ended, gone: bool) {
        match ended {
            Ended::Closed => drop(self.close(Outcome::done())),
            // A process that ends is often heard of before its connections are.
            Ended::Left if gone => drop(self.close(Outcome::done())),
            Ended::Cut if gone => self.fail(&Gone),
            Ended::Cut | Ended::Left => self.fail(&Cut),
            Ended::Failed(error) => self.fail(&error),
        }
    }
}

/// Every byte was looked into.
pub(super) fn read() -> Inspection {
    Inspection {
        extent: Extent::Full,
        why: None,
    }
}

/// Some of it was.
pub(super) fn partly(why: &'static str) -> Inspection {
    Inspection {
        extent: Extent::Partial,
        why: Some(Text::fixed(why)),
    }
}

/// None of it was.
pub(super) fn unread(why: &'static str) -> Inspection {
    Inspection {
        extent: Extent::None,
        why: Some(Text::fixed(why)),
    }
}

/// Records something that an operator should look at.
pub(super) async fn finding(
    log: &Log,
    what: &'static str,
    error: &(dyn Error + Send + Sync),
    workload: Option<Shared<Workload>>,
) {
    let detail = Text::error(error);
    tracing::warn!(what, detail = %detail, "finding");
    let mut record = log.record(Kind::Finding, clock::now());
    record.workload = workload;
    record.finding = Some(Finding {
        what: Text::fixed(what),
        detail: Some(detail),
        count: None,
    });
    if let Err(error) = log.event(record).await {
        tracing::error!(%error, what, "a finding could not be recorded");
    }
}
