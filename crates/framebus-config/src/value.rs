//! One value of the file against its kind.

use crate::expand::expand;
use crate::model::{Area, BackendName, ClassFilter, InputShape};
use crate::parse::{Found, Walk};
use crate::source_parse::{ParsedSource, SourceProblem, no_scheme, parse_source, resolve};
use crate::spec::{Default, Key, Kind, MAX_AREAS, MAX_CORES, MAX_CORNERS};
use crate::{Backends, Endpoint, EndpointError, JsonlPath, Listen, Secret, Url, suggest};
use std::ops::Range;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::DeValue;

/// A valid value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Not there, and no default.
    Absent,
    Bool(bool),
    Int(u64),
    Float(f64),
    /// A name, a word or free text.
    Text(String),
    Path(PathBuf),
    Jsonl(JsonlPath),
    Source(ParsedSource),
    Endpoint(Endpoint),
    Url(Url),
    Listen(Listen),
    Secret(Secret),
    Backends(Backends),
    Input(InputShape),
    Classes(Vec<ClassFilter>),
    Cores(Vec<usize>),
    Areas(Vec<Area>),
    Point([f32; 2]),
    Points(Vec<[f32; 2]>),
    Words(Vec<String>),
    /// Names with their places, for the check against the cameras.
    Names(Vec<(String, Range<usize>)>),
}

impl Value {
    /// What holds when the key is absent.
    pub(crate) fn default_of(key: &Key) -> Self {
        match (key.kind, key.default) {
            (_, Default::Required(_) | Default::Absent(..)) => Self::Absent,
            (_, Default::Bool(value)) => Self::Bool(value),
            (_, Default::Int(value)) => Self::Int(value),
            (_, Default::Float(value)) => Self::Float(value),
            (_, Default::BusRoot) => {
                let uid = rustix::process::getuid().as_raw();
                Self::Path(PathBuf::from(format!("/tmp/framebus-{uid}")))
            }
            (Kind::Classes, Default::EmptyList) => Self::Classes(Vec::new()),
            (Kind::Cores, Default::EmptyList) => Self::Cores(Vec::new()),
            (Kind::Areas, Default::EmptyList) => Self::Areas(Vec::new()),
            (Kind::Words(_), Default::EmptyList) => Self::Words(Vec::new()),
            (_, Default::EmptyList) => Self::Names(Vec::new()),
            (Kind::Backends, Default::Word(_)) => Self::Backends(Backends::Auto),
            (Kind::Endpoint, Default::Word(_)) => Self::Endpoint(Endpoint::default()),
            (Kind::Input, Default::Word(_)) => Self::Input(InputShape::Auto),
            (Kind::Listen, Default::Word(word)) => {
                Listen::parse(word).map_or(Self::Absent, Self::Listen)
            }
            (Kind::Url(schemes), Default::Word(word)) => {
                Url::parse(word, schemes).map_or(Self::Absent, Self::Url)
            }
            (Kind::JsonlPath, Default::Word(_)) => Self::Jsonl(JsonlPath::Stdout),
            (_, Default::Word(word)) => Self::Text(word.to_owned()),
        }
    }
}

/// What is wrong with a value, and where if not at its beginning.
struct Problem {
    message: String,
    suggestion: Option<String>,
    /// Index and place of the item of a list.
    item: Option<(usize, Range<usize>)>,
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self { message, suggestion: None, item: None }
    }
}

/// The value, or `None` after adding an error.
pub(crate) fn read_value(
    walk: &mut Walk<'_>,
    key: &Key,
    path: &str,
    value: &Spanned<DeValue<'_>>,
) -> Option<Found> {
    let secret = matches!(key.kind, Kind::Secret);
    let mut problems = Vec::new();
    let read = match value.get_ref() {
        DeValue::Array(items) => list(key, items, &mut problems),
        DeValue::Table(_) => {
            walk.error(value.span(), path.to_owned(), None, not_a_table(key), None);
            return None;
        }
        scalar => scalar_value(walk, key, scalar).map_err(|problem| problems.push(problem)).ok(),
    };
    for Problem { message, suggestion, item } in problems {
        let (path, span) = match item {
            Some((index, span)) => (format!("{path}[#{}]", index + 1), span),
            None => (path.to_owned(), value.span()),
        };
        walk.value_error(span, path, secret, message, suggestion.as_deref());
    }
    read.map(|value_read| Found { value: value_read, span: value.span() })
}

fn not_a_table(key: &Key) -> String {
    format!("{}; found a table", key.kind.allowed())
}

fn scalar_value(walk: &Walk<'_>, key: &Key, value: &DeValue<'_>) -> Result<Value, Problem> {
    let wrong = || Problem::from(wrong_type(key, value));
    match key.kind {
        Kind::Bool => value.as_bool().map(Value::Bool).ok_or_else(wrong),
        Kind::Int { min, max, .. } => match value {
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .filter(|number| (min..=max).contains(number))
                .map(Value::Int)
                .ok_or_else(|| key.kind.allowed().into()),
            _ => Err(wrong()),
        },
        Kind::Float { min, max, .. } => {
            if !matches!(value, DeValue::Float(_) | DeValue::Integer(_)) {
                return Err(wrong());
            }
            number(value)
                .filter(|number| (min..=max).contains(number))
                .map(Value::Float)
                .ok_or_else(|| key.kind.allowed().into())
        }
        _ => match value {
            DeValue::String(text) => text_value(walk, key, text),
            // `source = 0` and `input = 640`, as OpenCV and Ultralytics have them.
            DeValue::Integer(number) => {
                let suggestion = match key.kind {
                    Kind::Source => no_scheme("", number.as_str()).suggestion,
                    Kind::Input => rounded_shape(number.as_str()),
                    Kind::Endpoint => {
                        endpoint(number.as_str(), "").err().and_then(|p| p.suggestion)
                    }
                    Kind::Version => {
                        is_version(number.as_str()).then(|| number.as_str().to_owned())
                    }
                    _ => None,
                };
                Err(Problem { suggestion, ..wrong() })
            }
            _ => Err(wrong()),
        },
    }
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        // Far beyond 2^53 every range is exceeded anyway.
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64)
        }
        _ => None,
    }
}

fn wrong_type(key: &Key, value: &DeValue<'_>) -> String {
    let allowed = key.kind.allowed();
    let number = matches!(key.kind, Kind::Int { .. } | Kind::Float { .. });
    match value {
        DeValue::String(_) if number && !allowed.contains("number") => {
            format!("{}, without quotes", allowed.replacen("must be", "must be a number", 1))
        }
        DeValue::String(_) if number || matches!(key.kind, Kind::Bool) => {
            format!("{allowed}, without quotes")
        }
        _ if number && !allowed.contains("number") => {
            allowed.replacen("must be", "must be a number", 1)
        }
        _ => allowed,
    }
}

fn text_value(walk: &Walk<'_>, key: &Key, text: &str) -> Result<Value, Problem> {
    let allowed = || Problem::from(key.kind.allowed());
    match key.kind {
        Kind::Name { max_bytes } => {
            if crate::name::is_valid(text, max_bytes) {
                return Ok(Value::Text(text.to_owned()));
            }
            let suggestion = name_from(text, max_bytes);
            Err(Problem { suggestion, ..allowed() })
        }
        Kind::Word(words) => {
            if words.contains(&text) {
                return Ok(Value::Text(text.to_owned()));
            }
            let spelled = text.to_lowercase().replace('_', "-");
            // Where there is one word only, it has been said.
            let several = (words.len() > 1).then_some(words);
            let suggestion = several.and_then(|words| suggest::nearest(&spelled, words));
            Err(Problem { suggestion: suggestion.map(str::to_owned), ..allowed() })
        }
        // The placeholder of the documentation, taken over as it stands.
        Kind::Path if text.contains("<uid>") => {
            Err("put the user's number (id -u) in the place of <uid>".to_owned().into())
        }
        Kind::Path => Ok(Value::Path(resolve(text, walk.folder)?)),
        Kind::JsonlPath if text == "-" => Ok(Value::Jsonl(JsonlPath::Stdout)),
        Kind::JsonlPath => Ok(Value::Jsonl(JsonlPath::File(resolve(text, walk.folder)?))),
        Kind::Text => match expand(text, walk.env)? {
            text if text.is_empty() => Err("must not be empty".to_owned().into()),
            text => Ok(Value::Text(text)),
        },
        Kind::Secret => Ok(Value::Secret(Secret::new(expand(text, walk.env)?))),
        Kind::Source => parse_source(text, walk.env, walk.folder).map(Value::Source).map_err(
            |SourceProblem { message, suggestion }| Problem { message, suggestion, item: None },
        ),
        Kind::Endpoint => endpoint(&expand(text, walk.env)?, text).map(Value::Endpoint),
        Kind::Url(schemes) => Ok(Value::Url(Url::parse(&expand(text, walk.env)?, schemes)?)),
        Kind::Listen => Listen::parse(&expand(text, walk.env)?)
            .map(Value::Listen)
            // Never what a variable holds.
            .map_err(|meant| Problem {
                suggestion: meant.filter(|_| !text.contains('$')),
                ..allowed()
            }),
        Kind::Version if is_version(text) => Ok(Value::Text(text.to_owned())),
        Kind::Backends if text == "auto" => Ok(Value::Backends(Backends::Auto)),
        Kind::Backends => match BackendName::from_name(text) {
            // Not a suggestion: those stand in quotes.
            Some(name) => {
                Err(format!("must be \"auto\" or a list in brackets: [\"{name}\"]").into())
            }
            None => {
                let suggestion = suggest::nearest(&text.to_lowercase(), BackendName::NAMES);
                Err(Problem {
                    suggestion: suggestion.map(|name| format!("[\"{name}\"]")),
                    ..allowed()
                })
            }
        },
        Kind::Input if text == "auto" => Ok(Value::Input(InputShape::Auto)),
        Kind::Input => input_shape(text).map(Value::Input).ok_or_else(|| {
            let suggestion = rounded_shape(text);
            Problem { suggestion, ..allowed() }
        }),
        _ => Err(allowed()),
    }
}

/// `written` is the text before variables were replaced: what came out of one is not repeated.
fn endpoint(text: &str, written: &str) -> Result<Endpoint, Problem> {
    text.parse().map_err(|EndpointError { message, suggestion }| {
        let suggestion = suggestion.filter(|_| !written.contains('$'));
        Problem { message, suggestion, item: None }
    })
}

/// Triton ignores versions that begin with a zero, and counts in 64 bits.
fn is_version(text: &str) -> bool {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits && !text.starts_with('0') && (1..=18).contains(&text.len())
}

/// A valid name like `text`, if there is an obvious one.
fn name_from(text: &str, max_bytes: usize) -> Option<String> {
    let name: String = text
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_whitespace() || c == '.' || c == '/' { '-' } else { c })
        .collect();
    crate::name::is_valid(&name, max_bytes).then_some(name)
}

fn sides(text: &str) -> Option<(usize, usize)> {
    let (height, width) = text.split_once('x')?;
    let digits =
        |side: &str| side.bytes().all(|b| b.is_ascii_digit()).then(|| side.parse().ok())?;
    Some((digits(height)?, digits(width)?))
}

fn input_shape(text: &str) -> Option<InputShape> {
    let fits = |side: usize| side.is_multiple_of(32) && (32..=4096).contains(&side);
    sides(text)
        .filter(|&(height, width)| fits(height) && fits(width))
        .map(|(height, width)| InputShape::Fixed { height, width })
}

/// The next shape that the network can take, for "360x640" and "640X640".
fn rounded_shape(text: &str) -> Option<String> {
    let lower = text.to_lowercase().replace(' ', "");
    let (height, width) = match sides(&lower) {
        Some(sides) => sides,
        None => lower.parse().ok().map(|side: usize| (side, side))?,
    };
    let round = |side: usize| side.clamp(32, 4096).next_multiple_of(32);
    Some(format!("{}x{}", round(height), round(width)))
}

const AREA: &str = "must be [x, y, width, height], each from 0 to 1, inside the picture and not \
                    empty";

/// A rectangle inside the picture.
fn area(value: &DeValue<'_>) -> Option<Area> {
    let items = value.as_array()?;
    let mut sides = [0.0; 4];
    if items.len() != sides.len() {
        return None;
    }
    for (side, item) in sides.iter_mut().zip(items) {
        *side = number(item.get_ref()).filter(|side| (0.0..=1.0).contains(side))?;
    }
    let [x, y, width, height] = sides;
    // Decimal fractions such as 0.9 + 0.1 need not add up to 1 exactly.
    let inside = x + width <= 1.0 + 1e-9 && y + height <= 1.0 + 1e-9;
    (inside && width > 0.0 && height > 0.0).then_some(Area { x, y, width, height })
}

/// A point inside the picture.
fn point<'a, 'i: 'a>(items: impl Iterator<Item = &'a DeValue<'i>>) -> Option<[f32; 2]> {
    let sides: Vec<f64> = items
        .map(|item| number(item).filter(|side| (0.0..=1.0).contains(side)))
        .collect::<Option<_>>()?;
    let [x, y] = sides.try_into().ok()?;
    Some([x as f32, y as f32])
}

/// Area of a polygon, by the shoelace formula.
fn area_of(points: &[[f32; 2]]) -> f32 {
    let next = points.iter().cycle().skip(1);
    let twice: f32 = points.iter().zip(next).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum();
    twice.abs() / 2.0
}

fn list(key: &Key, items: &[Spanned<DeValue<'_>>], problems: &mut Vec<Problem>) -> Option<Value> {
    let before = problems.len();
    let mut at = |index: usize, item: &Spanned<DeValue<'_>>, problem: Problem| {
        problems.push(Problem { item: Some((index, item.span())), ..problem });
    };
    let items = items.iter().enumerate();
    let value = match key.kind {
        Kind::Backends => {
            let mut names: Vec<BackendName> = Vec::new();
            for (index, item) in items {
                let word = item.get_ref().as_str();
                match word.and_then(BackendName::from_name) {
                    Some(name) if names.contains(&name) => {
                        at(index, item, "stands in the list twice".to_owned().into());
                    }
                    Some(name) => names.push(name),
                    None => {
                        let near = suggest::nearest(
                            &word.unwrap_or("").to_lowercase(),
                            BackendName::NAMES,
                        );
                        let message =
                            format!("must be {}", crate::spec::one_of(BackendName::NAMES));
                        let suggestion = near.map(str::to_owned);
                        at(index, item, Problem { message, suggestion, item: None });
                    }
                }
            }
            if names.is_empty() && problems.len() == before {
                problems.push(format!("the list is empty; {}", key.kind.allowed()).into());
            }
            Value::Backends(Backends::Ordered(names))
        }
        Kind::Classes => {
            let mut classes = Vec::new();
            for (index, item) in items {
                let class = match item.get_ref() {
                    DeValue::String(name) if !name.trim().is_empty() => {
                        Some(ClassFilter::Name(name.to_string()))
                    }
                    DeValue::Integer(number) => {
                        u32::from_str_radix(number.as_str(), number.radix())
                            .ok()
                            .map(ClassFilter::Number)
                    }
                    _ => None,
                };
                match class {
                    Some(class) => classes.push(class),
                    None => at(
                        index,
                        item,
                        "must be a class name in quotes or a class number from 0".to_owned().into(),
                    ),
                }
            }
            Value::Classes(classes)
        }
        Kind::Cores => {
            let mut cores: Vec<usize> = Vec::new();
            for (index, item) in items {
                let core = match item.get_ref() {
                    DeValue::Integer(number) => {
                        usize::from_str_radix(number.as_str(), number.radix()).ok()
                    }
                    _ => None,
                };
                match core.filter(|&core| core < MAX_CORES) {
                    Some(core) if cores.contains(&core) => {
                        at(index, item, "stands in the list twice".to_owned().into());
                    }
                    Some(core) => cores.push(core),
                    None => at(
                        index,
                        item,
                        format!("must be a CPU number from 0 to {}", MAX_CORES - 1).into(),
                    ),
                }
            }
            Value::Cores(cores)
        }
        Kind::Areas => {
            let mut areas = Vec::new();
            for (index, item) in items {
                match area(item.get_ref()) {
                    Some(_) if index == MAX_AREAS => {
                        at(index, item, format!("at most {MAX_AREAS} rectangles").into());
                    }
                    Some(area) => areas.push(area),
                    None => at(index, item, AREA.to_owned().into()),
                }
            }
            Value::Areas(areas)
        }
        Kind::Point => {
            let Some(point) = point(items.clone().map(|(_, item)| item.get_ref())) else {
                problems.push(key.kind.allowed().into());
                return None;
            };
            Value::Point(point)
        }
        Kind::Points => {
            let mut points = Vec::new();
            for (index, item) in items {
                let found = item.get_ref().as_array();
                match found.and_then(|found| point(found.iter().map(Spanned::get_ref))) {
                    Some(_) if index == MAX_CORNERS => {
                        at(index, item, format!("at most {MAX_CORNERS} points").into());
                    }
                    Some(point) => points.push(point),
                    None => at(index, item, Kind::Point.allowed().into()),
                }
            }
            if problems.len() == before && (points.len() < 3 || area_of(&points) < 1e-6) {
                problems.push(format!("{}, with an area", key.kind.allowed()).into());
            }
            Value::Points(points)
        }
        Kind::Words(words) => {
            let mut named: Vec<String> = Vec::new();
            for (index, item) in items {
                match item.get_ref().as_str() {
                    Some(word) if named.iter().any(|other| other == word) => {
                        at(index, item, "stands in the list twice".to_owned().into());
                    }
                    Some(word) if words.contains(&word) => named.push(word.to_owned()),
                    other => {
                        let near = other.and_then(|word| suggest::nearest(word, words));
                        let message = format!("must be {}", crate::spec::one_of(words));
                        let suggestion = near.map(str::to_owned);
                        at(index, item, Problem { message, suggestion, item: None });
                    }
                }
            }
            Value::Words(named)
        }
        Kind::CameraNames => {
            let mut names: Vec<(String, Range<usize>)> = Vec::new();
            for (index, item) in items {
                match item.get_ref().as_str() {
                    Some(name) if names.iter().any(|(other, _)| other == name) => {
                        at(index, item, "stands in the list twice".to_owned().into());
                    }
                    Some(name) => names.push((name.to_owned(), item.span())),
                    None => at(index, item, "must be the name of a camera".to_owned().into()),
                }
            }
            Value::Names(names)
        }
        _ => {
            problems.push(format!("{}; found a list", key.kind.allowed()).into());
            return None;
        }
    };
    // Names that are valid are still held against the cameras.
    (problems.len() == before || matches!(value, Value::Names(_))).then_some(value)
}
