//! Commands out of a Markdown page: what stands in fenced blocks of a section, as a reader would type it.

/// A command, and whether the page shows it running in a terminal of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    pub line: usize,
    pub command: String,
}

/// The commands of the `sh`, `bash`, `console` and `shell` blocks below the heading that contains `heading`, up to the
/// next heading of the same or a higher level. A prompt `$ ` is taken off; where a block has prompts, lines without
/// one are output and left out; comments are left out; a trailing backslash joins lines.
pub fn commands(page: &str, heading: &str) -> Vec<Typed> {
    let mut typed: Vec<Typed> = Vec::new();
    let mut inside: Option<usize> = None;
    let mut block: Option<Vec<(usize, &str)>> = None;
    let mut other_block = false;
    for (index, line) in page.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut block, fence) {
            (Some(lines), Some(_)) => {
                typed.extend(typed_lines(lines));
                block = None;
            }
            (Some(lines), None) => lines.push((index + 1, line)),
            (None, Some(_)) if other_block => other_block = false,
            (None, Some(language)) => {
                let shell = matches!(language.trim(), "sh" | "bash" | "console" | "shell");
                if shell && inside.is_some() {
                    block = Some(Vec::new());
                } else {
                    other_block = true;
                }
            }
            (None, None) if !other_block => {
                let level = line.bytes().take_while(|byte| *byte == b'#').count();
                if level > 0 && inside.is_some_and(|own| level <= own) {
                    inside = None;
                }
                if level > 0 && inside.is_none() && line.to_lowercase().contains(&heading.to_lowercase()) {
                    inside = Some(level);
                }
            }
            (None, None) => {}
        }
    }
    typed
}

fn typed_lines(lines: &[(usize, &str)]) -> Vec<Typed> {
    let prompts = lines.iter().any(|(_, line)| line.starts_with("$ "));
    let mut typed: Vec<Typed> = Vec::new();
    let mut open = false;
    for (line, text) in lines {
        let continued = std::mem::replace(&mut open, text.trim_end().ends_with('\\'));
        let plain = text.strip_prefix("$ ").unwrap_or(text).trim_end().trim_end_matches('\\').trim();
        if continued && !typed.is_empty() {
            let last = typed.len() - 1;
            typed[last].command.push(' ');
            typed[last].command.push_str(plain);
            continue;
        }
        if plain.is_empty() || plain.starts_with('#') || (prompts && !text.starts_with("$ ")) {
            continue;
        }
        typed.push(Typed { line: *line, command: plain.to_owned() });
    }
    typed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_as_a_reader_types_them() {
        let page = "# Gatehouse\n\n## Quick start\n\n```sh\n# first\nmake demo\n```\n\n```toml\n[x]\n# not a heading\n\
                    ```\n\n```console\n$ gatehouse \\\n    check\nfine\n$ ls\n```\n\n## Other\n\n```sh\nrm -rf x\n```\n";
        let typed = commands(page, "quick start");
        let texts: Vec<&str> = typed.iter().map(|typed| typed.command.as_str()).collect();
        assert_eq!(texts, ["make demo", "gatehouse check", "ls"]);
        assert_eq!(typed[0].line, 7);
    }
}
