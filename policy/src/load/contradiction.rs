//! Tests on arguments that no value passes: within one entry of `args`, and between entries about the same value.
//!
//! Only what is certain is reported, of arguments in which no name may be taken for another. Of several values
//! a rule that restricts asks of each entry that some value passes it, and of a text or a number that one of its readings
//! does; a rule that allows asks it of all (see [`decide`](crate::decide)).

use crate::decide::{Quantity, could_pass};
use crate::model::{ArgumentPlace, ArgumentTest, Bound, Pointer, Test, Type};
use crate::number::Numeral;

/// Why no value can pass all tests of one entry, if that is plain.
pub(super) fn within(keys: bool, tests: &[&Test], quantity: Quantity) -> Option<String> {
    let of_values = |test: &&Test| matches!(test, Test::Bound(..) | Test::Type(_));
    if keys && tests.iter().any(of_values) {
        return Some(
            "keys are texts: only `matches`, `glob`, `in` and `length` test them".to_owned(),
        );
    }
    kinds(tests)
        .or_else(|| bounds(tests, quantity))
        .or_else(|| listed(tests, quantity))
}

/// The first entry that no value passes together with those before it, by its place, and why.
pub(super) fn between(entries: &[ArgumentTest], quantity: Quantity) -> Option<(usize, String)> {
    let mut before: Vec<(&Pointer, &ArgumentTest)> = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let ArgumentPlace::Field(pointer) = &entry.place else {
            continue;
        };
        let both = before
            .iter()
            .find_map(|(other, earlier)| absent((other, earlier), (pointer, entry)));
        if let Some(absent) = both {
            let why =
                format!("nothing is at `{absent}` where `absent` holds, and both are to hold");
            return Some((place, why));
        }
        // Of several values, each entry of a rule that restricts may be about another.
        if quantity == Quantity::All || !(pointer.is_wide() || entry.keys) {
            let same = |(other, earlier): &&(&Pointer, &ArgumentTest)| {
                other.segments == pointer.segments && earlier.keys == entry.keys
            };
            let tests: Vec<&Test> = before
                .iter()
                .filter(same)
                .flat_map(|(_, earlier)| &earlier.tests)
                .chain(&entry.tests)
                .collect();
            if tests.len() > entry.tests.len()
                && let Some(why) = within(entry.keys, &tests, quantity)
            {
                let why = format!("with the tests of `{pointer}` before it: {why}");
                return Some((place, why));
            }
        }
        before.push((pointer, entry));
    }
    None
}

/// Where one entry wants nothing to be and the other something, there or below.
fn absent<'a>(
    one: (&'a Pointer, &ArgumentTest),
    other: (&'a Pointer, &ArgumentTest),
) -> Option<&'a Pointer> {
    let wants_nothing = |entry: &ArgumentTest| matches!(*entry.tests, [Test::Absent(true)]);
    let (nothing, something) = match (wants_nothing(one.1), wants_nothing(other.1)) {
        (true, false) => (one.0, other.0),
        (false, true) => (other.0, one.0),
        _ => return None,
    };
    let below = something.segments.starts_with(&nothing.segments);
    below.then_some(nothing)
}

/// Tests for values of different types.
fn kinds(tests: &[&Test]) -> Option<String> {
    let any = |is: fn(&Test) -> bool| tests.iter().any(|test| is(test));
    let textual = any(|test| matches!(test, Test::Matches(_) | Test::Glob(_)));
    let numbers = any(|test| matches!(test, Test::Bound(..)));
    let sized = any(|test| matches!(test, Test::Length(..)));
    if textual && numbers {
        return Some("no value is a text and a number".to_owned());
    }
    if numbers && sized {
        return Some("a number has no length".to_owned());
    }
    let types: Vec<Type> = tests
        .iter()
        .filter_map(|test| match test {
            Test::Type(kind) => Some(*kind),
            _ => None,
        })
        .collect();
    for kind in &types {
        let number = matches!(kind, Type::Number | Type::Integer);
        let long = matches!(kind, Type::String | Type::Array | Type::Object);
        if (textual && *kind != Type::String) || (numbers && !number) || (sized && !long) {
            return Some(format!(
                "a value of type `{}` passes none of the other tests",
                kind.word()
            ));
        }
        let fits = |other: &Type| {
            kind == other || (number && matches!(other, Type::Number | Type::Integer))
        };
        if let Some(other) = types.iter().find(|other| !fits(other)) {
            let (kind, other) = (kind.word(), other.word());
            return Some(format!(
                "no value is of type `{kind}` and of type `{other}`"
            ));
        }
    }
    None
}

/// Lengths and numbers that are to be larger than they may be.
fn bounds(tests: &[&Test], quantity: Quantity) -> Option<String> {
    let lengths = tests.iter().filter_map(|test| match test {
        Test::Length(least, most) => Some((*least, *most)),
        _ => None,
    });
    let (least, most) = lengths.fold((0, usize::MAX), |(least, most), (low, high)| {
        (least.max(low), most.min(high))
    });
    if least > most {
        return Some("no length is that large and that small".to_owned());
    }
    let numbers = || {
        tests.iter().filter_map(|test| match test {
            Test::Bound(bound, number) => Some((*bound, &**number)),
            _ => None,
        })
    };
    numbers()
        .any(|lower| numbers().any(|upper| excludes(lower, upper, quantity)))
        .then(|| "no number is that large and that small".to_owned())
}

/// Whether no number is within both bounds. For a rule that restricts a number just beyond one, whose double is the
/// bound's, is within as that.
fn excludes((lower, low): (Bound, &str), (upper, high): (Bound, &str), quantity: Quantity) -> bool {
    let both = Numeral::parse(low).zip(Numeral::parse(high));
    let Some([written, doubles]) = both.and_then(|(low, high)| low.compare(high)) else {
        return false;
    };
    match (lower, upper) {
        (Bound::Above, Bound::Below) => written.is_ge(),
        (Bound::Min | Bound::Above, Bound::Max | Bound::Below) if quantity == Quantity::Some => {
            doubles.is_gt()
        }
        (Bound::Min, Bound::Max) => written.is_gt(),
        (Bound::Min, Bound::Below) | (Bound::Above, Bound::Max) => written.is_ge(),
        _ => false,
    }
}

/// Listed values of which none passes the other tests.
fn listed(tests: &[&Test], quantity: Quantity) -> Option<String> {
    let values = tests.iter().find_map(|test| match test {
        Test::In(values) if !values.is_empty() => Some(values),
        _ => None,
    })?;
    let mut values = values.iter();
    let possible = values.any(|value| {
        let mut tests = tests.iter();
        tests.all(|test| could_pass(test, value, quantity))
    });
    (!possible).then(|| "no value that `in` lists passes the other tests".to_owned())
}
