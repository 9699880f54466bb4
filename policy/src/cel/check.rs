//! From what is written to what is evaluated: every name known, every type that is certain fitting.

use std::sync::Arc;

use super::ConditionFault;
use super::number::Operator;
use super::tree::{Kind, Tree};
use crate::model::{Pattern, Scalar, Type};
use crate::yaml::closest;

/// How deep an expression may nest, however it is written.
const DEPTH_MAX: usize = 64;
/// How deep macros may stand in one another: each goes through a list of the request.
const MACROS_MAX: usize = 2;

/// A part of an expression, ready to be evaluated.
#[derive(Debug)]
pub(super) enum Node {
    Constant(Scalar),
    List(Vec<Node>),
    Arguments,
    /// What the caller's token claims.
    Claims,
    Field(Field),
    /// The variable of the macro at this depth, from 0.
    Local(usize),
    Select(Box<Node>, Box<str>),
    Index(Box<Node>, Box<Node>),
    Has(Box<Node>, Box<str>),
    HasField(Field),
    HasClaims,
    Not(Box<Node>),
    Negated(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Either(Box<Node>, Box<Node>, Box<Node>),
    Equal(Box<Node>, Box<Node>),
    /// Whether the order of the two is one of these.
    Ordered(Order, Box<Node>, Box<Node>),
    /// Whether it is one of these constants.
    OneOf(Box<Node>, Vec<Scalar>),
    In(Box<Node>, Box<Node>),
    Computed(Operator, Box<Node>, Box<Node>),
    Size(Box<Node>),
    Textual(Textual, Box<Node>, Box<Node>),
    Matches(Box<Node>, Pattern),
    Each(Macro, Box<Node>, Box<Node>),
}

/// What the request brings beside its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Tool,
    Server,
    Method,
    User,
    Host,
    /// Who issued the caller's token.
    Issuer,
    /// Whom it is about.
    Subject,
}

/// A field of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Text(Field),
    Claims,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Textual {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

const NAMES: [&str; 5] = ["args", "tool", "server", "method", "caller"];
const CALLER: [&str; 5] = ["user", "host", "issuer", "subject", "claims"];
const FUNCTIONS: [&str; 12] = [
    "has",
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "all",
    "exists",
    "exists_one",
    "existsOne",
    "filter",
    "map",
];

/// What is known of a value before there is one; `None`: nothing.
type Known = Option<Type>;

/// Checks an expression; all faults at once.
pub(super) fn check(tree: &Tree) -> Result<Node, Vec<ConditionFault>> {
    let mut checker = Checker::default();
    let (node, known) = checker.node(tree, 0);
    if known.is_some_and(|known| known != Type::Boolean) {
        checker.fault(tree.at, "expected an expression that is true or false");
    } else if checker.faults.is_empty() && !checker.asks {
        checker.fault(
            0,
            "the expression asks for nothing of the request, so it is always the same",
        );
    }
    if checker.faults.is_empty() {
        Ok(node)
    } else {
        Err(checker.faults)
    }
}

#[derive(Default)]
struct Checker {
    faults: Vec<ConditionFault>,
    locals: Vec<String>,
    /// Whether anything of the request is asked for.
    asks: bool,
}

impl Checker {
    fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.faults.push(ConditionFault::new(at, message));
    }

    /// Stands for what could not be read; a fault says why.
    fn nothing(&mut self, at: usize, message: impl Into<String>) -> (Node, Known) {
        self.fault(at, message);
        (Node::Constant(Scalar::Null), None)
    }

    fn unknown(&mut self, at: usize, message: String, name: &str, known: &[&str]) -> (Node, Known) {
        let hint = match closest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known are {}", listed(known)),
        };
        self.faults.push(ConditionFault {
            at,
            message,
            hint: Some(hint),
        });
        (Node::Constant(Scalar::Null), None)
    }

    fn node(&mut self, tree: &Tree, depth: usize) -> (Node, Known) {
        if depth > DEPTH_MAX {
            return self.nothing(tree.at, format!("nested deeper than {DEPTH_MAX} levels"));
        }
        let constant = |scalar, known| (Node::Constant(scalar), Some(known));
        match &tree.kind {
            Kind::Null => constant(Scalar::Null, Type::Null),
            Kind::Bool(truth) => constant(Scalar::Bool(*truth), Type::Boolean),
            Kind::Number(text) => constant(Scalar::Number(Arc::clone(text)), Type::Number),
            Kind::Text(text) => constant(Scalar::Text(Arc::clone(text)), Type::String),
            Kind::List(items) => {
                let items = items.iter().map(|item| self.node(item, depth + 1).0);
                (Node::List(items.collect()), Some(Type::Array))
            }
            Kind::Name(name) => self.name(name, tree.at),
            Kind::Select(operand, field) => self.select(operand, field, tree.at, depth),
            Kind::Call {
                name,
                target,
                arguments,
            } => {
                let call = Call {
                    at: tree.at,
                    depth: depth + 1,
                    name,
                    target: target.as_deref(),
                    arguments,
                };
                self.call(&call)
            }
        }
    }

    fn name(&mut self, name: &str, at: usize) -> (Node, Known) {
        if let Some(place) = self.locals.iter().rposition(|local| local == name) {
            return (Node::Local(place), None);
        }
        self.asks = true;
        let field = match name {
            "args" => return (Node::Arguments, Some(Type::Object)),
            "tool" => Field::Tool,
            "server" => Field::Server,
            "method" => Field::Method,
            "caller" => {
                let message = format!("`caller` is asked for by field: {}", listed(&CALLER));
                return self.nothing(at, message);
            }
            _ => {
                let message = format!("unknown field `{}`", name.escape_debug());
                return self.unknown(at, message, name, &NAMES);
            }
        };
        (Node::Field(field), Some(Type::String))
    }

    /// A field of the caller; `None` after a fault.
    fn caller(&mut self, field: &str, at: usize) -> Option<Asked> {
        self.asks = true;
        match field {
            "user" => Some(Asked::Text(Field::User)),
            "host" => Some(Asked::Text(Field::Host)),
            "issuer" => Some(Asked::Text(Field::Issuer)),
            "subject" => Some(Asked::Text(Field::Subject)),
            "claims" => Some(Asked::Claims),
            _ => {
                let message = format!("unknown field `{}` of `caller`", field.escape_debug());
                self.unknown(at, message, field, &CALLER);
                None
            }
        }
    }

    fn select(&mut self, operand: &Tree, field: &str, at: usize, depth: usize) -> (Node, Known) {
        if is_caller(operand) {
            return match self.caller(field, at) {
                Some(Asked::Text(field)) => (Node::Field(field), Some(Type::String)),
                Some(Asked::Claims) => (Node::Claims, Some(Type::Object)),
                None => (Node::Constant(Scalar::Null), None),
            };
        }
        let operand = self.of(operand, &[Type::Object], depth + 1, "has no fields");
        (Node::Select(operand.into(), field.into()), None)
    }

    /// A part that must be of one of these types, where its type is certain.
    fn of(&mut self, tree: &Tree, wanted: &[Type], depth: usize, why: &str) -> Node {
        let (node, known) = self.node(tree, depth);
        if let Some(known) = known
            && !wanted.contains(&known)
        {
            self.fault(tree.at, format!("what is of type `{}` {why}", known.word()));
        }
        node
    }

    fn call(&mut self, call: &Call<'_>) -> (Node, Known) {
        let known = match (call.target, call.arguments) {
            (None, [one]) => self.unary(call, one),
            (None, [left, right]) => self.binary(call, left, right),
            (None, [condition, yes, no]) if call.name == "_?_:_" => {
                let condition = self.of(condition, &[Type::Boolean], call.depth, NO_TRUTH);
                let (yes, left) = self.node(yes, call.depth);
                let (no, right) = self.node(no, call.depth);
                let known = if left == right { left } else { None };
                Some((Node::Either(condition.into(), yes.into(), no.into()), known))
            }
            (Some(target), [argument]) => self.method(call, target, argument),
            (Some(target), []) if call.name == "size" => Some(self.size(target, call.depth)),
            (Some(target), [variable, body]) => self.each(call, target, variable, body),
            _ => None,
        };
        if let Some(known) = known {
            return known;
        }
        let shown = call.name.escape_debug();
        if FUNCTIONS.contains(&call.name) {
            let message = format!("`{shown}` is called otherwise");
            return self.nothing(call.at, message);
        }
        let message = format!("unknown function `{shown}`");
        self.unknown(call.at, message, call.name, &FUNCTIONS)
    }

    fn unary(&mut self, call: &Call<'_>, one: &Tree) -> Option<(Node, Known)> {
        let depth = call.depth;
        Some(match call.name {
            "!_" => {
                let one = self.of(one, &[Type::Boolean], depth, NO_TRUTH);
                (Node::Not(one.into()), Some(Type::Boolean))
            }
            "-_" => {
                let one = self.of(one, &[Type::Number], depth, "cannot be negated");
                (Node::Negated(one.into()), Some(Type::Number))
            }
            "size" => self.size(one, depth),
            "has" => {
                let Kind::Select(operand, field) = &one.kind else {
                    let message = "`has` asks for a field, as in `has(args.amount)`";
                    return Some(self.nothing(call.at, message));
                };
                let node = if is_caller(operand) {
                    let field = self.caller(field, one.at);
                    match field {
                        Some(Asked::Text(field)) => Node::HasField(field),
                        Some(Asked::Claims) => Node::HasClaims,
                        None => Node::Constant(Scalar::Null),
                    }
                } else {
                    let operand = self.of(operand, &[Type::Object], depth, "has no fields");
                    Node::Has(operand.into(), field.as_str().into())
                };
                (node, Some(Type::Boolean))
            }
            _ => return None,
        })
    }

    fn size(&mut self, one: &Tree, depth: usize) -> (Node, Known) {
        let wanted = [Type::String, Type::Array, Type::Object];
        let one = self.of(one, &wanted, depth, "has no size");
        (Node::Size(one.into()), Some(Type::Number))
    }

    fn binary(&mut self, call: &Call<'_>, left: &Tree, right: &Tree) -> Option<(Node, Known)> {
        let truth = Some(Type::Boolean);
        let depth = call.depth;
        let logical = |this: &mut Self, make: fn(Box<Node>, Box<Node>) -> Node| {
            let left = this.of(left, &[Type::Boolean], depth, NO_TRUTH);
            let right = this.of(right, &[Type::Boolean], depth, NO_TRUTH);
            (make(left.into(), right.into()), truth)
        };
        let operator = match call.name {
            "_&&_" => return Some(logical(self, Node::And)),
            "_||_" => return Some(logical(self, Node::Or)),
            "_==_" | "_!=_" => {
                let (left, one) = self.node(left, depth);
                let (right, other) = self.node(right, depth);
                self.alike(call, one, other);
                let equal = Node::Equal(left.into(), right.into());
                let node = match call.name {
                    "_==_" => equal,
                    _ => Node::Not(Box::new(equal)),
                };
                return Some((node, truth));
            }
            "@in" => return Some((self.contained(call, left, right), truth)),
            "_<_" => return Some((self.ordered(call, Order::Less, left, right), truth)),
            "_<=_" => return Some((self.ordered(call, Order::LessEqual, left, right), truth)),
            "_>_" => return Some((self.ordered(call, Order::Greater, left, right), truth)),
            "_>=_" => return Some((self.ordered(call, Order::GreaterEqual, left, right), truth)),
            "_[_]" => {
                let wanted = [Type::Object, Type::Array];
                let left = self.of(left, &wanted, depth, "has no elements");
                let right = self.of(right, &[Type::String, Type::Number], depth, "is no place");
                return Some((Node::Index(left.into(), right.into()), None));
            }
            "_+_" => Operator::Add,
            "_-_" => Operator::Subtract,
            "_*_" => Operator::Multiply,
            "_/_" => Operator::Divide,
            "_%_" => Operator::Remainder,
            _ => return None,
        };
        Some(self.computed(call, operator, left, right))
    }

    /// Of two parts that are compared: what is certain of both must fit.
    fn alike(&mut self, call: &Call<'_>, one: Known, other: Known) {
        if let (Some(one), Some(other)) = (one, other)
            && one != other
            && one != Type::Null
            && other != Type::Null
        {
            let message = format!("`{}` is never compared with `{}`", one.word(), other.word());
            self.fault(call.at, message);
        }
    }

    fn ordered(&mut self, call: &Call<'_>, order: Order, left: &Tree, right: &Tree) -> Node {
        let (left, one) = self.node(left, call.depth);
        let (right, other) = self.node(right, call.depth);
        for known in [one, other].into_iter().flatten() {
            if !matches!(known, Type::Number | Type::String) {
                self.fault(
                    call.at,
                    format!("what is of type `{}` has no order", known.word()),
                );
            }
        }
        self.alike(call, one, other);
        Node::Ordered(order, left.into(), right.into())
    }

    fn contained(&mut self, call: &Call<'_>, left: &Tree, right: &Tree) -> Node {
        let (left, _) = self.node(left, call.depth);
        let wanted = [Type::Array, Type::Object];
        let right = self.of(right, &wanted, call.depth, "contains nothing");
        if let Node::List(items) = &right {
            let constants: Option<Vec<Scalar>> = items
                .iter()
                .map(|item| match item {
                    Node::Constant(scalar) => Some(scalar.clone()),
                    _ => None,
                })
                .collect();
            if let Some(constants) = constants {
                return Node::OneOf(left.into(), constants);
            }
        }
        Node::In(left.into(), right.into())
    }

    fn computed(
        &mut self,
        call: &Call<'_>,
        operator: Operator,
        left: &Tree,
        right: &Tree,
    ) -> (Node, Known) {
        let wanted: &[Type] = match operator {
            Operator::Add => &[Type::Number, Type::String],
            _ => &[Type::Number],
        };
        let (left, one) = self.node(left, call.depth);
        let (right, other) = self.node(right, call.depth);
        for known in [one, other].into_iter().flatten() {
            if !wanted.contains(&known) {
                self.fault(
                    call.at,
                    format!("nothing is computed of type `{}`", known.word()),
                );
            }
        }
        let known = match operator {
            Operator::Add => one.or(other),
            _ => Some(Type::Number),
        };
        (Node::Computed(operator, left.into(), right.into()), known)
    }

    fn method(&mut self, call: &Call<'_>, target: &Tree, argument: &Tree) -> Option<(Node, Known)> {
        const NO_TEXT: &str = "is no text";
        let how = match call.name {
            "contains" => Textual::Contains,
            "startsWith" => Textual::StartsWith,
            "endsWith" => Textual::EndsWith,
            "matches" => {
                let target = self.of(target, &[Type::String], call.depth, NO_TEXT);
                let Kind::Text(text) = &argument.kind else {
                    let message =
                        "the expression of `matches` is written out, as in `matches('^a+$')`";
                    return Some(self.nothing(argument.at, message));
                };
                return Some(match Pattern::matches(text) {
                    Ok(pattern) => (Node::Matches(target.into(), pattern), Some(Type::Boolean)),
                    Err(error) => {
                        self.nothing(argument.at, format!("a regular expression: {error}"))
                    }
                });
            }
            _ => return None,
        };
        let target = self.of(target, &[Type::String], call.depth, NO_TEXT);
        let argument = self.of(argument, &[Type::String], call.depth, NO_TEXT);
        Some((
            Node::Textual(how, target.into(), argument.into()),
            Some(Type::Boolean),
        ))
    }

    fn each(
        &mut self,
        call: &Call<'_>,
        range: &Tree,
        variable: &Tree,
        body: &Tree,
    ) -> Option<(Node, Known)> {
        let (each, known) = match call.name {
            "all" => (Macro::All, Type::Boolean),
            "exists" => (Macro::Exists, Type::Boolean),
            "exists_one" | "existsOne" => (Macro::ExistsOne, Type::Boolean),
            "filter" => (Macro::Filter, Type::Array),
            "map" => (Macro::Map, Type::Array),
            _ => return None,
        };
        let Kind::Name(name) = &variable.kind else {
            let message = format!("`{}` names a variable first, as in `{0}(x, …)`", call.name);
            return Some(self.nothing(variable.at, message));
        };
        if NAMES.contains(&name.as_str()) || self.locals.contains(name) {
            let message = format!("`{}` already names something else", name.escape_debug());
            return Some(self.nothing(variable.at, message));
        }
        let range = self.of(range, &[Type::Array], call.depth, "has no elements");
        if self.locals.len() >= MACROS_MAX {
            let message = format!("`all`, `exists` and their like nest at most {MACROS_MAX} deep");
            return Some(self.nothing(call.at, message));
        }
        self.locals.push(name.clone());
        let body = match each {
            Macro::Map => self.node(body, call.depth).0,
            _ => self.of(body, &[Type::Boolean], call.depth, NO_TRUTH),
        };
        self.locals.pop();
        Some((Node::Each(each, range.into(), body.into()), Some(known)))
    }
}

/// Whether `operand` names the caller, whose fields are known. No variable of a macro is called so.
fn is_caller(operand: &Tree) -> bool {
    matches!(&operand.kind, Kind::Name(name) if name == "caller")
}

const NO_TRUTH: &str = "is not true or false";

struct Call<'t> {
    at: usize,
    /// The depth of its parts.
    depth: usize,
    name: &'t str,
    target: Option<&'t Tree>,
    arguments: &'t [Tree],
}

fn listed(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}
