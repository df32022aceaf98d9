//! Conditions: expressions in CEL over what a device tells. Owns their limits; an expression cannot loop, grow or panic
//! its way into the fold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::{Context, Env, ExecutionError, Program};

use super::names::nearest;
use super::sides::{Side, compared};
use crate::model::ids::PointName;
use crate::model::place::Place;
use crate::model::record::{Quality, Value};

/// What an expression may name.
const NAMES: [&str; 6] = ["value", "quality", "points", "params", "device", "place"];

/// Functions, beside macros. No patterns: what a pattern costs cannot be told beforehand.
const FUNCTIONS: [&str; 9] =
    ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string", "bool"];

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A condition, compiled.
pub(super) struct Expression {
    source: String,
    program: Program,
    names: BTreeSet<String>,
    /// What it says of `points.NAME` and `params.NAME`.
    pub(super) points: BTreeSet<String>,
    pub(super) params: BTreeSet<String>,
    pub(super) literals: Literals,
    /// What it compares for being the same.
    pub(super) compared: Vec<(Side, Side)>,
}

/// The numbers and texts that stand in an expression: around them its answers change.
#[derive(Debug, Clone, Default)]
pub(super) struct Literals {
    pub(super) ints: BTreeSet<i64>,
    pub(super) floats: Vec<f64>,
    pub(super) texts: BTreeSet<String>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.source)
    }
}

/// Why an expression has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// Something that it names is not there (yet).
    Missing(String),
    /// It does not fit the types.
    Misfit(String),
    /// It fits, and numbers as large as these cannot be reckoned with.
    Beyond(String),
}

/// What an expression sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) value: Option<&'a Value>,
    pub(super) quality: Option<Quality>,
    /// Good values of the same device.
    pub(super) points: &'a BTreeMap<PointName, Value>,
    pub(super) params: &'a BTreeMap<String, Value>,
    pub(super) device: Whom<'a>,
    pub(super) place: &'a Place,
}

/// The device of a scene.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whom<'a> {
    pub(super) id: &'a str,
    pub(super) kind: &'a str,
    pub(super) profile: &'a str,
    pub(super) tags: &'a BTreeSet<String>,
}

impl Expression {
    /// # Errors
    /// What is wrong with it, for a person.
    pub(super) fn parse(source: &str) -> Result<Self, String> {
        super::bounds::bounded(source)?;
        let program = catch_unwind(|| ENV.compile(source))
            .map_err(|_panic| "the expression cannot be read".to_owned())?
            .map_err(|errors| {
                let first = errors.errors.first();
                first.map_or_else(|| "the expression cannot be read".to_owned(), |e| e.msg.clone())
            })?;
        let mut walk = Walk::default();
        walk.expression(program.expression(), false)?;
        let Walk { names, points, params, literals, compared, .. } = walk;
        Ok(Self { source: source.to_owned(), program, names, points, params, literals, compared })
    }

    /// What it says where nothing is known.
    #[cfg(test)]
    pub(super) fn asked_of_nothing(&self) -> Result<bool, Unanswered> {
        let (tags, points, params) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let device = Whom { id: "d", kind: "sensor", profile: "p", tags: &tags };
        let (value, quality, place) = (Some(&Value::Float(1.5)), Some(Quality::Good), &Place::default());
        self.holds(&Scene { value, quality, points: &points, params: &params, device, place })
    }

    pub(super) fn names(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether it holds.
    pub(super) fn holds(&self, scene: &Scene<'_>) -> Result<bool, Unanswered> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        if let Some(value) = scene.value.filter(|_| self.names("value")) {
            context.add_variable_from_value("value", plain(value));
        }
        if let Some(quality) = scene.quality.filter(|_| self.names("quality")) {
            context.add_variable_from_value("quality", quality_word(quality));
        }
        if self.names("points") {
            let named = scene.points.iter().filter(|(name, _)| self.points.contains(name.as_str()));
            let map: HashMap<String, cel::Value> =
                named.map(|(name, value)| (name.as_str().to_owned(), plain(value))).collect();
            context.add_variable_from_value("points", map);
        }
        if self.names("params") {
            let named = scene.params.iter().filter(|(name, _)| self.params.contains(*name));
            let map: HashMap<String, cel::Value> =
                named.map(|(name, value)| (name.clone(), plain(value))).collect();
            context.add_variable_from_value("params", map);
        }
        if self.names("device") {
            context.add_variable_from_value("device", device(&scene.device));
        }
        if self.names("place") {
            context.add_variable_from_value("place", place(scene.place));
        }
        let answer = catch_unwind(AssertUnwindSafe(|| self.program.execute(&context)));
        match answer {
            Ok(Ok(cel::Value::Bool(holds))) => Ok(holds),
            Ok(Ok(other)) => {
                Err(Unanswered::Misfit(format!("it says {other:?}, and must say true or false")))
            }
            Ok(Err(ExecutionError::NoSuchKey(name) | ExecutionError::UndeclaredReference(name))) => {
                Err(Unanswered::Missing(name.as_ref().clone()))
            }
            Ok(Err(error @ ExecutionError::Overflow(..))) => Err(Unanswered::Beyond(error.to_string())),
            Ok(Err(error)) => Err(Unanswered::Misfit(error.to_string())),
            Err(_panic) => Err(Unanswered::Misfit("it cannot be computed".to_owned())),
        }
    }
}

/// Gathers what an expression names, and refuses what cannot be judged beforehand.
#[derive(Debug, Default)]
struct Walk {
    names: BTreeSet<String>,
    points: BTreeSet<String>,
    params: BTreeSet<String>,
    literals: Literals,
    compared: Vec<(Side, Side)>,
    /// Variables of macros such as `exists`.
    own: Vec<String>,
}

impl Walk {
    fn expression(&mut self, node: &IdedExpr, looping: bool) -> Result<(), String> {
        match &node.expr {
            Expr::Unspecified => Ok(()),
            Expr::Literal(literal) => {
                self.literal(literal, false);
                Ok(())
            }
            Expr::Ident(name) => self.ident(name),
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(root) if self.field(root, &select.field) => Ok(()),
                _ => self.expression(&select.operand, looping),
            },
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                if name.starts_with(char::is_alphabetic) && !FUNCTIONS.contains(&name) {
                    return Err(format!("there is no function `{name}`; there is: {}", FUNCTIONS.join(", ")));
                }
                self.compared.extend(compared(call, &self.own));
                if let ("_[_]", [operand, index]) = (call.func_name.as_str(), call.args.as_slice())
                    && let (Expr::Ident(root), Expr::Literal(LiteralValue::String(name))) =
                        (&operand.expr, &index.expr)
                    && self.field(root, name.inner())
                {
                    return Ok(());
                }
                if let ("-_", [operand]) = (call.func_name.as_str(), call.args.as_slice())
                    && let Expr::Literal(literal) = &operand.expr
                {
                    self.literal(literal, true);
                    return Ok(());
                }
                let target = call.target.iter().map(AsRef::as_ref);
                target.chain(&call.args).try_for_each(|node| self.expression(node, looping))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|node| self.expression(node, looping)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&entry.key, looping)?;
                    self.expression(&entry.value, looping)
                }
                EntryExpr::StructField(field) => self.expression(&field.value, looping),
            }),
            Expr::Struct(_) => Err("an expression makes no structures".to_owned()),
            Expr::Comprehension(_) if looping => {
                Err("`all`, `exists`, `map` and `filter` cannot stand in one another".to_owned())
            }
            Expr::Comprehension(inner) => {
                self.expression(&inner.iter_range, true)?;
                let before = self.own.len();
                self.own.extend([inner.iter_var.clone(), inner.accu_var.clone()]);
                self.own.extend(inner.iter_var2.clone());
                for node in [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result] {
                    self.expression(node, true)?;
                }
                self.own.truncate(before);
                Ok(())
            }
        }
    }

    fn literal(&mut self, literal: &LiteralValue, negative: bool) {
        match literal {
            LiteralValue::Int(number) => {
                let number = *number.inner();
                self.literals.ints.insert(if negative { number.saturating_neg() } else { number });
            }
            LiteralValue::UInt(number) => {
                self.literals.ints.insert(i64::try_from(*number.inner()).unwrap_or(i64::MAX));
            }
            LiteralValue::Double(number) => {
                let number = *number.inner();
                self.literals.floats.push(if negative { -number } else { number });
            }
            LiteralValue::String(text) => {
                self.literals.texts.insert(text.inner().to_owned());
            }
            LiteralValue::Boolean(_) | LiteralValue::Bytes(_) | LiteralValue::Null => {}
        }
    }

    /// `points.NAME` or `params.NAME`.
    fn field(&mut self, root: &str, name: &str) -> bool {
        let named = match root {
            "points" => &mut self.points,
            "params" => &mut self.params,
            _ => return false,
        };
        named.insert(name.to_owned());
        self.names.insert(root.to_owned());
        true
    }

    fn ident(&mut self, name: &str) -> Result<(), String> {
        if self.own.iter().any(|own| own == name) {
            return Ok(());
        }
        if matches!(name, "points" | "params") {
            return Err(format!("say which: `{name}.NAME`"));
        }
        if !NAMES.contains(&name) {
            let meant = match nearest(name, NAMES.into_iter()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("a point is `value`, or `points.{name}`"),
            };
            return Err(format!("`{name}` is not known; there is: {}; {meant}", NAMES.join(", ")));
        }
        self.names.insert(name.to_owned());
        Ok(())
    }
}

fn plain(value: &Value) -> cel::Value {
    match value {
        Value::Bool(value) => cel::Value::Bool(*value),
        Value::Int(value) => cel::Value::Int(*value),
        Value::Float(value) => cel::Value::Float(*value),
        Value::Text(text) => text.as_ref().into(),
    }
}

pub(super) const fn quality_word(quality: Quality) -> &'static str {
    match quality {
        Quality::Good => "good",
        Quality::Uncertain => "uncertain",
        Quality::Stale => "stale",
        Quality::Bad => "bad",
    }
}

fn device(whom: &Whom<'_>) -> HashMap<&'static str, cel::Value> {
    let tags: Vec<cel::Value> = whom.tags.iter().map(|tag| tag.as_str().into()).collect();
    HashMap::from([
        ("id", whom.id.into()),
        ("kind", whom.kind.into()),
        ("profile", whom.profile.into()),
        ("tags", tags.into()),
    ])
}

/// What is not known of a place is an empty text; a floor that is not known is not there (`has(place.floor)`).
fn place(place: &Place) -> HashMap<&'static str, cel::Value> {
    let texts = [
        ("code", &place.code),
        ("grid", &place.grid),
        ("building", &place.building),
        ("unit", &place.unit),
        ("household", &place.household),
    ];
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    let mut map: HashMap<&'static str, cel::Value> =
        texts.into_iter().map(|(name, value)| (name, text(value))).collect();
    if let Some(floor) = place.floor {
        map.insert("floor", cel::Value::Int(floor.into()));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(source: &str, value: &Value) -> Result<bool, Unanswered> {
        let tags = BTreeSet::from(["roof".to_owned()]);
        let device = Whom { id: "d", kind: "sensor", profile: "p", tags: &tags };
        let place = Place { building: Some("3".into()), floor: Some(-1), ..Place::default() };
        let points = BTreeMap::from([
            (PointName::new("humidity").unwrap(), Value::Float(40.5)),
            (PointName::new("a-b").unwrap(), Value::Int(1)),
        ]);
        let params = BTreeMap::from([("user".to_owned(), Value::Int(7))]);
        let quality = Some(Quality::Good);
        let scene =
            Scene { value: Some(value), quality, points: &points, params: &params, device, place: &place };
        Expression::parse(source).unwrap().holds(&scene)
    }

    #[test]
    fn conditions_of_all_sorts_are_answered() {
        for (source, holds) in [
            ("value > 30", true),
            ("value > 30.5 && value <= 31", true),
            ("points.humidity < 41 && points[\"a-b\"] == 1", true),
            ("has(points.nothing) && points.nothing > 1", false),
            ("params.user in [1, 2]", false),
            ("quality == 'good' && 'roof' in device.tags", true),
            ("device.kind == \"sensor\" && place.building == \"3\" && place.unit == \"\"", true),
            ("place.floor < 0", true),
            ("device.tags.exists(tag, tag.startsWith(\"ro\"))", true),
        ] {
            assert_eq!(asked(source, &Value::Float(31.0)), Ok(holds), "{source}");
        }
        assert_eq!(asked("value > 30", &Value::Int(31)), Ok(true));
    }

    #[test]
    fn what_has_no_answer_says_why() {
        assert_eq!(asked("points.gone > 1", &Value::Int(1)), Err(Unanswered::Missing("gone".into())));
        for source in ["value > 'a'", "value + 1", "value * 1.5 > 1.0", "1 / (value - 1) > 0"] {
            let answer = asked(source, &Value::Int(1));
            assert!(matches!(answer, Err(Unanswered::Misfit(_))), "{source}: {answer:?}");
        }
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        for (source, said) in [
            ("valeu > 3", "`valeu` is not known"),
            ("size(points) > 3", "say which: `points.NAME`"),
            ("value >", "Syntax error"),
            (&format!("{}1{} > value", "(".repeat(40), ")".repeat(40)), "nested too deep"),
            (&format!("{}true", "!".repeat(40)), "nested too deep"),
            ("[1,2].all(x, [1,2].all(y, x > y))", "cannot stand in one another"),
            (&format!("value == {}", "1".repeat(1_000)), "at most 1000 bytes"),
        ] {
            let error = Expression::parse(source).unwrap_err();
            assert!(error.contains(said), "{source}: {error}");
        }
    }
}
