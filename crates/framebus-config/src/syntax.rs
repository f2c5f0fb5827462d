//! TOML syntax errors in words that help somebody who does not know TOML.

/// The line of `text` that byte `at` is in.
pub(crate) fn line_at(text: &str, at: usize) -> &str {
    let before = &text.as_bytes()[..at.min(text.len())];
    let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
    text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("")
}

/// `message` of the TOML parser about `line`. The line itself is not repeated: it may hold a
/// password.
pub(crate) fn explain(message: &str, line: &str) -> String {
    match hint(message, line.trim()) {
        Some(hint) => format!("not valid TOML: {hint} ({message})"),
        None => format!("not valid TOML: {message}"),
    }
}

fn hint(message: &str, line: &str) -> Option<&'static str> {
    if line.contains(['“', '”', '„', '‘', '’']) {
        return Some("quotes must be straight: \"");
    }
    if message.starts_with("duplicate key") {
        return Some(if line.starts_with('[') {
            "this section is there already; put its keys together"
        } else {
            "this key is there already; keep one of the two"
        });
    }
    if line.starts_with("[[") && !line.contains("]]") {
        return Some("\"[[\" needs \"]]\" at its end");
    }
    if line.starts_with('[') && !line.contains(']') {
        return Some("\"[\" needs \"]\" at its end");
    }
    if line.starts_with('{') {
        return Some("this looks like JSON; write sections such as [model] and lines key = value");
    }
    if message.starts_with("missing escaped value") {
        return Some("write a backslash as \\\\, or put the text between single quotes");
    }
    match line.split_once('=') {
        None if line.contains(':') => {
            Some("this looks like YAML; write sections such as [model] and lines key = value")
        }
        None if message.contains("key with no value") => Some("write key = value"),
        Some((_, value)) if value.trim().is_empty() => {
            Some("there is nothing behind \"=\"; write a value or remove the line")
        }
        Some((_, value)) if value.trim().starts_with(|c: char| c.is_alphabetic() || c == '/') => {
            Some("text stands in quotes: key = \"text\"")
        }
        Some((_, value)) if message.contains("basic string") => {
            let unclosed = value.matches('"').count() % 2 == 1;
            unclosed.then_some("the closing quote is missing")
        }
        _ => None,
    }
}

/// Line and column of a byte of `text`, both from 1, the column in characters.
pub(crate) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..byte.min(text.len())];
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    // Bytes that do not continue a character begin one.
    let column = before[start..].iter().filter(|&&b| b & 0xC0 != 0x80).count() + 1;
    (line, column)
}
