//! Numbers in expressions: as they came, as the nearest double, or computed exactly in billionths.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::decide::Unevaluated;
use crate::number::Decimal;

/// Billionths in one.
const ONE: i128 = 1_000_000_000;

/// A number; never rounded but where that is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number<'a> {
    /// As JSON writes it.
    Written(&'a str),
    /// The nearest double in place of what is written; computed with as the shortest decimal that reads as it.
    Double(f64),
    /// Billionths.
    Computed(i128),
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Number<'_> {
    pub(super) fn of(count: usize) -> Self {
        let count = i128::try_from(count).unwrap_or(i128::MAX);
        Self::Computed(count.saturating_mul(ONE))
    }

    /// Compares by value.
    pub(super) fn compare(self, other: Self) -> Result<Ordering, Unevaluated> {
        if let (Self::Computed(left), Self::Computed(right)) = (self, other) {
            return Ok(left.cmp(&right));
        }
        // What is computed, too, is then what a double holds of it.
        if matches!((self, other), (Self::Double(_), _) | (_, Self::Double(_))) {
            let order = self.double()?.partial_cmp(&other.double()?);
            return order.ok_or(Unevaluated::TooLarge);
        }
        let (left, right) = (self.text(), other.text());
        match (Decimal::parse(&left), Decimal::parse(&right)) {
            (Some(left), Some(right)) => Ok(left.compare(right)),
            // A number too long to be one: the decoder has let through what the policy cannot read.
            _ => Err(Unevaluated::TooLarge),
        }
    }

    fn double(self) -> Result<f64, Unevaluated> {
        match self {
            Self::Double(double) => Ok(double),
            Self::Written(_) | Self::Computed(_) => {
                let read = self.text().parse();
                read.map_err(|_bad| Unevaluated::TooLarge)
            }
        }
    }

    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Written(text) => Cow::Borrowed(text),
            Self::Double(double) => Cow::Owned(format!("{double:e}")),
            Self::Computed(billionths) => {
                let sign = if *billionths < 0 { "-" } else { "" };
                let size = billionths.unsigned_abs();
                let one = ONE.unsigned_abs();
                Cow::Owned(format!("{sign}{}.{:09}", size / one, size % one))
            }
        }
    }

    /// The number in billionths, where it is one of them.
    fn exact(self) -> Result<i128, Unevaluated> {
        match self {
            Self::Computed(billionths) => Ok(billionths),
            Self::Written(_) | Self::Double(_) => Decimal::parse(&self.text())
                .ok_or(Unevaluated::TooLarge)?
                .billionths()
                .ok_or(Unevaluated::Arithmetic),
        }
    }

    /// The number as a place in a list, where it is one.
    pub(super) fn place(self) -> Option<usize> {
        let billionths = self.exact().ok()?;
        let whole = billionths.checked_rem(ONE)? == 0;
        usize::try_from(billionths.checked_div(ONE)?)
            .ok()
            .filter(|_| whole)
    }

    pub(super) fn negated(self) -> Result<Self, Unevaluated> {
        let negated = self.exact()?.checked_neg();
        negated.map(Self::Computed).ok_or(Unevaluated::Arithmetic)
    }

    /// Computes; `/` and `%` are those of whole numbers, as CEL has them.
    pub(super) fn compute(self, operator: Operator, other: Self) -> Result<Self, Unevaluated> {
        let (left, right) = (self.exact()?, other.exact()?);
        let result = match operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => multiply(left, right),
            Operator::Divide => whole(left, right)
                .and_then(|(left, right)| left.checked_div(right)?.checked_mul(ONE)),
            Operator::Remainder => whole(left, right).and_then(|_| left.checked_rem(right)),
        };
        result.map(Self::Computed).ok_or(Unevaluated::Arithmetic)
    }
}

fn multiply(left: i128, right: i128) -> Option<i128> {
    match (left % ONE, right % ONE) {
        (0, _) => (left / ONE).checked_mul(right),
        (_, 0) => left.checked_mul(right / ONE),
        _ => {
            let product = left.checked_mul(right)?;
            (product % ONE == 0).then_some(product / ONE)
        }
    }
}

/// Both in ones, where both are whole.
const fn whole(left: i128, right: i128) -> Option<(i128, i128)> {
    if left % ONE == 0 && right % ONE == 0 {
        Some((left / ONE, right / ONE))
    } else {
        None
    }
}
