//! Where tests look: along a pointer or at everything, and no further than the bounds.

use super::{Quantity, Unevaluated};
use crate::json::{Json, Members};
use crate::model::{ArgumentPlace, ArgumentTest, Segment};
use crate::text::confusable;

/// The deepest nesting that is looked into.
const DEPTH_MAX: usize = 64;
/// The most values that one rule looks at.
const VALUES_MAX: usize = 100_000;
/// The most bytes of text that one rule reads.
const TEXT_MAX: usize = 1 << 20;
/// The most names of members that one rule compares with those that it asks for. A long one counts as several.
const NAMES_MAX: usize = 1_000_000;
/// The longest name that counts as one, in bytes.
const NAME_LONG: usize = 16;

/// How much was looked at.
#[derive(Debug, Default)]
pub(crate) struct Work {
    values: usize,
    text: usize,
    names: usize,
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

    /// Counts a name that is compared.
    fn name(&mut self, name: &str) -> Result<(), Unevaluated> {
        self.names = self.names.saturating_add(1 + name.len() / NAME_LONG);
        if self.names > NAMES_MAX {
            return Err(Unevaluated::TooLarge);
        }
        Ok(())
    }
}

/// What is done about a member whose name a receiver may take for the one that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Nothing: nobody but Exeat reads them.
    Exact,
    /// It is looked at as well.
    Alike,
    /// It is an error: which of them counts is the receiver's to say.
    Distinct,
}

impl Names {
    pub(super) const fn of(quantity: Quantity) -> Self {
        match quantity {
            Quantity::Some => Self::Alike,
            Quantity::All => Self::Distinct,
        }
    }
}

/// The value of the member of this name, if there is no other that a receiver may take for it.
pub(crate) fn distinct<'a>(
    object: &'a dyn Members,
    name: &str,
    work: &mut Work,
) -> Result<Option<Json<'a>>, Unevaluated> {
    let mut found = None;
    for (other, value) in (0..object.count()).filter_map(|at| object.at(at)) {
        work.name(other)?;
        if other == name {
            found = Some(value);
        } else if confusable(other, &[name]) {
            return Err(Unevaluated::Confusable);
        }
    }
    if found.is_none() && object.withholds(Some(name)) {
        return Err(Unevaluated::Unknown);
    }
    Ok(found)
}

/// Whether to look on.
pub(super) type Go = std::ops::ControlFlow<()>;

/// A value that is found, or why there may be another than are.
pub(super) type Found<'a> = Result<Json<'a>, Unevaluated>;

/// What is shown each value that a test is about.
pub(super) type Show<'s> = dyn FnMut(Found<'_>, &mut Work) -> Go + 's;

/// Shows the values that a test is about.
pub(super) fn find(
    test: &ArgumentTest,
    names: Names,
    arguments: Option<Json<'_>>,
    work: &mut Work,
    show: &mut Show<'_>,
) -> Result<(), Unevaluated> {
    let Some(arguments) = arguments else {
        return Ok(());
    };
    match &test.place {
        ArgumentPlace::Field(pointer) => {
            let mut last = |value: Found<'_>, work: &mut Work| match value {
                Ok(value) if test.keys => keys_of(value, work, show),
                value => Ok(show(value, work)),
            };
            follow(&pointer.segments, names, arguments, work, &mut last).map(drop)
        }
        ArgumentPlace::Any => descend(arguments, test.keys, 0, work, show).map(drop),
    }
}

/// Shows the values that a pointer leads to.
pub(super) fn follow(
    segments: &[Segment],
    names: Names,
    value: Json<'_>,
    work: &mut Work,
    show: &mut dyn FnMut(Found<'_>, &mut Work) -> Result<Go, Unevaluated>,
) -> Result<Go, Unevaluated> {
    work.value()?;
    let Some((segment, rest)) = segments.split_first() else {
        return show(Ok(value), work);
    };
    match (segment, value) {
        (Segment::Key(key), Json::Map(map)) => {
            for (name, below) in (0..map.count()).filter_map(|at| map.at(at)) {
                work.name(name)?;
                let other = name != &**key;
                if other && (names == Names::Exact || !confusable(name, &[key])) {
                    continue;
                }
                let went = if other && names == Names::Distinct {
                    show(Err(Unevaluated::Confusable), work)?
                } else {
                    follow(rest, names, below, work, show)?
                };
                if went.is_break() {
                    return Ok(Go::Break(()));
                }
            }
            known(map, Some(key))
        }
        (Segment::Key(key), Json::List(list)) => match place(key).and_then(|at| list.at(at)) {
            Some(below) => follow(rest, names, below, work, show),
            None => Ok(Go::Continue(())),
        },
        (Segment::Each, Json::Map(map)) => {
            for (_, below) in (0..map.count()).filter_map(|at| map.at(at)) {
                if follow(rest, names, below, work, show)?.is_break() {
                    return Ok(Go::Break(()));
                }
            }
            known(map, None)
        }
        (Segment::Each, Json::List(list)) => {
            for below in (0..list.count()).filter_map(|at| list.at(at)) {
                if follow(rest, names, below, work, show)?.is_break() {
                    return Ok(Go::Break(()));
                }
            }
            Ok(Go::Continue(()))
        }
        (_, Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_)) => Ok(Go::Continue(())),
        (_, Json::Unknown) => Err(Unevaluated::Unknown),
    }
}

/// Goes on past an object, if it has no such member (`None`: none at all) that is not shown.
fn known(object: &dyn Members, name: Option<&str>) -> Result<Go, Unevaluated> {
    if object.withholds(name) {
        return Err(Unevaluated::Unknown);
    }
    Ok(Go::Continue(()))
}

/// Whether some receiver finds nothing where a pointer leads: one that takes names as they are written, or takes any
/// of several members for the one that is named.
pub(super) fn may_lack(
    segments: &[Segment],
    value: Json<'_>,
    work: &mut Work,
) -> Result<bool, Unevaluated> {
    work.value()?;
    let Some((segment, rest)) = segments.split_first() else {
        return Ok(false);
    };
    match (segment, value) {
        (Segment::Key(key), Json::Map(map)) => {
            let mut named = false;
            for (name, below) in (0..map.count()).filter_map(|at| map.at(at)) {
                work.name(name)?;
                let same = name == &**key;
                named |= same;
                if (same || confusable(name, &[key])) && may_lack(rest, below, work)? {
                    return Ok(true);
                }
            }
            Ok(!named)
        }
        (Segment::Key(key), Json::List(list)) => match place(key).and_then(|at| list.at(at)) {
            Some(below) => may_lack(rest, below, work),
            None => Ok(true),
        },
        (Segment::Each, Json::Map(map)) => {
            for (_, below) in (0..map.count()).filter_map(|at| map.at(at)) {
                if !may_lack(rest, below, work)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Segment::Each, Json::List(list)) => {
            for below in (0..list.count()).filter_map(|at| list.at(at)) {
                if !may_lack(rest, below, work)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (_, Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_)) => Ok(true),
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
        show(Ok(value), work)
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
        if show(Ok(Json::Text(key)), work).is_break() {
            return Ok(Go::Break(()));
        }
    }
    Ok(Go::Continue(()))
}
