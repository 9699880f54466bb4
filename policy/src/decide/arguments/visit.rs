//! Where tests look: along a pointer or at everything, and no further than the bounds.

use super::Unevaluated;
use crate::json::Json;
use crate::model::{ArgumentPlace, ArgumentTest, Segment};

/// The deepest nesting that is looked into.
const DEPTH_MAX: usize = 64;
/// The most values that one rule looks at.
const VALUES_MAX: usize = 100_000;
/// The most bytes of text that one rule reads.
const TEXT_MAX: usize = 1 << 20;

/// How much was looked at.
#[derive(Debug, Default)]
pub(crate) struct Work {
    values: usize,
    text: usize,
}

impl Work {
    pub(crate) fn value(&mut self) -> Result<(), Unevaluated> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Unevaluated::TooLarge);
        }
        Ok(())
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<(), Unevaluated> {
        self.text = self.text.saturating_add(text.len());
        if self.text > TEXT_MAX {
            return Err(Unevaluated::TooLarge);
        }
        Ok(())
    }
}

/// Whether to look on.
pub(super) type Go = std::ops::ControlFlow<()>;

/// What is shown each value that a test is about.
pub(super) type Show<'s> = dyn FnMut(Json<'_>, &mut Work) -> Go + 's;

/// Shows the values that a test is about.
pub(super) fn find(
    test: &ArgumentTest,
    arguments: Option<Json<'_>>,
    work: &mut Work,
    show: &mut Show<'_>,
) -> Result<(), Unevaluated> {
    let Some(arguments) = arguments else {
        return Ok(());
    };
    match &test.place {
        ArgumentPlace::Field(pointer) => {
            let mut last = |value: Json<'_>, work: &mut Work| {
                if test.keys {
                    keys_of(value, work, show)
                } else {
                    Ok(show(value, work))
                }
            };
            follow(&pointer.segments, arguments, work, &mut last).map(drop)
        }
        ArgumentPlace::Any => descend(arguments, test.keys, 0, work, show).map(drop),
    }
}

/// Shows the values that a pointer leads to.
pub(super) fn follow(
    segments: &[Segment],
    value: Json<'_>,
    work: &mut Work,
    show: &mut dyn FnMut(Json<'_>, &mut Work) -> Result<Go, Unevaluated>,
) -> Result<Go, Unevaluated> {
    work.value()?;
    let Some((segment, rest)) = segments.split_first() else {
        return show(value, work);
    };
    match (segment, value) {
        (Segment::Key(key), Json::Map(map)) => match map.get(key) {
            Some(below) => follow(rest, below, work, show),
            None => Ok(Go::Continue(())),
        },
        (Segment::Key(key), Json::List(list)) => match place(key).and_then(|at| list.at(at)) {
            Some(below) => follow(rest, below, work, show),
            None => Ok(Go::Continue(())),
        },
        (Segment::Each, Json::Map(map)) => {
            for (_, below) in (0..map.count()).filter_map(|at| map.at(at)) {
                if follow(rest, below, work, show)?.is_break() {
                    return Ok(Go::Break(()));
                }
            }
            Ok(Go::Continue(()))
        }
        (Segment::Each, Json::List(list)) => {
            for below in (0..list.count()).filter_map(|at| list.at(at)) {
                if follow(rest, below, work, show)?.is_break() {
                    return Ok(Go::Break(()));
                }
            }
            Ok(Go::Continue(()))
        }
        (_, Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_)) => Ok(Go::Continue(())),
        (_, Json::Unknown) => Err(Unevaluated::Unknown),
    }
}

/// A place in an array, as RFC 6901 writes it.
fn place(key: &str) -> Option<usize> {
    let digits = key.bytes().all(|byte| byte.is_ascii_digit());
    let plain = key == "0" || !key.starts_with('0');
    key.parse().ok().filter(|_| digits && plain)
}

/// Shows every value below (or, for keys, the names of all members below), the value itself included.
fn descend(
    value: Json<'_>,
    keys: bool,
    depth: usize,
    work: &mut Work,
    show: &mut Show<'_>,
) -> Result<Go, Unevaluated> {
    if depth > DEPTH_MAX {
        return Err(Unevaluated::TooDeep);
    }
    work.value()?;
    let shown = if keys {
        keys_of(value, work, show)?
    } else if depth == 0 {
        // The arguments as a whole are no argument.
        Go::Continue(())
    } else {
        show(value, work)
    };
    if shown.is_break() {
        return Ok(shown);
    }
    match value {
        Json::Map(map) => {
            for (_, below) in (0..map.count()).filter_map(|at| map.at(at)) {
                if descend(below, keys, depth + 1, work, show)?.is_break() {
                    return Ok(Go::Break(()));
                }
            }
        }
        Json::List(list) => {
            for below in (0..list.count()).filter_map(|at| list.at(at)) {
                if descend(below, keys, depth + 1, work, show)?.is_break() {
                    return Ok(Go::Break(()));
                }
            }
        }
        // Whatever lies below it. Where it was shown, that is noted.
        Json::Unknown if keys || depth == 0 => return Err(Unevaluated::Unknown),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Unknown => {}
    }
    Ok(Go::Continue(()))
}

fn keys_of(value: Json<'_>, work: &mut Work, show: &mut Show<'_>) -> Result<Go, Unevaluated> {
    let Json::Map(map) = value else {
        return Ok(Go::Continue(()));
    };
    for (key, _) in (0..map.count()).filter_map(|at| map.at(at)) {
        work.value()?;
        if show(Json::Text(key), work).is_break() {
            return Ok(Go::Break(()));
        }
    }
    Ok(Go::Continue(()))
}
