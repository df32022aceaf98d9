//! Comparisons that come out the same whatever is told. CEL says of a number and a text that they differ, and nothing
//! else: `value == '45'` never holds, and the rule would be silent for ever.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

use super::expression::quality_word;
use super::samples::QUALITIES;
use crate::pipeline::directory::PointType;

/// One side of a comparison, as far as the expression itself tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Side {
    Bool,
    Number,
    Text(String),
    /// A text that is known only when it is asked.
    SomeText,
    List,
    Quality,
    /// The point in `on`.
    Value,
    Point(String),
}

/// What an operation compares for being the same. `own`: variables of macros, of which nobody knows what they are.
pub(super) fn compared(call: &CallExpr, own: &[String]) -> Vec<(Side, Side)> {
    let pair = |a: &IdedExpr, b: &IdedExpr| Some((side(a, own)?, side(b, own)?));
    match (call.func_name.as_str(), call.args.as_slice()) {
        ("_==_" | "_!=_", [a, b]) => pair(a, b).into_iter().collect(),
        ("@in", [one, all]) => match &all.expr {
            Expr::List(list) => list.elements.iter().filter_map(|element| pair(one, element)).collect(),
            // Of a device all that is a list are its tags.
            _ if side(all, own) == Some(Side::List) => {
                side(one, own).map(|one| (one, Side::SomeText)).into_iter().collect()
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn side(node: &IdedExpr, own: &[String]) -> Option<Side> {
    Some(match &node.expr {
        Expr::Literal(literal) => match literal {
            LiteralValue::Boolean(_) => Side::Bool,
            LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => Side::Number,
            LiteralValue::String(text) => Side::Text(text.inner().to_owned()),
            LiteralValue::Bytes(_) | LiteralValue::Null => return None,
        },
        Expr::List(_) => Side::List,
        Expr::Ident(name) if own.contains(name) => return None,
        Expr::Ident(name) if name == "value" => Side::Value,
        Expr::Ident(name) if name == "quality" => Side::Quality,
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(root) if !own.contains(root) => match (root.as_str(), select.field.as_str()) {
                ("points", name) => Side::Point(name.to_owned()),
                ("place", "floor") => Side::Number,
                ("device", "tags") => Side::List,
                ("place" | "device", _) => Side::SomeText,
                _ => return None,
            },
            _ => return None,
        },
        Expr::Call(call) => match call.func_name.as_str() {
            "_-_" | "_*_" | "_/_" | "_%_" | "-_" | "size" => Side::Number,
            "_<_" | "_<=_" | "_>_" | "_>=_" | "_&&_" | "_||_" | "!_" => Side::Bool,
            _ => return None,
        },
        _ => return None,
    })
}

/// What a point tells, in a word.
pub(super) const fn word(kind: PointType) -> &'static str {
    match kind {
        PointType::Bool => "true or false",
        PointType::Int | PointType::Float => "a number",
        PointType::Text => "a text",
    }
}

/// Why some of these never are the same. `value` and `point` tell types; of what they do not know nothing is said.
pub(super) fn never(
    pairs: &[(Side, Side)],
    value: Option<PointType>,
    point: impl Fn(&str) -> Option<PointType>,
) -> Option<String> {
    let kind = |side: &Side| {
        Some(match side {
            Side::Bool => "true or false",
            Side::Number => "a number",
            Side::Text(_) | Side::SomeText | Side::Quality => "a text",
            Side::List => "a list",
            Side::Value => word(value?),
            Side::Point(name) => word(point(name)?),
        })
    };
    let words: Vec<&str> = QUALITIES.into_iter().map(quality_word).collect();
    pairs.iter().find_map(|(a, b)| {
        if let (Side::Quality, Side::Text(text)) | (Side::Text(text), Side::Quality) = (a, b)
            && !words.contains(&text.as_str())
        {
            return Some(format!("there is no quality {text:?}; there is: {}", words.join(", ")));
        }
        let (a, b) = (kind(a)?, kind(b)?);
        (a != b).then(|| format!("it compares {a} with {b}: they are never the same"))
    })
}
