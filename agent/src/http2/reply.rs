//! The way back to one request of a workload: interim answers, until the final one.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};

use super::heads::fit_answer;

/// Bytes of interim answers to one request (counted as RFC 9113 section 10.5.1 counts headers); beyond it they are
/// dropped. They are outside flow control, so that a client that reads nothing would have them wait here.
const SPOKEN: usize = 16 * 1024;

/// The way back to one request; it ends with the final answer, whoever still holds it.
#[derive(Clone)]
pub struct Reply(Arc<Mutex<Option<Open>>>);

struct Open {
    respond: SendResponse<Bytes>,
    left: usize,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

impl Reply {
    pub(super) fn new(respond: SendResponse<Bytes>) -> Self {
        let left = SPOKEN;
        Self(Arc::new(Mutex::new(Some(Open { respond, left }))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an interim answer, if the final one is not under way. There is no 101 in HTTP/2 (RFC 9113 section 8.6).
    pub fn interim(&self, status: StatusCode, mut headers: HeaderMap) {
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        fit_answer(&mut headers);
        let length = headers.iter().fold(42, |sum, (name, value)| {
            sum + name.as_str().len() + value.len() + 32
        });
        let mut open = self.lock();
        let Some(Open { respond, left }) = &mut *open else {
            return;
        };
        let Some(rest) = left.checked_sub(length) else {
            return;
        };
        *left = rest;
        let mut interim = Response::new(());
        *interim.status_mut() = status;
        *interim.headers_mut() = headers;
        if let Err(error) = respond.send_informational(interim) {
            tracing::debug!(%error, "an interim answer was not taken");
        }
    }

    /// Asks for the body of a request whose sender waits for that.
    pub(super) fn proceed(&self) {
        self.interim(StatusCode::CONTINUE, HeaderMap::new());
    }

    /// Ready when the client wants no answer any more.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.lock() {
            Some(open) => open.respond.poll_reset(cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// Ends this way, for the final answer.
    pub(super) fn take(&self) -> Option<SendResponse<Bytes>> {
        self.lock().take().map(|open| open.respond)
    }
}
