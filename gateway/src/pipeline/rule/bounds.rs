//! How large an expression may be: parser and interpreter recurse over it, in threads with stacks of 2 MiB, and a stack
//! that overflows takes the process along. Looks at the text alone, since what is parsed has recursed already.

/// Longest expression: longer ones are programs, and belong into several rules.
const BYTES_MAX: usize = 1_000;

/// Deepest nesting of brackets.
const BRACKETS_MAX: usize = 16;

/// Signs in a row: `!!!!x`.
const SIGNS_MAX: usize = 8;

/// Words and brackets between two of `&&`, `||`, `?`, `:` and `,`, with those around the brackets that they stand in:
/// `a + b + c` nests once with each. 80 overflow the stack of a debug build.
const WORDS_MAX: usize = 40;

/// # Errors
/// What is too much, for a person.
pub(super) fn bounded(source: &str) -> Result<(), String> {
    if source.len() > BYTES_MAX {
        return Err(format!("an expression has at most {BYTES_MAX} bytes, this has {}", source.len()));
    }
    if ["\\", "'''", "\"\"\""].iter().any(|odd| source.contains(odd)) {
        return Err("a text stands in plain quotes, 'like this', without \\".to_owned());
    }
    // Words of each bracket that is open, since the last separator in it.
    let mut words = vec![0_usize];
    let (mut signs, mut quote, mut before) = (0_usize, None, ' ');
    for character in source.chars() {
        let behind = std::mem::replace(&mut before, character);
        match (quote, character) {
            (Some(_), '\n' | '\r') => return Err("a text is not closed".to_owned()),
            (Some(open), _) => {
                quote = Some(open).filter(|open| *open != character);
                continue;
            }
            (None, '\'' | '"') => quote = Some(character),
            (None, '(' | '[' | '{') => {
                words.last_mut().into_iter().for_each(|words| *words += 1);
                words.push(0);
            }
            (None, ')' | ']' | '}') if words.len() > 1 => words.truncate(words.len() - 1),
            (None, '&' | '|' | '?' | ':' | ',') => words.last_mut().into_iter().for_each(|words| *words = 0),
            (None, _) => {}
        }
        let in_word = |character: char| character.is_alphanumeric() || character == '_';
        if in_word(character) && !in_word(behind) || quote.is_some() {
            words.last_mut().into_iter().for_each(|words| *words += 1);
        }
        signs = match character {
            '!' | '-' | '?' => signs + 1,
            ' ' | '\t' | '\n' => signs,
            _ => 0,
        };
        let too_deep = words.len() > BRACKETS_MAX + 1 || signs > SIGNS_MAX;
        if too_deep || words.iter().sum::<usize>() > WORDS_MAX {
            return Err("the expression is nested too deep".to_owned());
        }
    }
    if quote.is_some() {
        return Err("a text is not closed".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::expression::Expression;

    /// Stack of a thread unless said otherwise, bytes.
    const STACK_BYTES: usize = 2 * 1024 * 1024;

    #[test]
    fn no_expression_overflows_a_stack() {
        for (head, link, tail) in [
            ("value", "[0]", " > 1"),
            ("value", "+value", " > 1.0"),
            ("value", "*1.0", " > 1.0"),
            ("true", "==true", ""),
            ("value", "<1", ""),
            ("value", " in value", ""),
            ("'a'", ".size()", " > 1"),
            ("'a'", "+','", " == ''"),
            ("1", " in [1]", ""),
            ("", "-1+", "1 > 1"),
            ("", "(1+1+1+", "1"),
            ("", "[1]+", "[1] == [2]"),
            ("value", ".a", " > 1"),
            ("", "value > 1.0 ? true : ", "true"),
        ] {
            for links in (1..=400).rev() {
                let closed = if link.starts_with('(') { ")".repeat(links) + " > 1" } else { String::new() };
                let source = format!("{head}{}{tail}{closed}", link.repeat(links));
                if super::bounded(&source).is_err() {
                    continue;
                }
                // It is the stack that is tried: an overflow ends the whole test run.
                let named = std::thread::Builder::new().name(source.clone()).stack_size(STACK_BYTES);
                let thread = named
                    .spawn(move || Expression::parse(&source).map(|expression| expression.asked_of_nothing()))
                    .unwrap();
                let _whatever_it_says = thread.join().unwrap();
                break;
            }
        }
    }

    #[test]
    fn what_is_long_and_not_deep_is_taken() {
        let texts: Vec<String> = (0..80).map(|number| format!("'t {number}'")).collect();
        let clauses = vec!["points.pressure_in > 1.0"; 35].join(" || ");
        for source in [format!("value in [{}]", texts.join(", ")), clauses, "1+".repeat(38) + "1 > value"] {
            assert_eq!(super::bounded(&source), Ok(()), "{source}");
        }
        for (source, said) in [
            (r"value == 'a\'b'", "plain quotes"),
            ("value == '''a'''", "plain quotes"),
            ("value == 'a", "not closed"),
            ("value == 'a\n'", "not closed"),
            (&"'a,'+".repeat(60), "too deep"),
            (&"value == ".repeat(60), "too deep"),
        ] {
            let error = super::bounded(source).unwrap_err();
            assert!(error.contains(said), "{source}: {error}");
        }
    }
}
