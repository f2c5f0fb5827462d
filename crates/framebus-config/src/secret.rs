//! Values that must never be printed, and the masking of text that may contain them.

use std::fmt;

/// What stands where a credential was.
pub(crate) const MASK: &str = "***";

/// A password. `Debug` and `Display` print `***`; it implements no serialisation, so the only
/// way out is [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value that must not be printed.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that hands it to the camera.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Parameter names after which a credential stands, in URLs (`?password=…`, `/user=a_password=…`)
/// and in GStreamer pipelines (`user-pw=…`).
const SECRET_PARAMETERS: [&str; 9] =
    ["password", "passwd", "passphrase", "pass", "pwd", "user-pw", "proxy-pw", "token", "secret"];

/// `text` with URL credentials and password-like parameters replaced by `***`.
///
/// It rather masks too much than too little: from the scheme to the *last* `@`, because an
/// unescaped password may itself contain `@`, `/` or `?`.
pub(crate) fn mask_credentials(text: &str) -> String {
    mask_parameters(&mask_user_info(text))
}

fn mask_user_info(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    if !text.contains("://") {
        // No well-formed URL ("rtsp:/user:pw@host", "admin:pw@host"): keep at most a scheme.
        let (Some(first_at), Some(last_at)) = (text.find('@'), text.rfind('@')) else {
            return text.to_owned();
        };
        let keep = text[..first_at].find(':').map_or(0, |colon| colon + 1);
        out.push_str(&text[..keep]);
        out.push_str(MASK);
        out.push_str(&text[last_at..]);
        return out;
    }
    for (index, piece) in text.split("://").enumerate() {
        if index > 0 {
            out.push_str("://");
        }
        match piece.rfind('@') {
            Some(at) => {
                out.push_str(MASK);
                out.push_str(&piece[at..]);
            }
            None if index > 0 => out.push_str(&mask_odd_port(piece)),
            None => out.push_str(piece),
        }
    }
    out
}

/// "user:password" where the "@" was forgotten or written as %40 looks like a host with a port
/// that is no number.
fn mask_odd_port(piece: &str) -> String {
    let end = piece
        .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace())
        .unwrap_or(piece.len());
    match piece[..end].split_once(':') {
        Some((host, port))
            if !host.starts_with('[') && !port.bytes().all(|b| b.is_ascii_digit()) =>
        {
            format!("{host}:{MASK}{}", &piece[end..])
        }
        _ => piece.to_owned(),
    }
}

fn mask_parameters(text: &str) -> String {
    // ASCII lowercase keeps byte offsets.
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    while done < text.len() {
        let next = SECRET_PARAMETERS
            .iter()
            .filter_map(|name| Some((lower[done..].find(name)? + done, name.len())))
            .min_by_key(|&(at, length)| (at, std::cmp::Reverse(length)));
        let Some((at, length)) = next else { break };
        let after_name = at + length;
        let value_start = text[after_name..]
            .strip_prefix('=')
            .or_else(|| text[after_name..].trim_start().strip_prefix('='))
            .map(|rest| text.len() - rest.trim_start().len());
        let Some(start) = value_start else {
            out.push_str(&text[done..after_name]);
            done = after_name;
            continue;
        };
        out.push_str(&text[done..start]);
        let value = &text[start..];
        let unescaped = value.strip_prefix('\\').unwrap_or(value);
        let end = match unescaped.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let open = value.len() - unescaped.len() + 1;
                value[open..].find(quote).map_or(value.len(), |close| open + close + 1)
            }
            _ => value
                .find(|c: char| c.is_whitespace() || matches!(c, '&' | '"' | '\''))
                .unwrap_or(value.len()),
        };
        // A reference to the environment is no secret and tells the reader where to look.
        let shown = &value[..end];
        if shown.starts_with("${") && shown.ends_with('}') && shown.matches('$').count() == 1 {
            out.push_str(shown);
        } else {
            out.push_str(MASK);
        }
        done = start + end;
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_prints_only_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn credentials_are_masked() {
        for (text, masked) in [
            ("rtsp://host/path", "rtsp://host/path"),
            ("rtsp://user:hunter2@host/path", "rtsp://***@host/path"),
            ("rtsp://user:hun@te/r?2@host/path", "rtsp://***@host/path"),
            ("rtsp://host:554/path", "rtsp://host:554/path"),
            ("rtsp://[fd00::1]:554/path", "rtsp://[fd00::1]:554/path"),
            ("rtsp://user:hunter2/path", "rtsp://user:***/path"),
            ("rtsp://user:hunter2%40host/path", "rtsp://user:***/path"),
            ("rtsp:/user:hunter2@host", "rtsp:***@host"),
            ("admin:hunter2@host", "admin:***@host"),
            ("hunter2@host", "***@host"),
            ("rtsp://host/a?user=x&password=hunter2&n=1", "rtsp://host/a?user=x&password=***&n=1"),
            ("rtsp://host/user=admin_password=hunter2_ch=1", "rtsp://host/user=admin_password=***"),
            ("gst:rtspsrc user-pw=hunter2 ! decodebin", "gst:rtspsrc user-pw=*** ! decodebin"),
            ("gst:rtspsrc user-pw=\"hunter2 x\" ! d", "gst:rtspsrc user-pw=*** ! d"),
            ("gst:rtspsrc user-pw=\\\"hunter2 x\\\" ! d", "gst:rtspsrc user-pw=*** ! d"),
            ("gst:rtspsrc user-pw = hunter2", "gst:rtspsrc user-pw = ***"),
            ("gst:rtspsrc user-pw=${PW} ! d", "gst:rtspsrc user-pw=${PW} ! d"),
            ("gst:rtspsrc user-pw=${PW}hunter2 ! d", "gst:rtspsrc user-pw=*** ! d"),
            ("bypass the pass", "bypass the pass"),
            ("password=", "password=***"),
        ] {
            assert_eq!(mask_credentials(text), masked);
        }
    }
}
