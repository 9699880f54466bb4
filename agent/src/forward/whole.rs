//! A whole body, within a size and a time: what never ends must not hold its caller for ever.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use thiserror::Error;
use tokio::time::timeout;

use crate::identify::room::{NoRoom, Taken};

/// Why there is no whole body.
#[derive(Debug, Error)]
pub enum Incomplete {
    /// It goes on beyond the limit.
    #[error("a body larger than the limit")]
    TooLarge,
    /// As much is held for its workload as may be.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// It did not end in time.
    #[error("a body that did not end within {}s", .0.as_secs())]
    Late(Duration),
    /// Its sender failed.
    #[error("reading a body")]
    Read(#[source] Box<dyn Error + Send + Sync>),
}

/// Reads `body` to its end: at most `most` bytes, within `limit`, in the room that `taken` takes for them. Trailers are
/// not kept.
///
/// # Errors
/// [`Incomplete`].
pub async fn collect<B>(
    body: B,
    most: usize,
    limit: Duration,
    taken: &mut Taken,
) -> Result<Bytes, Incomplete>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let read = async {
        let mut body = pin!(body);
        // Copied, and no frame kept: one of a single byte holds on to all that was read with it.
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Incomplete::Read(error.into()))?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if data.len() > most.saturating_sub(whole.len()) {
                return Err(Incomplete::TooLarge);
            }
            taken.grow(data.len())?;
            whole.extend_from_slice(data);
        }
        Ok(whole.freeze())
    };
    match timeout(limit, read).await {
        Ok(read) => read,
        Err(_) => Err(Incomplete::Late(limit)),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use http_body_util::Full;
    use hyper::body::Frame;

    use super::*;
    use crate::identify::room::{Left, Room};

    fn room(bytes: usize) -> Arc<Room> {
        Room::new(bytes, Arc::new(Left::new(bytes)))
    }

    async fn collect<B>(body: B, most: usize, limit: Duration) -> Result<Bytes, Incomplete>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        super::collect(body, most, limit, &mut room(most).none()).await
    }

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
        assert!(matches!(large, Err(Incomplete::TooLarge)));
        let late = collect(Endless(false), 2, Duration::from_millis(10)).await;
        assert!(matches!(late, Err(Incomplete::Late(_))));
    }

    #[tokio::test]
    async fn what_has_no_room_is_not_read_on() {
        let (room, minute) = (room(3), Duration::from_mins(1));
        let mut taken = room.none();
        let text = || Full::new(Bytes::from_static(b"{}"));
        let first = super::collect(text(), 2, minute, &mut taken).await;
        assert_eq!(first.ok().as_deref(), Some(&b"{}"[..]));
        let second = super::collect(text(), 2, minute, &mut room.none()).await;
        assert!(matches!(second, Err(Incomplete::NoRoom(_))), "{second:?}");
        drop(taken);
        let third = super::collect(text(), 2, minute, &mut room.none()).await;
        assert_eq!(third.ok().as_deref(), Some(&b"{}"[..]));
    }

    /// What was read from a connection at once, of which a frame is a byte.
    struct Piece {
        _read: Arc<()>,
    }

    impl AsRef<[u8]> for Piece {
        fn as_ref(&self) -> &[u8] {
            b"x"
        }
    }

    /// So many frames of one byte, while no more than one of them is kept.
    struct Crumbs(usize, Arc<()>);

    impl Body for Crumbs {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            if Arc::strong_count(&self.1) > 1 {
                return Poll::Ready(Some(Err("a frame is kept")));
            }
            Poll::Ready(self.0.checked_sub(1).map(|left| {
                self.0 = left;
                let piece = Piece {
                    _read: Arc::clone(&self.1),
                };
                Ok(Frame::data(Bytes::from_owner(piece)))
            }))
        }
    }

    #[tokio::test]
    async fn a_body_in_crumbs_takes_no_more_room() {
        let minute = Duration::from_mins(1);
        let whole = collect(Crumbs(300, Arc::default()), 300, minute).await;
        assert_eq!(whole.unwrap(), vec![b'x'; 300]);
        let large = collect(Crumbs(301, Arc::default()), 300, minute).await;
        assert!(matches!(large, Err(Incomplete::TooLarge)), "{large:?}");
    }
}
