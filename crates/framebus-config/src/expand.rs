//! `${NAME}` in values that may hold secrets, replaced from the environment.

/// The environment, as the loader sees it.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A piece of a value: text as written, or the content of a variable.
///
/// They are kept apart because only written text is percent-decoded: a password in the
/// environment is taken as it is, whatever characters it has.
pub(crate) enum Piece<'a> {
    Written(&'a str),
    FromEnv(String),
}

/// `raw` in pieces. The error names the variable and never shows its content.
pub(crate) fn pieces<'a>(raw: &'a str, env: Env<'_>) -> Result<Vec<Piece<'a>>, String> {
    let mut pieces = Vec::new();
    let mut rest = raw;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            pieces.push(Piece::Written(&rest[..at - 1]));
            pieces.push(Piece::Written("${"));
            rest = &rest[at + 2..];
            continue;
        }
        pieces.push(Piece::Written(&rest[..at]));
        let Some(length) = rest[at..].find('}') else {
            return Err("a \"${\" lacks its \"}\"; write ${NAME}, or $${ for a plain ${".to_owned());
        };
        let name = &rest[at + 2..at + length];
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(word) {
            return Err(
                "the name in ${…} must be letters, digits and \"_\"; write $${ for a plain \
                        ${"
                .to_owned(),
            );
        }
        match env(name).filter(|value| !value.is_empty()) {
            Some(value) => pieces.push(Piece::FromEnv(value)),
            None => {
                return Err(format!(
                    "environment variable {name} is not set or empty; set it where framebus is \
                     started"
                ));
            }
        }
        rest = &rest[at + length + 1..];
    }
    pieces.push(Piece::Written(rest));
    Ok(pieces)
}

/// `raw` with every variable replaced.
pub(crate) fn expand(raw: &str, env: Env<'_>) -> Result<String, String> {
    Ok(pieces(raw, env)?
        .into_iter()
        .map(|piece| match piece {
            Piece::Written(text) => text.to_owned(),
            Piece::FromEnv(value) => value,
        })
        .collect())
}

/// The same with `%40` and the like in the written parts decoded.
pub(crate) fn expand_decoded(raw: &str, env: Env<'_>) -> Result<String, String> {
    Ok(pieces(raw, env)?
        .into_iter()
        .map(|piece| match piece {
            Piece::Written(text) => percent_decode(text),
            Piece::FromEnv(value) => value,
        })
        .collect())
}

/// `%40` → `@`. What is no valid escape stays: passwords with a plain `%` are common.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|&b| char::from(b).to_digit(16));
        match (byte, hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits are below 256.
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PW" => Some("a@b%40/${USER}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_once() {
        assert_eq!(expand("x${PW}y", &env).as_deref(), Ok("xa@b%40/${USER}y"));
        assert_eq!(expand("x$${PW}y $PW $", &env).as_deref(), Ok("x${PW}y $PW $"));
        assert_eq!(expand_decoded("%40${PW}%zz%", &env).as_deref(), Ok("@a@b%40/${USER}%zz%"));
        for (raw, part) in [
            ("${NO}", "variable NO is not set"),
            ("${EMPTY}", "variable EMPTY is not set or empty"),
            ("${PW", "lacks its"),
            ("${}", "must be letters"),
            ("${A B}", "must be letters"),
        ] {
            assert!(expand(raw, &env).is_err_and(|message| message.contains(part)), "{raw}");
        }
    }

    #[test]
    fn percent_escapes_are_decoded() {
        assert_eq!(percent_decode("a%20b%c3%a4"), "a bä");
        assert_eq!(percent_decode("%ff%4"), "%ff%4");
    }
}
