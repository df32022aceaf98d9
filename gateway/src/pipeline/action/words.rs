//! What is said in public: a template over the alarm's building, unit and floor, and nothing else of it.

use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior, context};

use crate::model::limits::DEED_TEXT_CHARS_MAX;
use crate::model::place::Place;

/// What a template may name. No household, person or illness is ever said in public.
const OPEN: [&str; 4] = ["place", "place.building", "place.unit", "place.floor"];

/// Steps that a template may take: enough for some hundred placeholders, nothing for a loop without end.
const FUEL: u64 = 5_000;

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    // What is not known of a place is not said.
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment
}

/// Whether a template can be said.
///
/// # Errors
/// Why not.
pub(super) fn check(words: &str) -> Result<(), String> {
    let environment = environment();
    let template = environment
        .template_from_str(words)
        .map_err(|error| format!("the template cannot be read: {error}"))?;
    let mut named: Vec<String> = template.undeclared_variables(true).into_iter().collect();
    named.sort_unstable();
    if let Some(name) = named.iter().find(|name| !OPEN.contains(&name.as_str())) {
        return Err(format!(
            "`{name}` is not said in public: only place.building, place.unit and place.floor are"
        ));
    }
    // The whole place would bring the household with it; it is not in the context either.
    let place = Place {
        building: Some("3".to_owned()),
        unit: Some("1".to_owned()),
        floor: Some(5),
        ..Place::default()
    };
    render(words, &place).map(|_| ()).map_err(|error| format!("the template cannot be filled in: {error}"))
}

/// The words for one place: without control characters, and not longer than anybody listens to.
///
/// # Errors
/// The template's mistake; `check` finds it first.
pub(super) fn render(words: &str, place: &Place) -> Result<String, minijinja::Error> {
    if !words.contains('{') {
        return Ok(tidy(words));
    }
    let text = |part: &Option<String>| part.as_deref().map_or(Value::UNDEFINED, Value::from);
    let known = context! {
        building => text(&place.building),
        unit => text(&place.unit),
        floor => place.floor.map_or(Value::UNDEFINED, Value::from),
    };
    let said = environment().render_str(words, context! { place => known })?;
    Ok(tidy(&said))
}

/// What stands between a template's holes: said where they cannot be filled in.
pub(super) fn without_holes(words: &str) -> String {
    let mut said = String::new();
    let mut rest = words;
    while let Some((plain, hole)) = rest.split_once('{') {
        said.push_str(plain);
        let end = match hole.chars().next() {
            Some('{') => "}}",
            Some('%') => "%}",
            Some('#') => "#}",
            _ => {
                said.push('{');
                rest = hole;
                continue;
            }
        };
        rest = hole.split_once(end).map_or("", |(_, rest)| rest);
    }
    said.push_str(rest);
    tidy(&said)
}

fn tidy(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DEED_TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_household_is_never_said() {
        assert_eq!(check("{{ place.building }}栋{{ place.unit }}单元紧急求助，请附近人员查看"), Ok(()));
        for words in [
            "{{ place.household }}紧急求助",
            "{{ place['household'] }}紧急求助",
            "{% set p = place %}{{ p.household }}{{ device }}",
            "{{ params.name }}",
            "{{ place",
            "{{ place.building | nothing }}",
        ] {
            let said = render(words, &Place { household: Some("1203".into()), ..Place::default() });
            let secret = said.is_ok_and(|said| said.contains("1203"));
            assert!(!secret, "{words:?} says the household");
        }
        assert!(check("{{ place.household }}").unwrap_err().contains("place.household"));
        assert!(check("{{ params.name }}").unwrap_err().contains("params"));
        assert!(check("{{ place").unwrap_err().contains("cannot be read"));
        assert!(check("{% for i in range(100000) %}a{% endfor %}").is_err());
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let place = Place { building: Some("3".into()), ..Place::default() };
        let words = "{{ place.building }}栋{% if place.unit %}{{ place.unit }}单元{% endif %}着火";
        assert_eq!(render(words, &place).unwrap(), "3栋着火");
        assert_eq!(render("a\nb\u{7}", &place).unwrap(), "a b ");
    }

    #[test]
    fn holes_that_cannot_be_filled_are_left_out() {
        let words = "{{ place.floor + 1 }}层{% if place.unit %}以上{% endif %}着火，{3}请查看{{";
        assert_eq!(check("{{ place.floor + 1 }}层着火"), Ok(()), "it can be filled for some places");
        assert!(render("{{ place.floor + 1 }}层着火", &Place::default()).is_err());
        assert_eq!(without_holes(words), "层以上着火，{3}请查看");
    }
}
