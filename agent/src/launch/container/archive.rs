//! An image on its way to Docker's daemon: an archive in the form of `docker save`, made while it is fetched.
//!
//! What names the image and its layers comes last. An archive that ends early is therefore no image.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// A block of an archive (pax, "ustar Interchange Format"), in bytes.
const BLOCK: usize = 512;

/// The archive was given up: something else says why.
#[derive(Debug, thiserror::Error)]
#[error("the image did not come by whole")]
pub(super) struct GivenUp;

/// What the daemon reads.
#[derive(Debug)]
pub(super) struct Archive {
    pieces: mpsc::Receiver<Bytes>,
    ended: bool,
}

/// What writes it. Dropped without [`Writer::finish`], the archive has failed.
#[derive(Debug)]
pub(super) struct Writer {
    pieces: mpsc::Sender<Bytes>,
}

/// Of an empty piece: the end.
const END: Bytes = Bytes::new();

/// Both ends.
pub(super) fn archive() -> (Writer, Archive) {
    let (sender, pieces) = mpsc::channel(4);
    let archive = Archive {
        pieces,
        ended: false,
    };
    (Writer { pieces: sender }, archive)
}

impl Body for Archive {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.pieces.poll_recv(context));
        match piece {
            Some(piece) if piece.is_empty() => {
                self.ended = true;
                Poll::Ready(None)
            }
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => {
                self.ended = true;
                Poll::Ready(Some(Err(GivenUp)))
            }
        }
    }
}

impl Writer {
    /// Begins a file; all its bytes follow, then [`Writer::pad`].
    pub(super) async fn begin(&self, name: &str, size: u64) -> Result<(), GivenUp> {
        self.bytes(Bytes::from(header(name, size).ok_or(GivenUp)?.to_vec()))
            .await
    }

    /// Bytes of a file.
    pub(super) async fn bytes(&self, bytes: Bytes) -> Result<(), GivenUp> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.pieces.send(bytes).await.map_err(|_gone| GivenUp)
    }

    /// Ends a file of this size.
    pub(super) async fn pad(&self, size: u64) -> Result<(), GivenUp> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
        let missing = BLOCK.saturating_sub(over) % BLOCK;
        self.bytes(Bytes::from(vec![0; missing])).await
    }

    /// A whole file.
    pub(super) async fn file(&self, name: &str, content: Vec<u8>) -> Result<(), GivenUp> {
        let size = content.len() as u64;
        self.begin(name, size).await?;
        self.bytes(content.into()).await?;
        self.pad(size).await
    }

    /// Ends the archive.
    pub(super) async fn finish(self) -> Result<(), GivenUp> {
        self.bytes(Bytes::from(vec![0; 2 * BLOCK])).await?;
        self.pieces.send(END).await.map_err(|_gone| GivenUp)
    }
}

/// A regular file's header; none where the name or the size does not fit.
fn header(name: &str, size: u64) -> Option<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| {
        let place = block.get_mut(at..at.checked_add(text.len())?)?;
        place.copy_from_slice(text);
        Some(())
    };
    if name.len() > 100 || size >= 1 << 33 {
        return None;
    }
    put(0, name.as_bytes())?;
    put(100, b"0000644\0")?;
    put(108, b"0000000\0")?;
    put(116, b"0000000\0")?;
    put(124, format!("{size:011o}\0").as_bytes())?;
    put(136, b"00000000000\0")?;
    // The sum is made with spaces in its own place.
    put(148, b"        ")?;
    put(156, b"0")?;
    put(257, b"ustar\x0000")?;
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    block.get_mut(148..156)?.copy_from_slice(sum.as_bytes());
    Some(block)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_archive_is_one_that_tar_reads() {
        let directory = tempfile::tempdir().unwrap();
        let (writer, archive) = archive();
        let write = async {
            writer.file("a.json", b"{}".to_vec()).await.unwrap();
            writer.file("b", vec![7; 513]).await.unwrap();
            writer.file("c", Vec::new()).await.unwrap();
            writer.finish().await.unwrap();
        };
        let ((), all) = tokio::join!(write, archive.collect());
        let file = directory.path().join("x.tar");
        std::fs::write(&file, all.unwrap().to_bytes()).unwrap();
        let listed = std::process::Command::new("tar")
            .args(["--numeric-owner", "-tvf"])
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        let shown: Vec<Vec<&str>> = text
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                vec![words[2], words[5]]
            })
            .collect();
        assert_eq!(shown, [["2", "a.json"], ["513", "b"], ["0", "c"]]);
        assert!(listed.stderr.is_empty());
    }

    #[tokio::test]
    async fn what_is_not_finished_has_failed() {
        let (writer, archive) = archive();
        writer.bytes(Bytes::from_static(b"x")).await.unwrap();
        drop(writer);
        archive.collect().await.unwrap_err();
        assert!(header(&"x".repeat(101), 1).is_none());
        assert!(header("x", 1 << 33).is_none());
    }
}
