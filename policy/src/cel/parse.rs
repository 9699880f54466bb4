//! The grammar by the crate `cel`: its parser alone, without its macros and its interpreter.

use cel::common::ast::{Expr, IdedExpr, LiteralValue, SourceInfo};
use cel::{Env, ParseErrors};

use super::ConditionFault;
use super::tree::{Kind, Syntax, Tree};

/// How deep the crate's parser may go; [`scan`](super::scan) has bounded it before.
const DEPTH_MAX: u16 = 64;

pub(super) struct Cel;

impl Syntax for Cel {
    fn read(text: &str) -> Result<Tree, ConditionFault> {
        let parser = Env::default()
            .with_optional_support(false)
            .parser()
            .max_recursion_depth(DEPTH_MAX)
            .error_recovery_limit(1);
        let (root, places) = parser
            .parse_with_source_info(text)
            .map_err(|errors| fault(text, &errors))?;
        tree(&root, text, &places)
    }
}

/// The first error, in our words around its own.
fn fault(text: &str, errors: &ParseErrors) -> ConditionFault {
    let Some(error) = errors.errors.first() else {
        return ConditionFault::new(0, "not an expression");
    };
    let (line, column) = error.pos;
    let line = usize::try_from(line).unwrap_or(0).saturating_sub(1);
    let column = usize::try_from(column).unwrap_or(0).saturating_sub(1);
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let said = error.msg.lines().next().unwrap_or_default();
    let said = said.trim_start_matches("Syntax error: ");
    // What its tables would have taken instead helps nobody.
    let said = said.split(" expecting ").next().unwrap_or_default();
    let message = match said {
        said if said.contains("<EOF>") => "the expression has no end".to_owned(),
        said => format!("not an expression: {said}"),
    };
    let at = characters(text, before.saturating_add(column));
    ConditionFault::new(at, message)
}

/// The crate counts bytes.
fn characters(text: &str, bytes: usize) -> usize {
    text.char_indices()
        .take_while(|(at, _)| *at < bytes)
        .count()
}

fn tree(node: &IdedExpr, text: &str, places: &SourceInfo) -> Result<Tree, ConditionFault> {
    let start = places.offset_for(node.id).map_or(0, |(start, _)| start);
    let at = characters(text, usize::try_from(start).unwrap_or(0));
    let all = |nodes: &[IdedExpr]| {
        nodes
            .iter()
            .map(|node| tree(node, text, places))
            .collect::<Result<Vec<_>, _>>()
    };
    let kind = match &node.expr {
        Expr::Literal(literal) => self::literal(literal, at)?,
        Expr::Ident(name) => Kind::Name(name.clone()),
        Expr::Select(select) if !select.test => Kind::Select(
            Box::new(tree(&select.operand, text, places)?),
            select.field.clone(),
        ),
        Expr::List(list) if list.optional_indices.is_empty() => Kind::List(all(&list.elements)?),
        Expr::Call(call) => Kind::Call {
            name: call.func_name.clone(),
            target: match &call.target {
                Some(target) => Some(Box::new(tree(target, text, places)?)),
                None => None,
            },
            arguments: all(&call.args)?,
        },
        Expr::Select(_)
        | Expr::List(_)
        | Expr::Map(_)
        | Expr::Struct(_)
        | Expr::Comprehension(_)
        | Expr::Unspecified => {
            return Err(ConditionFault::new(at, "this construct is not supported"));
        }
    };
    Ok(Tree { at, kind })
}

fn literal(literal: &LiteralValue, at: usize) -> Result<Kind, ConditionFault> {
    Ok(match literal {
        LiteralValue::Null => Kind::Null,
        LiteralValue::Boolean(truth) => Kind::Bool(*truth.inner()),
        LiteralValue::Int(number) => Kind::Number(number.inner().to_string().into()),
        LiteralValue::UInt(number) => Kind::Number(number.inner().to_string().into()),
        // The shortest text that reads as this double: what was written, for it has 15 digits at most.
        LiteralValue::Double(number) if number.inner().is_finite() => {
            Kind::Number(number.inner().to_string().into())
        }
        LiteralValue::Double(_) => return Err(ConditionFault::new(at, "the number is too large")),
        LiteralValue::String(text) => Kind::Text(text.inner().into()),
        LiteralValue::Bytes(_) => return Err(ConditionFault::new(at, "bytes are not supported")),
    })
}
