//! What is usually meant where an expression cannot be read: habits of other languages, and of Chinese keyboards.

/// Signs that look like others, beyond the full-width forms of ASCII.
const ALIKE: [(char, &str); 8] =
    [('“', "'"), ('”', "'"), ('‘', "'"), ('’', "'"), ('、', ","), ('。', "."), ('≥', ">="), ('≤', "<=")];

/// Words and signs of other languages.
const FOREIGN: [(&str, &str); 7] =
    [("and", "&&"), ("or", "||"), ("not", "!"), ("=", "=="), ("&", "&&"), ("|", "||"), ("<>", "!=")];

/// What to write instead, if that is plain.
pub(super) fn hint(source: &str) -> Option<String> {
    let code = without_texts(source);
    let full_width = code.chars().find_map(|sign| {
        let ascii =
            u32::from(sign).checked_sub(0xFEE0).and_then(char::from_u32).filter(char::is_ascii_graphic);
        let known = ALIKE.iter().find(|(alike, _)| *alike == sign).map(|(_, plain)| (*plain).to_owned());
        Some((sign, known.or(ascii.map(String::from))?))
    });
    if let Some((sign, plain)) = full_width {
        return Some(format!("`{sign}` is a full-width sign (全角符号): write `{plain}` instead"));
    }
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for sign in code.chars() {
        let kind = |sign: char| {
            (sign.is_alphanumeric() || sign == '_', sign.is_whitespace(), "=<>!&|".contains(sign))
        };
        match words.last_mut().filter(|_| kind(sign) == kind(before)) {
            Some(word) => word.push(sign),
            None => words.push(sign.to_string()),
        }
        before = sign;
    }
    let (foreign, own) = FOREIGN.iter().find(|(foreign, _)| words.iter().any(|word| word == foreign))?;
    Some(format!("write `{own}` instead of `{foreign}`"))
}

/// What stands outside of quotes.
fn without_texts(source: &str) -> String {
    let mut quote = None;
    let mut code = String::new();
    for sign in source.chars() {
        match quote {
            Some(open) if open == sign => quote = None,
            Some(_) => {}
            None if matches!(sign, '\'' | '"') => quote = Some(sign),
            None => code.push(sign),
        }
    }
    code
}

#[cfg(test)]
mod tests {
    #[test]
    fn slips_are_told_by_what_to_write() {
        for (source, said) in [
            ("value ＞ 45", "`＞` is a full-width sign (全角符号): write `>` instead"),
            ("value > 45 && （value < 50）", "write `(` instead"),
            ("value == “开”", "write `'` instead"),
            ("value ≥ 45", "write `>=` instead"),
            ("value = 45", "write `==` instead of `=`"),
            ("value > 45 and value < 50", "write `&&` instead of `and`"),
            ("value > 45 & value < 50", "write `&&` instead of `&`"),
            ("not(value)", "write `!` instead of `not`"),
            ("value <> 45", "write `!=` instead of `<>`"),
        ] {
            assert!(super::hint(source).is_some_and(|hint| hint.contains(said)), "{source}");
        }
        for source in ["value > 45 &&", "value == '（a and b = c）' >", "points.band >= 1 =="] {
            assert_eq!(super::hint(source), None, "{source}");
        }
    }
}
