//! Evaluation: each step is counted, nothing is converted, and what is not known stays unknown.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::Condition;
use super::check::{Field, Macro, Node, Order, Textual};
use super::number::{Number, Operator};
use super::value::{All, Differs, Reader, Reading, Rounding, Value, graver};
use crate::decide::{Quantity, Unevaluated, Work, distinct};
use crate::json::{Json, Members};
use crate::model::Scalar;

/// What an expression may ask for.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// `args`; without any, an object without members.
    pub(crate) arguments: Option<Json<'a>>,
    /// `tool`: the tool, prompt or resource; empty where the method names none.
    pub(crate) tool: &'a str,
    /// `server`
    pub(crate) server: &'a str,
    /// `method`
    pub(crate) method: &'a str,
    /// `caller.user`
    pub(crate) user: Option<&'a str>,
    /// `caller.host`
    pub(crate) host: Option<&'a str>,
    /// `caller.issuer`
    pub(crate) issuer: Option<&'a str>,
    /// `caller.subject`
    pub(crate) subject: Option<&'a str>,
    /// `caller.claims`
    pub(crate) claims: Option<Json<'a>>,
}

/// Whether the condition holds: for a rule that restricts as the texts came, as they read or as a receiver may
/// normalise them; for one that allows as they came and as a receiver may normalise them. In each of these the numbers
/// count as they are written, and as the nearest doubles.
pub(crate) fn hold<'a>(
    condition: &'a Condition,
    facts: &Facts<'a>,
    quantity: Quantity,
) -> Result<bool, Unevaluated> {
    let decides = quantity == Quantity::Some;
    // A constant that is not ASCII is found in what is received, and not in what reads like ASCII.
    let readings: &[Reading] = match quantity {
        Quantity::Some => &[Reading::Sent, Reading::Read, Reading::Received],
        Quantity::All => &[Reading::Sent, Reading::Received],
    };
    let (mut work, mut differs) = (Work::default(), Differs::default());
    let mut error = None;
    for rounding in [Rounding::Exact, Rounding::Double] {
        if rounding == Rounding::Double && !differs.numbers {
            break;
        }
        for reading in readings {
            if *reading != Reading::Sent && !differs.texts {
                break;
            }
            let reader = Reader {
                reading: *reading,
                rounding,
                differs,
                work: &mut work,
            };
            let told;
            (told, differs) = truth(condition, facts, reader);
            match told {
                Ok(one) if one == decides => return Ok(decides),
                Ok(_) => {}
                Err(other) => error = Some(graver(error, other)),
            }
        }
    }
    error.map_or(Ok(!decides), Err)
}

fn truth<'a>(
    condition: &'a Condition,
    facts: &Facts<'a>,
    reader: Reader<'_>,
) -> (Result<bool, Unevaluated>, Differs) {
    let mut run = Run {
        facts,
        locals: Vec::new(),
        reader,
    };
    let truth = run.truth(&condition.root);
    (truth, run.reader.differs)
}

struct Run<'a, 'r> {
    facts: &'r Facts<'a>,
    /// The variables of the macros that are gone through, the outermost first.
    locals: Vec<Value<'a>>,
    reader: Reader<'r>,
}

/// An object without members.
struct Nothing;

impl Members for Nothing {
    fn count(&self) -> usize {
        0
    }

    fn at(&self, _: usize) -> Option<(&str, Json<'_>)> {
        None
    }

    fn get(&self, _: &str) -> Option<Json<'_>> {
        None
    }
}

impl<'a> Run<'a, '_> {
    fn truth(&mut self, node: &'a Node) -> Result<bool, Unevaluated> {
        self.value(node)?.boolean()
    }

    fn value(&mut self, node: &'a Node) -> Result<Value<'a>, Unevaluated> {
        self.reader.work.value()?;
        Ok(match node {
            Node::Constant(scalar) => {
                let constant = self.reader.constant(scalar)?;
                self.counted(constant)?
            }
            Node::List(items) => {
                let items = items.iter().map(|item| self.value(item));
                Value::Made(items.collect::<Result<_, _>>()?)
            }
            Node::Arguments => match self.facts.arguments {
                Some(arguments) => self.reader.value(arguments)?,
                None => Value::Map(&Nothing),
            },
            Node::Claims => {
                let claims = self.facts.claims.ok_or(Unevaluated::Missing)?;
                self.reader.value(claims)?
            }
            Node::Field(field) => {
                let text = self.field(*field).ok_or(Unevaluated::Missing)?;
                self.counted(Value::Text(Cow::Borrowed(text)))?
            }
            Node::Local(place) => {
                let local = self.locals.get(*place).cloned();
                self.counted(local.ok_or(Unevaluated::Missing)?)?
            }
            Node::Select(operand, field) => {
                let operand = self.value(operand)?;
                self.member(&operand, field)?
            }
            Node::Index(operand, place) => {
                let (operand, place) = (self.value(operand)?, self.value(place)?);
                self.index(&operand, &place)?
            }
            Node::Either(condition, yes, no) => {
                let chosen = if self.truth(condition)? { yes } else { no };
                self.value(chosen)?
            }
            Node::Negated(operand) => match self.value(operand)? {
                Value::Number(number) => Value::Number(number.negated()?),
                _ => return Err(Unevaluated::OtherType),
            },
            Node::Computed(operator, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.computed(*operator, &left, &right)?
            }
            Node::Size(operand) => Value::Number(self.size(operand)?),
            Node::Each(Macro::Filter, range, body) => self.listed(range, body, true)?,
            Node::Each(Macro::Map, range, body) => self.listed(range, body, false)?,
            _ => Value::Bool(self.tested(node)?),
        })
    }

    /// Counts a text that is used once more; one that was sent is counted where it is read.
    fn counted(&mut self, value: Value<'a>) -> Result<Value<'a>, Unevaluated> {
        if let Value::Text(text) = &value {
            self.reader.work.text(text)?;
        }
        Ok(value)
    }

    /// Parts that are true or false.
    fn tested(&mut self, node: &'a Node) -> Result<bool, Unevaluated> {
        match node {
            Node::Has(operand, field) => match self.value(operand)? {
                Value::Map(map) => Ok(distinct(map, field, self.reader.work)?.is_some()),
                _ => Err(Unevaluated::OtherType),
            },
            Node::HasField(field) => Ok(self.field(*field).is_some()),
            Node::HasClaims => Ok(self.facts.claims.is_some()),
            Node::Not(operand) => self.truth(operand).map(|truth| !truth),
            Node::And(left, right) => self.both(left, right, true),
            Node::Or(left, right) => self.both(left, right, false),
            Node::Equal(left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.reader.equal(&left, &right, 0)
            }
            Node::Ordered(order, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                ordered(*order, &left, &right)
            }
            Node::OneOf(operand, constants) => {
                let operand = self.value(operand)?;
                self.one_of(&operand, constants)
            }
            Node::In(operand, range) => {
                let (operand, range) = (self.value(operand)?, self.value(range)?);
                self.contained(&operand, &range)
            }
            Node::Textual(how, text, part) => match (self.value(text)?, self.value(part)?) {
                (Value::Text(text), Value::Text(part)) => Ok(match how {
                    Textual::Contains => text.contains(&*part),
                    Textual::StartsWith => text.starts_with(&*part),
                    Textual::EndsWith => text.ends_with(&*part),
                }),
                _ => Err(Unevaluated::OtherType),
            },
            Node::Matches(text, pattern) => match self.value(text)? {
                Value::Text(text) => Ok(pattern.regex.is_match(&text)),
                _ => Err(Unevaluated::OtherType),
            },
            Node::Each(Macro::Exists, range, body) => {
                self.every(range, body, false).map(|none| !none)
            }
            Node::Each(Macro::All, range, body) => self.every(range, body, true),
            Node::Each(_, range, body) => self.one(range, body),
            // The rest makes other values, which `value` has taken.
            _ => Err(Unevaluated::OtherType),
        }
    }

    fn field(&self, field: Field) -> Option<&'a str> {
        match field {
            Field::Tool => Some(self.facts.tool),
            Field::Server => Some(self.facts.server),
            Field::Method => Some(self.facts.method),
            Field::User => self.facts.user,
            Field::Host => self.facts.host,
            Field::Issuer => self.facts.issuer,
            Field::Subject => self.facts.subject,
        }
    }

    fn member(&mut self, operand: &Value<'a>, name: &str) -> Result<Value<'a>, Unevaluated> {
        match operand {
            Value::Map(map) => {
                let member = distinct(*map, name, self.reader.work)?;
                self.reader.value(member.ok_or(Unevaluated::Missing)?)
            }
            _ => Err(Unevaluated::OtherType),
        }
    }

    fn index(&mut self, operand: &Value<'a>, place: &Value<'a>) -> Result<Value<'a>, Unevaluated> {
        match (operand, place) {
            (Value::Map(_), Value::Text(name)) => self.member(operand, name),
            (Value::Lent(_) | Value::Made(_), Value::Number(place)) => {
                let place = place.place().ok_or(Unevaluated::Missing)?;
                operand.elements()?.at(place, &mut self.reader)
            }
            _ => Err(Unevaluated::OtherType),
        }
    }

    /// Both (`decided` = true), or either: a part that decides outweighs one that cannot be evaluated.
    fn both(&mut self, left: &'a Node, right: &'a Node, all: bool) -> Result<bool, Unevaluated> {
        let left = self.truth(left);
        if left == Ok(!all) {
            return Ok(!all);
        }
        match (left, self.truth(right)) {
            (_, Ok(right)) if right != all => Ok(!all),
            (Err(one), Err(other)) => Err(graver(Some(one), other)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(_), Ok(_)) => Ok(all),
        }
    }

    fn computed(
        &mut self,
        operator: Operator,
        left: &Value<'a>,
        right: &Value<'a>,
    ) -> Result<Value<'a>, Unevaluated> {
        match (operator, left, right) {
            (_, Value::Number(left), Value::Number(right)) => {
                left.compute(operator, *right).map(Value::Number)
            }
            (Operator::Add, Value::Text(left), Value::Text(right)) => {
                let text = format!("{left}{right}");
                self.reader.work.text(&text)?;
                Ok(Value::Text(Cow::Owned(text)))
            }
            _ => Err(Unevaluated::OtherType),
        }
    }

    fn size(&mut self, operand: &'a Node) -> Result<Number<'a>, Unevaluated> {
        Ok(Number::of(match self.value(operand)? {
            Value::Text(text) => text.chars().count(),
            Value::Map(map) if map.withholds(None) => return Err(Unevaluated::Unknown),
            Value::Map(map) => map.count(),
            other => other.elements()?.count(),
        }))
    }

    /// Whether it is one of some constants: those of other types do not count, if there are any of its own.
    fn one_of(
        &mut self,
        operand: &Value<'a>,
        constants: &'a [Scalar],
    ) -> Result<bool, Unevaluated> {
        let mut comparable = constants.is_empty();
        for constant in constants {
            let value = self.reader.constant(constant)?;
            match self.reader.equal(operand, &value, 0) {
                Ok(true) => return Ok(true),
                Ok(false) => comparable |= !matches!(constant, Scalar::Null),
                Err(Unevaluated::OtherType) => {}
                Err(error) => return Err(error),
            }
        }
        if comparable || matches!(operand, Value::Null) {
            Ok(false)
        } else {
            Err(Unevaluated::OtherType)
        }
    }

    fn contained(&mut self, operand: &Value<'a>, range: &Value<'a>) -> Result<bool, Unevaluated> {
        if let (Value::Map(map), Value::Text(name)) = (range, operand) {
            return Ok(distinct(*map, name, self.reader.work)?.is_some());
        }
        let elements = range.elements()?;
        let mut none = All::default();
        for index in 0..elements.count() {
            let equal = match elements.at(index, &mut self.reader) {
                Ok(element) => self.reader.equal(operand, &element, 0),
                Err(error) => Err(error),
            };
            if none.add(equal.map(|equal| !equal))? {
                return Ok(true);
            }
        }
        none.result().map(|none| !none)
    }

    /// Whether the body says `wanted` of every element; one of which it does not outweighs errors.
    fn every(
        &mut self,
        range: &'a Node,
        body: &'a Node,
        wanted: bool,
    ) -> Result<bool, Unevaluated> {
        let range = self.value(range)?;
        let elements = range.elements()?;
        let mut all = All::default();
        for index in 0..elements.count() {
            let element = elements.at(index, &mut self.reader);
            let held = element.and_then(|element| self.with(element, |run| run.truth(body)));
            if all.add(held.map(|held| held == wanted))? {
                return Ok(false);
            }
        }
        all.result()
    }

    /// Whether the body holds of exactly one element; an error of any is one.
    fn one(&mut self, range: &'a Node, body: &'a Node) -> Result<bool, Unevaluated> {
        let range = self.value(range)?;
        let elements = range.elements()?;
        let mut found = 0_usize;
        let mut errors = All::default();
        for index in 0..elements.count() {
            let element = elements.at(index, &mut self.reader);
            let held = element.and_then(|element| self.with(element, |run| run.truth(body)));
            found += usize::from(held == Ok(true));
            errors.add(held.map(|_| true))?;
        }
        errors.result().map(|_| found == 1)
    }

    /// The elements of which the body holds, or what the body makes of each; an error of any is one.
    fn listed(
        &mut self,
        range: &'a Node,
        body: &'a Node,
        filter: bool,
    ) -> Result<Value<'a>, Unevaluated> {
        let range = self.value(range)?;
        let elements = range.elements()?;
        let mut made = Vec::new();
        let mut errors = All::default();
        for index in 0..elements.count() {
            let element = elements.at(index, &mut self.reader);
            let one = element.and_then(|element| {
                let kept = element.clone();
                let value = self.with(element, |run| run.value(body))?;
                if !filter {
                    return Ok(Some(value));
                }
                value.boolean().map(|holds| holds.then_some(kept))
            });
            match one {
                Ok(one) => made.extend(one),
                Err(error) => {
                    errors.add(Err(error))?;
                }
            }
        }
        errors.result()?;
        Ok(Value::Made(made.into()))
    }

    fn with<T>(&mut self, local: Value<'a>, run: impl FnOnce(&mut Self) -> T) -> T {
        self.locals.push(local);
        let result = run(self);
        self.locals.pop();
        result
    }
}

fn ordered(order: Order, left: &Value<'_>, right: &Value<'_>) -> Result<bool, Unevaluated> {
    let found = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.compare(*right)?,
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        _ => return Err(Unevaluated::OtherType),
    };
    Ok(match order {
        Order::Less => found == Ordering::Less,
        Order::LessEqual => found != Ordering::Greater,
        Order::Greater => found == Ordering::Greater,
        Order::GreaterEqual => found != Ordering::Less,
    })
}
