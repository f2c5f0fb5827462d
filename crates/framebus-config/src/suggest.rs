//! What somebody who mistyped a word may have meant.

use crate::spec::{Key, SECTIONS, Section};

/// Words further apart than this are no typing errors: a third of the letters, at least one.
fn near(word: &str, candidate: &str) -> Option<usize> {
    let distance = strsim::damerau_levenshtein(word, candidate);
    let length = word.chars().count().max(candidate.chars().count());
    (distance <= (length / 3).max(1) && distance < length).then_some(distance)
}

/// The candidate nearest to `word`, if one is near; the first of equals.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .filter_map(|candidate| Some((near(word, candidate)?, *candidate)))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// `FrameRate`, `frame-rate` → `frame_rate`.
fn snake(word: &str) -> String {
    let mut out = String::with_capacity(word.len() + 4);
    let mut before_lower = false;
    for c in word.chars() {
        if c.is_ascii_uppercase() && before_lower {
            out.push('_');
        }
        before_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() });
    }
    out
}

/// By name, then by other names people use, then by distance to either.
fn by_name<T>(
    word: &str,
    items: impl Iterator<Item = T> + Clone,
    names: impl Fn(&T) -> (&'static str, &'static [&'static str]),
) -> Option<T> {
    let word = snake(word);
    items.clone().find(|item| names(item).0 == word).or_else(|| {
        items.clone().find(|item| names(item).1.contains(&word.as_str())).or_else(|| {
            items
                .filter_map(|item| {
                    let (name, also) = names(&item);
                    let distance = std::iter::once(&name)
                        .chain(also)
                        .filter_map(|candidate| near(&word, candidate))
                        .min()?;
                    Some((distance, item))
                })
                .min_by_key(|&(distance, _)| distance)
                .map(|(_, item)| item)
        })
    })
}

/// The one of `keys` that `word` may have meant.
pub(crate) fn key(
    keys: impl Iterator<Item = &'static Key> + Clone,
    word: &str,
) -> Option<&'static Key> {
    by_name(word, keys, |key| (key.name, key.also))
}

/// The section that `word` may have meant.
pub(crate) fn section(word: &str) -> Option<&'static Section> {
    by_name(word, SECTIONS.iter().skip(1), |section| (section.name, section.also))
}

/// Whether people use `word` for `key`: no vague resemblance.
pub(crate) fn is_other_name(key: &Key, word: &str) -> bool {
    key.also.contains(&snake(word).as_str())
}

/// The sections that have a key of exactly this name.
pub(crate) fn sections_with(key: &str) -> Vec<&'static Section> {
    SECTIONS.iter().filter(|section| section.key(key).is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_and_never_far() {
        let camera = crate::spec::section("camera");
        for (word, expected) in [
            ("frame_rate", Some("fps")),
            ("frameRate", Some("fps")),
            ("sorce", Some("source")),
            ("Max-Width", Some("max_width")),
            ("latency", Some("latency_ms")),
            ("zzz", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(key(camera.all_keys(), word).map(|key| key.name), expected, "{word}");
        }
        assert_eq!(section("cameras").map(|section| section.name), Some("camera"));
        assert_eq!(nearest("infoo", &["error", "info"]), Some("info"));
        assert_eq!(nearest("verbose", &["error", "info"]), None);
    }
}
