//! Ultralytics' metadata values: Python literals written with `str()`.
//!
//! `names` is `{0: 'person', 1: "traffic light"}`, `imgsz` is `[640, 640]`. Other
//! exporters write JSON (`{"0": "person"}`) or a plain list (`['a', 'b']`); all of
//! them are read.

/// Class numbers above this are a damaged file, not a model.
const MAX_CLASSES: usize = 65_536;

/// Class names by class number; gaps are filled with `classN`. `None` when the
/// text is no dict or list of strings.
pub(crate) fn parse_names(text: &str) -> Option<Vec<String>> {
    let mut cursor = Cursor { rest: text.trim() };
    let pairs = if cursor.eat('{') {
        dict(&mut cursor)?
    } else if cursor.eat('[') || cursor.eat('(') {
        list(&mut cursor)?
    } else {
        return None;
    };
    cursor.space();
    if !cursor.rest.is_empty() || pairs.is_empty() {
        return None;
    }
    let count = pairs.iter().map(|(number, _)| number + 1).max()?;
    let mut names: Vec<String> = (0..count).map(default_name).collect();
    for (number, name) in pairs {
        if let Some(slot) = names.get_mut(number) {
            *slot = name;
        }
    }
    Some(names)
}

/// The name of a class for which the model has none.
pub(crate) fn default_name(class: usize) -> String {
    format!("class{class}")
}

/// `640` or `[384, 640]` (height, width).
pub(crate) fn parse_size(text: &str) -> Option<(usize, usize)> {
    let inner = text.trim().trim_matches(['[', ']', '(', ')']);
    let mut numbers = inner.split(',').map(|part| part.trim().parse::<usize>());
    let height = numbers.next()?.ok()?;
    let width = match numbers.next() {
        Some(number) => number.ok()?,
        None => height,
    };
    (numbers.next().is_none() && height > 0 && width > 0).then_some((height, width))
}

/// Whether a Python dict literal holds `'key': True`.
pub(crate) fn has_true(text: &str, key: &str) -> bool {
    text.split(',').any(|item| {
        let mut parts = item.trim_matches(['{', '}', ' ']).splitn(2, ':');
        let name = parts.next().unwrap_or("").trim().trim_matches(['\'', '"']);
        name == key && parts.next().is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    })
}

fn dict(cursor: &mut Cursor<'_>) -> Option<Vec<(usize, String)>> {
    let mut pairs = Vec::new();
    loop {
        if cursor.eat('}') {
            return Some(pairs);
        }
        let number = cursor.key()?;
        if number >= MAX_CLASSES || !cursor.eat(':') {
            return None;
        }
        pairs.push((number, cursor.string()?));
        if !cursor.eat(',') {
            return cursor.eat('}').then_some(pairs);
        }
    }
}

fn list(cursor: &mut Cursor<'_>) -> Option<Vec<(usize, String)>> {
    let mut pairs = Vec::new();
    loop {
        if cursor.eat(']') || cursor.eat(')') {
            return Some(pairs);
        }
        if pairs.len() >= MAX_CLASSES {
            return None;
        }
        pairs.push((pairs.len(), cursor.string()?));
        if !cursor.eat(',') {
            return (cursor.eat(']') || cursor.eat(')')).then_some(pairs);
        }
    }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, wanted: char) -> bool {
        self.space();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    /// `7`, `'7'` or `"7"`.
    fn key(&mut self) -> Option<usize> {
        self.space();
        if self.rest.starts_with(['\'', '"']) {
            return self.string()?.trim().parse().ok();
        }
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse().ok()
    }

    fn string(&mut self) -> Option<String> {
        self.space();
        let quote = self.next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut text = String::new();
        loop {
            match self.next()? {
                '\\' => text.push(self.escape()?),
                c if c == quote => return Some(text),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'x' => self.hex(2)?,
            'u' => self.hex(4)?,
            'U' => self.hex(8)?,
            other => other,
        })
    }

    fn hex(&mut self, digits: usize) -> Option<char> {
        let text = self.rest.get(..digits)?;
        let value = u32::from_str_radix(text, 16).ok()?;
        self.rest = self.rest.get(digits..)?;
        char::from_u32(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_dicts_with_both_quotes_and_escapes() {
        let names = parse_names(r#"{0: 'person', 1: "driver's seat", 2: 'd\'eau', 3: 'caf\xe9'}"#);
        assert_eq!(names.unwrap(), ["person", "driver's seat", "d'eau", "café"]);
    }

    #[test]
    fn commas_and_braces_inside_names_do_not_split() {
        let names = parse_names("{0: 'a, b: {c}', 1: 'd'}");
        assert_eq!(names.unwrap(), ["a, b: {c}", "d"]);
    }

    #[test]
    fn json_lists_gaps_and_trailing_commas() {
        assert_eq!(parse_names(r#"{"0": "a", "2": "c",}"#).unwrap(), ["a", "class1", "c"]);
        assert_eq!(parse_names("['x', 'y']").unwrap(), ["x", "y"]);
        assert_eq!(parse_names("{1: 'b', 0: 'a'}").unwrap(), ["a", "b"]);
    }

    #[test]
    fn damaged_text_is_refused() {
        for text in [
            "",
            "{",
            "{}",
            "person",
            "{0: person}",
            "{0: 'a'",
            "{0: 'a} ",
            "{0 'a'}",
            "{-1: 'a'}",
            "{0: 'a'} x",
            "{99999999: 'a'}",
            "{0: '\\x4'}",
            "{99999999999999999999999: 'a'}",
        ] {
            assert_eq!(parse_names(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("[384, 640]"), Some((384, 640)));
        assert_eq!(parse_size("640"), Some((640, 640)));
        assert_eq!(parse_size("[0, 640]"), None);
        assert_eq!(parse_size("[1, 2, 3]"), None);
        assert_eq!(parse_size("large"), None);
    }

    #[test]
    fn flags_of_an_args_dict() {
        assert!(has_true("{'batch': 1, 'nms': True}", "nms"));
        assert!(!has_true("{'batch': 1, 'nms': False}", "nms"));
        assert!(!has_true("{'batch': True}", "nms"));
    }
}
