//! Tests on arguments: whether they hold, what makes them fail, and how much work they may be.
//!
//! A rule that restricts matches where some value passes, as it came or as it reads (see
//! [`text`](crate::text)). A rule that allows matches where every value passes, as it came and as a receiver
//! may normalise it. Numbers count as they are written, and as the nearest doubles. What cannot be tested is an error; what follows from one is the rules' to say.
//!
//! Receivers may also take one name for another: a rule that restricts looks at all members that may be taken for
//! the one that it names, and for one that allows, or sums, there must be no other.

mod visit;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use self::visit::{Found, Go, Names, find, follow, may_lack};
pub(crate) use self::visit::{Work, distinct};
use crate::json::Json;
use crate::model::{ArgumentPlace, ArgumentTest, ClaimTest, Effect, Pointer, Scalar, Test, Type};
use crate::number::{Amount, Decimal, Numeral};
use crate::text::{compatible, is_plain, readable};

/// Why a rule could not be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unevaluated {
    /// The arguments nest deeper than 64 levels.
    TooDeep,
    /// More than 100,000 values, or more than 1 MiB of text.
    TooLarge,
    /// A value is of another type than the tests on it are for: a list where a text is tested, or a text where
    /// a number is. Its receiver may well convert it, so it does not pass for something that failed the test.
    OtherType,
    /// An object holds a member that its receiver may take for the one that is named: in other letter case, or with
    /// look-alike letters.
    Confusable,
    /// An expression asks for a field or an element that is not there.
    Missing,
    /// An expression divides by zero, or computes beyond what is exact.
    Arithmetic,
    /// A value is not known: it stands in a record that left it out ([`Json::Unknown`]).
    Unknown,
}

impl Unevaluated {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::TooDeep => "the arguments are nested too deeply to be tested",
            Self::TooLarge => "the arguments are too large to be tested",
            Self::OtherType => "an argument is of another type than the test is for",
            Self::Confusable => "an argument may be taken for the one that is named",
            Self::Missing => "the expression asks for what is not there",
            Self::Arithmetic => "the expression computes what has no exact result",
            Self::Unknown => "an argument is not known, since the record leaves it out",
        }
    }
}

impl fmt::Display for Unevaluated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// How several values, and the two readings of one, count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// One that passes is enough: for rules that restrict.
    Some,
    /// All must pass, and there must be one: for rules that allow.
    All,
}

impl Quantity {
    /// Of two readings of one value.
    fn of(self, [one, other]: [bool; 2]) -> bool {
        match self {
            Self::Some => one || other,
            Self::All => one && other,
        }
    }
}

/// How values count together for a rule of this effect.
pub(crate) const fn quantity(effect: Effect) -> Quantity {
    match effect {
        Effect::Allow => Quantity::All,
        Effect::DryRun | Effect::Approve | Effect::Deny => Quantity::Some,
    }
}

/// Whether all of a rule's tests hold.
pub(super) fn hold(
    tests: &[ArgumentTest],
    arguments: Option<Json<'_>>,
    quantity: Quantity,
) -> Result<bool, Unevaluated> {
    let mut work = Work::default();
    every(tests, |test| holds(test, arguments, quantity, &mut work))
}

/// Whether all hold; one that does not outweighs one that cannot be evaluated.
fn every<T>(
    tests: &[T],
    mut holds: impl FnMut(&T) -> Result<bool, Unevaluated>,
) -> Result<bool, Unevaluated> {
    let mut error = None;
    for test in tests {
        match holds(test) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(found) => error = error.or(Some(found)),
        }
    }
    error.map_or(Ok(true), Err)
}

/// Whether one test holds.
pub(super) fn holds(
    test: &ArgumentTest,
    arguments: Option<Json<'_>>,
    quantity: Quantity,
    work: &mut Work,
) -> Result<bool, Unevaluated> {
    let names = Names::of(quantity);
    let mut tally = Tally::new(quantity);
    if let [Test::Absent(absent)] = test.tests.as_slice() {
        if let (true, Quantity::Some, ArgumentPlace::Field(pointer)) =
            (absent, quantity, &test.place)
        {
            let lacks = |arguments| may_lack(&pointer.segments, arguments, work);
            return arguments.map_or(Ok(true), lacks);
        }
        find(test, names, arguments, work, &mut |value, _| {
            tally.add(value.map(|_| !absent))
        })?;
        return if tally.seen {
            tally.result()
        } else {
            Ok(*absent)
        };
    }
    let anywhere = test.place == ArgumentPlace::Any;
    find(test, names, arguments, work, &mut |value, work| {
        let of = |value| every(&test.tests, |test| passes(test, value, quantity, work));
        match value.and_then(of) {
            // Among all values there are always some of another type.
            Err(Unevaluated::OtherType) if anywhere => tally.add(Ok(false)),
            passed => tally.add(passed),
        }
    })?;
    tally.result()
}

/// Adds up the numbers that a pointer leads to; nothing where it leads nowhere, and not to what may be taken for it.
pub(super) fn sum(pointer: &Pointer, arguments: Option<Json<'_>>) -> Result<Amount, Unevaluated> {
    let Some(arguments) = arguments else {
        return Ok(Amount::default());
    };
    let mut sum = Amount::default();
    let mut add = |value: Found<'_>, _: &mut Work| {
        let Json::Number(text) = value? else {
            return Err(Unevaluated::OtherType);
        };
        let amount = Decimal::parse(text).and_then(Decimal::amount);
        sum = sum.plus(amount.ok_or(Unevaluated::OtherType)?);
        Ok(Go::Continue(()))
    };
    let (segments, mut work) = (&pointer.segments, Work::default());
    follow(segments, Names::Distinct, arguments, &mut work, &mut add).map(drop)?;
    Ok(sum)
}

/// Counts values together. A value that passes decides for [`Quantity::Some`] even where another could not be
/// tested; one that fails decides for [`Quantity::All`].
struct Tally {
    quantity: Quantity,
    seen: bool,
    decided: bool,
    error: Option<Unevaluated>,
}

impl Tally {
    const fn new(quantity: Quantity) -> Self {
        Self {
            quantity,
            seen: false,
            decided: false,
            error: None,
        }
    }

    fn add(&mut self, passed: Result<bool, Unevaluated>) -> Go {
        self.seen = true;
        match passed {
            Ok(passed) => self.decided |= passed == (self.quantity == Quantity::Some),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        if self.decided {
            Go::Break(())
        } else {
            Go::Continue(())
        }
    }

    fn result(self) -> Result<bool, Unevaluated> {
        match (self.quantity, self.error) {
            (Quantity::Some, _) if self.decided => Ok(true),
            (Quantity::All, _) if self.decided || !self.seen => Ok(false),
            (_, Some(error)) => Err(error),
            (Quantity::Some, None) => Ok(false),
            (Quantity::All, None) => Ok(true),
        }
    }
}

/// Whether one value passes one test.
fn passes(
    asked: &Test,
    value: Json<'_>,
    quantity: Quantity,
    work: &mut Work,
) -> Result<bool, Unevaluated> {
    match (asked, value) {
        (_, Json::Unknown) => Err(Unevaluated::Unknown),
        (Test::Type(kind), value) => Ok(is_of(*kind, value, quantity)),
        (Test::Absent(absent), _) => Ok(!absent),
        (Test::Matches(pattern) | Test::Glob(pattern), Json::Text(text)) => {
            work.text(text)?;
            Ok(in_forms(text, quantity, |form| {
                pattern.regex.is_match(form)
            }))
        }
        (Test::Bound(bound, limit), Json::Number(number)) => {
            let both = Numeral::parse(number).zip(Numeral::parse(limit));
            let orders = both.and_then(|(number, limit)| number.compare(limit));
            // A number too long to be one: the decoder has let through what the policy cannot read.
            let orders = orders.ok_or(Unevaluated::TooLarge)?;
            Ok(quantity.of(orders.map(|order| bound.holds(order))))
        }
        (Test::In(values), value) => one_of(values, value, quantity, work),
        (Test::Length(least, most), value) => {
            let length = match value {
                Json::Text(text) => {
                    work.text(text)?;
                    text.chars().count()
                }
                Json::List(list) => list.count(),
                Json::Map(map) => map.count(),
                _ => return Err(Unevaluated::OtherType),
            };
            Ok((*least..=*most).contains(&length))
        }
        (Test::Matches(_) | Test::Glob(_) | Test::Bound(..), _) => Err(Unevaluated::OtherType),
    }
}

/// Whether a value that a policy lists may pass a test: `false` where it plainly does not.
pub(crate) fn could_pass(asked: &Test, listed: &Scalar, quantity: Quantity) -> bool {
    match (asked, listed) {
        (Test::Type(kind), Scalar::Text(_)) => *kind == Type::String,
        (Test::Bound(..), Scalar::Text(_)) => false,
        (Test::In(values), Scalar::Text(_)) if quantity == Quantity::Some => {
            values.iter().any(|value| matches!(value, Scalar::Text(_)))
        }
        // A text that only reads like the listed one may pass in another of its forms.
        (_, Scalar::Text(_)) if quantity == Quantity::Some => true,
        // So may a number with the same double, which is more or less.
        (Test::Bound(bound, limit), Scalar::Number(listed)) if quantity == Quantity::Some => {
            let both = Numeral::parse(listed).zip(Numeral::parse(limit));
            let orders = both.and_then(|(listed, limit)| listed.compare(limit));
            orders.is_none_or(|[_, doubles]| bound.inclusive().holds(doubles))
        }
        _ => {
            let value = match listed {
                Scalar::Null => Json::Null,
                Scalar::Bool(truth) => Json::Bool(*truth),
                Scalar::Number(text) => Json::Number(text),
                Scalar::Text(text) => Json::Text(text),
            };
            passes(asked, value, quantity, &mut Work::default()) == Ok(true)
        }
    }
}

fn is_of(kind: Type, value: Json<'_>, quantity: Quantity) -> bool {
    match (kind, value) {
        (Type::Integer, Json::Number(text)) => {
            Numeral::parse(text).is_some_and(|number| quantity.of(number.is_whole()))
        }
        (Type::Null, Json::Null)
        | (Type::Boolean, Json::Bool(_))
        | (Type::Number, Json::Number(_))
        | (Type::String, Json::Text(_))
        | (Type::Array, Json::List(_))
        | (Type::Object, Json::Map(_)) => true,
        _ => false,
    }
}

fn one_of(
    values: &[Scalar],
    value: Json<'_>,
    quantity: Quantity,
    work: &mut Work,
) -> Result<bool, Unevaluated> {
    if let Json::Text(text) = value {
        work.text(text)?;
    }
    let number = match value {
        Json::Number(text) => Some(Numeral::parse(text).ok_or(Unevaluated::TooLarge)?),
        _ => None,
    };
    let mut comparable = false;
    for listed in values {
        let equal = match (listed, value) {
            (Scalar::Null, Json::Null) => true,
            (Scalar::Bool(listed), Json::Bool(truth)) => *listed == truth,
            (Scalar::Text(listed), Json::Text(text)) => {
                // What an allow rule lists is what it means, to the letter.
                let exact = text == &**listed;
                exact
                    || (quantity == Quantity::Some
                        && (readable(text) == **listed || compatible(text) == **listed))
            }
            (Scalar::Number(listed), Json::Number(_)) => {
                let both = Numeral::parse(listed).zip(number);
                let orders = both.and_then(|(listed, number)| listed.compare(number));
                orders.is_some_and(|orders| quantity.of(orders.map(Ordering::is_eq)))
            }
            _ => continue,
        };
        comparable = true;
        if equal {
            return Ok(true);
        }
    }
    if comparable {
        Ok(false)
    } else {
        Err(Unevaluated::OtherType)
    }
}

/// A text as it came and as its receiver, or a person, may read it.
fn in_forms(text: &str, quantity: Quantity, holds: impl Fn(&str) -> bool) -> bool {
    let raw = holds(text);
    // Plain text has no other form.
    if raw == (quantity == Quantity::Some) || is_plain(text) {
        return raw;
    }
    let in_form = |other: Cow<'_, str>| match other {
        Cow::Borrowed(_) => raw,
        Cow::Owned(other) => holds(&other),
    };
    match quantity {
        // What is not ASCII in a pattern is found in what is received, and not in what reads like ASCII.
        Quantity::Some => in_form(readable(text)) || in_form(compatible(text)),
        Quantity::All => in_form(compatible(text)),
    }
}

/// Whether a token claims what an identity asks for. Byte by byte: a name that only reads like another is another.
///
/// # Errors
/// What makes that no answer: too much to look at, or, of a recorded token, a claim that the record leaves out.
pub(crate) fn claims(test: &ClaimTest, claims: Json<'_>) -> Result<bool, Unevaluated> {
    let mut unknown = false;
    let mut is_one = |value: Json<'_>| match value {
        Json::Text(shown) => test.any.iter().any(|one| **one == *shown),
        Json::Unknown => {
            unknown = true;
            false
        }
        _ => false,
    };
    let mut found = false;
    let mut look = |value: Found<'_>, _: &mut Work| {
        found = match value? {
            Json::List(list) => (0..list.count())
                .filter_map(|at| list.at(at))
                .any(&mut is_one),
            one => is_one(one),
        };
        Ok(if found {
            Go::Break(())
        } else {
            Go::Continue(())
        })
    };
    let (segments, mut work) = (&test.claim.0.segments, Work::default());
    let followed = follow(segments, Names::Exact, claims, &mut work, &mut look);
    match followed {
        _ if found => Ok(true),
        Err(error) => Err(error),
        Ok(_) if unknown => Err(Unevaluated::Unknown),
        Ok(_) => Ok(false),
    }
}
