//! Which claims of a token a condition asks for, as far as it says so before there is one.

use super::check::Node;
use crate::model::{Pointer, Scalar};

/// Adds the claims that this part asks for. Of one that the request names (`caller.claims[args.x]`), and of all of them
/// (`size(caller.claims)`), nobody can tell beforehand.
pub(super) fn read(node: &Node, out: &mut Vec<Pointer>) {
    if let Some(path) = path(node) {
        out.extend(Pointer::along(&path));
        return;
    }
    match node {
        Node::Has(operand, field) => match path(operand) {
            Some(mut path) => {
                path.push(field);
                out.extend(Pointer::along(&path));
            }
            None => read(operand, out),
        },
        Node::In(operand, range) => {
            if let (Node::Constant(Scalar::Text(name)), Some(mut path)) = (&**operand, path(range))
                && path.is_empty()
            {
                path.push(name);
                out.extend(Pointer::along(&path));
            }
            read(operand, out);
            read(range, out);
        }
        Node::List(items) => items.iter().for_each(|item| read(item, out)),
        Node::Either(condition, yes, no) => {
            for part in [condition, yes, no] {
                read(part, out);
            }
        }
        Node::Select(one, _)
        | Node::Not(one)
        | Node::Negated(one)
        | Node::OneOf(one, _)
        | Node::Size(one)
        | Node::Matches(one, _) => read(one, out),
        Node::Index(one, other)
        | Node::And(one, other)
        | Node::Or(one, other)
        | Node::Equal(one, other)
        | Node::Ordered(_, one, other)
        | Node::Computed(_, one, other)
        | Node::Textual(_, one, other)
        | Node::Each(_, one, other) => {
            read(one, out);
            read(other, out);
        }
        Node::Constant(_)
        | Node::Arguments
        | Node::Claims
        | Node::Field(_)
        | Node::Local(_)
        | Node::HasField(_)
        | Node::HasClaims => {}
    }
}

/// The way from the claims to what this part means, if it is one of them, or they themselves.
fn path(node: &Node) -> Option<Vec<&str>> {
    let (operand, name): (_, &str) = match node {
        Node::Claims => return Some(Vec::new()),
        Node::Select(operand, field) => (operand, field),
        Node::Index(operand, place) => match &**place {
            Node::Constant(Scalar::Text(name) | Scalar::Number(name)) => (operand, name),
            _ => return None,
        },
        _ => return None,
    };
    let mut path = path(operand)?;
    path.push(name);
    Some(path)
}
