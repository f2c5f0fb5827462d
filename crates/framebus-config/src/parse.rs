//! The walk over the parsed TOML: keys against the table of `spec`, values against their kinds.
//! It never stops at an error.

use crate::error::{ConfigError, ConfigErrors};
use crate::expand::Env;
use crate::model::Config;
use crate::secret::{MASK, mask_credentials};
use crate::spec::{Default, Key, SECTIONS, Section, Variant, one_of};
use crate::value::{Value, read_value};
use crate::{build, check, suggest};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest value that an error repeats, in characters.
const LONGEST_SHOWN: usize = 80;

/// Parses and validates the text of a configuration file. `file` names it in errors, and its
/// folder is where relative paths count from; nothing on disk is looked at. `env` answers
/// `${NAME}`.
///
/// # Errors
/// Everything that is wrong, at once, in the order of the file.
pub fn parse(
    text: &str,
    file: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigErrors> {
    let mut walk = Walk::new(text, file, env);
    let (table, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        walk.syntax_error(error.span().unwrap_or(0..0), error.message());
    }
    let found = walk.document(table.get_ref());
    // What is missing or does not fit together may be a consequence of a broken line.
    if syntax.is_empty() {
        check::all(&mut walk, &found);
    }
    match ConfigErrors::new(walk.errors) {
        Some(errors) => Err(errors),
        None => Ok(build::config(&found, file)),
    }
}

/// A value that was there and valid.
pub(crate) struct Found {
    pub(crate) value: Value,
    pub(crate) span: Range<usize>,
}

/// One table of the file, or one entry of an array of tables.
pub(crate) struct Entry {
    pub(crate) section: &'static Section,
    /// What its key `kind` chose; `None` where there is no such key, or it says nothing valid.
    pub(crate) variant: Option<&'static Variant>,
    /// `model`, `camera[front]`, `camera[#2]`.
    pub(crate) path: String,
    pub(crate) span: Range<usize>,
    values: BTreeMap<&'static str, Found>,
    /// Keys that are there, valid or not, or that a mistyped key probably meant.
    present: BTreeSet<&'static str>,
}

impl Entry {
    pub(crate) fn new(section: &'static Section) -> Self {
        Self {
            section,
            variant: None,
            path: section.name.to_owned(),
            span: 0..0,
            values: BTreeMap::new(),
            present: BTreeSet::new(),
        }
    }

    /// The value as written in the file, if it was valid.
    pub(crate) fn found(&self, key: &str) -> Option<&Found> {
        self.values.get(key)
    }

    /// The value or its default.
    pub(crate) fn value(&self, key: &str) -> Cow<'_, Value> {
        match self.values.get(key) {
            Some(found) => Cow::Borrowed(&found.value),
            None => Cow::Owned(self.key(key).map_or(Value::Absent, Value::default_of)),
        }
    }

    /// The keys that it may have; those of all kinds while its own is not known.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static Key> + Clone + use<> {
        let own = self.variant;
        let variants = self.section.variants.iter();
        let variants = variants.filter(move |other| own.is_none_or(|own| own.word == other.word));
        self.section.keys.iter().chain(variants.flat_map(|variant| variant.keys))
    }

    /// The key of this name, if it may have one.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// Whether the key is absent, neither mistyped nor invalid.
    pub(crate) fn is_absent(&self, key: &str) -> bool {
        !self.present.contains(key)
    }

    pub(crate) fn key_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// All tables of the file.
pub(crate) struct Document {
    entries: Vec<Entry>,
    /// Sections that are there in whatever shape, or that a mistyped name probably meant.
    present: BTreeSet<&'static str>,
    /// Arrays without an entry, by the name of their section.
    empty: BTreeMap<&'static str, Range<usize>>,
}

impl Document {
    /// The entries of a section, in the order of the file.
    pub(crate) fn entries(&self, section: &str) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.section.name == section)
    }

    pub(crate) fn all(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn is_absent(&self, section: &str) -> bool {
        !self.present.contains(section)
    }

    pub(crate) fn empty_list(&self, section: &str) -> Option<Range<usize>> {
        self.empty.get(section).cloned()
    }
}

/// Text, environment and the errors so far.
pub(crate) struct Walk<'a> {
    text: &'a str,
    file: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) env: Env<'a>,
    errors: Vec<ConfigError>,
    /// Lines with a syntax error; what else is wrong there is a consequence.
    broken_lines: BTreeSet<usize>,
    /// A section header is broken, so keys below it seem to be where they are not.
    header_broken: bool,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(text: &'a str, file: &'a Path, env: Env<'a>) -> Self {
        let folder = file.parent().unwrap_or(Path::new(""));
        Self {
            text,
            file,
            folder,
            env,
            errors: Vec::new(),
            broken_lines: BTreeSet::new(),
            header_broken: false,
        }
    }

    /// Line and column of a byte; see [`position`](crate::syntax::position).
    pub(crate) fn position(&self, byte: usize) -> (usize, usize) {
        crate::syntax::position(self.text, byte)
    }

    fn syntax_error(&mut self, span: Range<usize>, message: &str) {
        let position = self.position(span.start);
        if !self.broken_lines.insert(position.0) {
            return;
        }
        let line = crate::syntax::line_at(self.text, span.start);
        self.header_broken |= line.trim_start().starts_with('[');
        self.errors.push(ConfigError {
            file: self.file.to_owned(),
            position: Some(position),
            key: String::new(),
            value: None,
            message: crate::syntax::explain(message, line),
            suggestion: None,
            source: None,
        });
    }

    /// Adds an error; `value` is what the file says, `None` where that is beside the point.
    pub(crate) fn error(
        &mut self,
        span: Range<usize>,
        key: String,
        value: Option<String>,
        message: impl Into<String>,
        suggestion: Option<&str>,
    ) {
        let position = self.position(span.start);
        if self.header_broken || self.broken_lines.contains(&position.0) {
            return;
        }
        self.errors.push(ConfigError {
            file: self.file.to_owned(),
            position: Some(position),
            key,
            value,
            message: message.into(),
            suggestion: suggestion.map(mask_credentials),
            source: None,
        });
    }

    /// A value as the file has it, on one line, credentials masked, cut when long.
    pub(crate) fn written(&self, span: &Range<usize>, secret: bool) -> String {
        if secret {
            return format!("\"{MASK}\"");
        }
        let raw = self.text.get(span.clone()).unwrap_or("").trim();
        // An "@" can hide behind an escape of TOML.
        let raw = raw.replace("\\u0040", "@").replace("\\U00000040", "@").replace("\\x40", "@");
        let shown: String = mask_credentials(&raw)
            .chars()
            .map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c })
            .collect();
        match shown.char_indices().nth(LONGEST_SHOWN) {
            Some((at, _)) => format!("{}…", &shown[..at]),
            None => shown,
        }
    }

    /// An error about a value that is there.
    pub(crate) fn value_error(
        &mut self,
        span: Range<usize>,
        key: String,
        secret: bool,
        message: impl Into<String>,
        suggestion: Option<&str>,
    ) {
        let written = self.written(&span, secret);
        self.error(span, key, Some(written), message, suggestion);
    }

    fn document(&mut self, table: &DeTable<'_>) -> Document {
        let mut document =
            Document { entries: Vec::new(), present: BTreeSet::new(), empty: BTreeMap::new() };
        let mut top = Entry::new(&SECTIONS[0]);
        for (name, value) in in_file_order(table) {
            let section = SECTIONS.iter().skip(1).find(|section| section.name == name.get_ref());
            let Some(section) = section else {
                if SECTIONS[0].key(name.get_ref()).is_none()
                    && (value.get_ref().is_table() || is_table_array(value.get_ref()))
                {
                    self.unknown_section(&mut document, name, value);
                } else {
                    self.key_value(&mut top, name, value);
                }
                continue;
            };
            document.present.insert(section.name);
            match (value.get_ref(), section.array) {
                (DeValue::Table(table), false) => {
                    let entry = Entry { span: value.span(), ..Entry::new(section) };
                    let entry = self.entry(entry, table);
                    document.entries.push(entry);
                }
                (DeValue::Array(items), true) if items.is_empty() => {
                    document.empty.insert(section.name, name.span());
                }
                (DeValue::Array(items), true) => {
                    self.array(&mut document, section, items);
                }
                (DeValue::Table(_), true) => self.error(
                    name.span(),
                    section.name.to_owned(),
                    None,
                    format!(
                        "there can be several, so the brackets are double: {}",
                        section.header()
                    ),
                    None,
                ),
                (other, _) => {
                    let header = section.header();
                    let message = if is_table_array(other) {
                        format!("there is only one, so the brackets are single: {header}")
                    } else {
                        format!("must be a section: a line {header} with its keys below it")
                    };
                    let written = self.written_if_scalar(value);
                    self.error(name.span(), section.name.to_owned(), written, message, None);
                }
            }
        }
        document.entries.push(top);
        document
    }

    fn array(
        &mut self,
        document: &mut Document,
        section: &'static Section,
        items: &[Spanned<DeValue<'_>>],
    ) {
        for (index, item) in items.iter().enumerate() {
            // Counted from 1, as a person counts cameras.
            let mut path = format!("{}[#{}]", section.name, index + 1);
            match item.get_ref() {
                DeValue::Table(table) => {
                    let named = table.get("name").and_then(|name| name.get_ref().as_str());
                    if let Some(name) = named.filter(|name| crate::name::is_valid(name, 31)) {
                        path = format!("{}[{name}]", section.name);
                    }
                    let entry = Entry { path, span: item.span(), ..Entry::new(section) };
                    let entry = self.entry(entry, table);
                    document.entries.push(entry);
                }
                _ => {
                    let header = section.header();
                    let message =
                        format!("must be a section: a line {header} with its keys below it");
                    self.value_error(item.span(), path, false, message, None);
                }
            }
        }
    }

    fn entry(&mut self, mut entry: Entry, table: &DeTable<'_>) -> Entry {
        let kind = table.get("kind").and_then(|kind| kind.get_ref().as_str());
        entry.variant = entry.section.variants.iter().find(|variant| kind == Some(variant.word));
        for (name, value) in in_file_order(table) {
            self.key_value(&mut entry, name, value);
        }
        entry
    }

    fn key_value(
        &mut self,
        entry: &mut Entry,
        name: &Spanned<Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let Some(key) = entry.key(name.get_ref()) else {
            self.unknown_key(entry, name);
            return;
        };
        entry.present.insert(key.name);
        let path = entry.key_path(key.name);
        if let Some(value) = read_value(self, key, &path, value).filter(|_| !self.is_broken(value))
        {
            entry.values.insert(key.name, value);
        }
    }

    fn is_broken(&self, value: &Spanned<DeValue<'_>>) -> bool {
        self.broken_lines.contains(&self.position(value.span().start).0)
    }

    fn unknown_key(&mut self, entry: &mut Entry, name: &Spanned<Cow<'_, str>>) {
        let word = name.get_ref().as_ref();
        let path = entry.key_path(&shown_key(word));
        let near = suggest::key(entry.keys(), word);
        if let Some(own) = entry.variant
            && near.is_none_or(|near| !suggest::is_other_name(near, word))
        {
            let has = |other: &&Variant| other.keys.iter().any(|key| key.name == word);
            let others = entry.section.variants.iter().filter(has);
            let others: Vec<&str> = others.map(|other| other.word).collect();
            if !others.is_empty() {
                let kinds = one_of(&others);
                let message = format!("is a key of the kind {kinds}; this one is {:?}", own.word);
                self.error(name.span(), path, None, message, None);
                return;
            }
        }
        let elsewhere = suggest::sections_with(word);
        if let Some(near) = near {
            // "missing" would say the same a second time.
            entry.present.insert(near.name);
        }
        // A section, or a key of another one, beats a vague resemblance within this one.
        let sure = near.is_some_and(|near| suggest::is_other_name(near, word));
        if let Some(section) = SECTIONS.iter().find(|section| section.name == word && !sure) {
            let message = format!("unknown key here; {} is a section", section.header());
            self.error(name.span(), path, None, message, None);
            return;
        }
        if !elsewhere.is_empty() && !sure {
            let place = match elsewhere.as_slice() {
                [only] if only.name.is_empty() => {
                    "at the top of the file, above the first section".to_owned()
                }
                _ => {
                    let headers: Vec<String> = elsewhere.iter().map(|s| s.header()).collect();
                    format!("in {}", headers.join(" or "))
                }
            };
            let message = format!("unknown key here; it belongs {place}");
            self.error(name.span(), path, None, message, None);
            return;
        }
        match near {
            Some(near) => self.error(name.span(), path, None, "unknown key", Some(near.name)),
            None if entry.section.name.is_empty() => {
                let message = format!("unknown key; {}", top_level());
                self.error(name.span(), path, None, message, None);
            }
            None => {
                let names: Vec<&str> = entry.keys().map(|key| key.name).collect();
                let kind = entry.variant.map(|own| format!(" of the kind {:?}", own.word));
                let message = format!(
                    "unknown key; {}{} has {}",
                    entry.section.header(),
                    kind.unwrap_or_default(),
                    names.join(", ")
                );
                self.error(name.span(), path, None, message, None);
            }
        }
    }

    fn unknown_section(
        &mut self,
        document: &mut Document,
        name: &Spanned<Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let word = name.get_ref().as_ref();
        let near = suggest::section(word);
        if let Some(near) = near {
            document.present.insert(near.name);
        }
        let header = near.map(Section::header);
        let message = match header {
            Some(_) => "unknown section".to_owned(),
            None => format!("unknown section; {}", top_level()),
        };
        let span = if value.get_ref().is_table() { value.span() } else { name.span() };
        let span = if span.is_empty() { name.span() } else { span };
        self.error(span, shown_key(word), None, message, header.as_deref());
    }

    fn written_if_scalar(&self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        match value.get_ref() {
            DeValue::Table(_) | DeValue::Array(_) => None,
            _ => Some(self.written(&value.span(), false)),
        }
    }

    pub(crate) fn missing(&mut self, span: Range<usize>, path: String, key: &Key) {
        let message = match key.default {
            Default::Required(example) => format!("missing; for example {example}"),
            _ => "missing".to_owned(),
        };
        self.error(span, path, None, message, None);
    }
}

/// What may stand at the top of the file.
fn top_level() -> String {
    let keys: Vec<&str> = SECTIONS[0].keys.iter().map(|key| key.name).collect();
    let headers: Vec<String> = SECTIONS.iter().skip(1).map(Section::header).collect();
    format!("the file has {} and the sections {}", keys.join(", "), headers.join(", "))
}

/// A key as shown: quoted when it needs quotes, masked in case somebody typed a URL there.
fn shown_key(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !word.is_empty() && word.chars().all(bare) {
        word.to_owned()
    } else {
        format!("{:?}", mask_credentials(word))
    }
}

fn is_table_array(value: &DeValue<'_>) -> bool {
    value.as_array().is_some_and(|items| items.iter().any(|item| item.get_ref().is_table()))
}

/// `toml` sorts keys by name; errors and suggestions follow the file.
fn in_file_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
