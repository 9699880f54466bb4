//! A whole body, within a size and a time: what never ends must not hold its caller for ever.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body;
use thiserror::Error;
use tokio::time::timeout;

use super::until::Over;
use crate::refuse::{Refusal, Timeout, Upstream};

/// Why there is no whole body.
#[derive(Debug, Error)]
pub(super) enum Uncollected {
    /// It goes on beyond the limit.
    #[error("a body larger than the limit")]
    TooLarge,
    /// It did not end in time.
    #[error("a body that did not end within {}s", .0.as_secs())]
    Late(Duration),
    /// It may not go on.
    #[error(transparent)]
    Over(Over),
    /// Its sender failed.
    #[error("reading a body")]
    Read(#[source] Box<dyn Error + Send + Sync>),
}

impl Uncollected {
    /// What the client is told, if it is the server's body.
    pub(super) fn refusal(&self) -> Refusal<'static> {
        match self {
            Self::TooLarge => Refusal::ResponseTooLarge,
            Self::Late(_) => Refusal::TimedOut(Timeout::Body),
            Self::Over(over) => over.refusal(),
            Self::Read(_) => Refusal::Upstream(Upstream::Reset),
        }
    }
}

/// Reads `body` to its end.
///
/// # Errors
/// [`Uncollected`].
pub(super) async fn collect<B>(body: B, most: usize, limit: Duration) -> Result<Bytes, Uncollected>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    match timeout(limit, Limited::new(body, most).collect()).await {
        Err(_) => Err(Uncollected::Late(limit)),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Uncollected::TooLarge),
        Ok(Err(error)) => Err(Uncollected::Read(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::body::{Body, Frame};

    use super::{Uncollected, collect};

    /// Begins and never ends.
    struct Endless(bool);

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"{")))))
        }
    }

    #[tokio::test]
    async fn a_body_has_an_end_a_size_and_a_time() {
        let minute = Duration::from_mins(1);
        let whole = collect(Full::new(Bytes::from_static(b"{}")), 2, minute).await;
        assert_eq!(whole.ok().as_deref(), Some(&b"{}"[..]));
        let large = collect(Full::new(Bytes::from_static(b"{ }")), 2, minute).await;
        assert!(matches!(large, Err(Uncollected::TooLarge)));
        let late = collect(Endless(false), 2, Duration::from_millis(10)).await;
        assert!(matches!(late, Err(Uncollected::Late(_))));
    }
}
