//! What a host is told whose server is not started: there is no session, and whoever asks all the same gets the refusal.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::FRAME;
use super::up::waits;
use crate::decode::lines::{Frame, Lines};
use crate::decode::rpc::{Message, parse_single};
use crate::forward::stream::{Sink, Source};
use crate::refuse::{Asked, Refusal, asked, error};

/// Time for a host to ask something.
const FIRST: Duration = Duration::from_secs(5);
/// Time for what it asks when it has been told once: of both eras' greetings it may try one after the other.
const MORE: Duration = Duration::from_secs(1);
/// Messages that are heeded.
const MESSAGES: usize = 32;
/// The longest that is read.
const LONGEST: usize = 64 << 10;

/// Answers by `refusal` what comes from the first of `descriptors`, on the second, until its end or for a while.
pub async fn turn_away(descriptors: Vec<OwnedFd>, refusal: Refusal<'static>) {
    let Ok([input, output]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return tracing::error!("the streams of a start that was refused are missing");
    };
    let told = async {
        let (input, output) = (Source::new(input)?, Sink::new(output)?);
        tell(&input, &output, refusal).await
    };
    if let Err(error) = told.await {
        tracing::debug!(%error, "a host whose start was refused was not told");
    }
}

async fn tell(input: &Source, output: &Sink, refusal: Refusal<'static>) -> std::io::Result<()> {
    let mut lines = Lines::new(LONGEST);
    let mut until = Instant::now() + FIRST;
    let mut heeded = 0;
    while heeded < MESSAGES {
        let Some(frame) = lines.next() else {
            match timeout_at(until, input.read(lines.space())).await {
                Ok(Ok(0)) | Err(_) => break,
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => return Err(error),
            }
        };
        heeded += 1;
        let Some(answer) = answer(frame, refusal) else {
            continue;
        };
        let mut line = answer.encode();
        line.push('\n');
        match timeout_at(until, output.write_all(line.as_bytes())).await {
            Ok(written) => written?,
            Err(_late) => break,
        }
        until = until.min(Instant::now() + MORE);
    }
    Ok(())
}

fn answer(frame: Frame<'_>, refusal: Refusal<'static>) -> Option<Message> {
    let waits = match frame {
        Frame::Line(line) => match parse_single(line, &FRAME) {
            Ok(message) => asked(&message),
            Err(fault) => return error(Refusal::from(&fault), &Asked::from(&fault)),
        },
        Frame::CarriageReturn => return error(Refusal::ParseError, &Asked::Unreadable),
        Frame::TooLong(skimmed) | Frame::PassedOver(skimmed) => waits(&skimmed),
    };
    error(refusal, &waits)
}
