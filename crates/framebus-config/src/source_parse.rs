//! The text of a `source` key → [`Source`].

use crate::expand::{Env, expand, expand_decoded, percent_decode};
use crate::{GstPipeline, RtspUrl, Secret, Source, TestPattern, UrlError};
use std::path::{Path, PathBuf};

/// What a source may look like.
pub(crate) const FORMS: &str = "must be \"rtsp://HOST/PATH\", \"file:PATH\", \
                                \"v4l2:/dev/video0\", \"test:PATTERN\" or \"gst:PIPELINE\"";

const SCHEMES: [&str; 6] = ["rtsp", "rtsps", "file", "v4l2", "test", "gst"];

/// Patterns of GStreamer's `videotestsrc` (its `pattern` enumeration).
pub(crate) const PATTERNS: [&str; 26] = [
    "smpte",
    "snow",
    "black",
    "white",
    "red",
    "green",
    "blue",
    "checkers-1",
    "checkers-2",
    "checkers-4",
    "checkers-8",
    "circular",
    "blink",
    "smpte75",
    "zone-plate",
    "gamut",
    "chroma-zone-plate",
    "solid-color",
    "ball",
    "smpte100",
    "bar",
    "pinwheel",
    "spokes",
    "gradient",
    "colors",
    "smpte-rp-219",
];

const TEST_PARAMETERS: [&str; 4] = ["width", "height", "fps", "frames"];

/// A source and the login that its URL carried.
#[derive(Debug, Clone)]
pub(crate) struct ParsedSource {
    pub(crate) source: Source,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

impl From<Source> for ParsedSource {
    fn from(source: Source) -> Self {
        Self { source, user: None, password: None }
    }
}

/// What is wrong with a source; holds no part of an expanded value.
#[derive(Debug)]
pub(crate) struct SourceProblem {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl From<String> for SourceProblem {
    fn from(message: String) -> Self {
        Self { message, suggestion: None }
    }
}

impl From<&str> for SourceProblem {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// `folder` is the folder of the configuration file, from which relative paths count.
pub(crate) fn parse_source(
    raw: &str,
    env: Env<'_>,
    folder: &Path,
) -> Result<ParsedSource, SourceProblem> {
    // A URL that is written out is split before the variables are replaced, so that a password
    // from the environment may contain "@", ":" and "/".
    if is_rtsp(raw) {
        return rtsp(raw, raw, env);
    }
    let text = expand(raw, env)?;
    if is_rtsp(&text) {
        return rtsp(&text, raw, &|_| None);
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(no_scheme(raw, &text));
    };
    match scheme {
        "file" => file(rest, folder),
        "v4l2" if rest.starts_with("/dev/") && rest.len() > "/dev/".len() => {
            Ok(Source::V4l2(PathBuf::from(rest)).into())
        }
        "v4l2" => Err(SourceProblem {
            message: "must name a device such as \"v4l2:/dev/video0\"".to_owned(),
            suggestion: match rest.trim_start_matches("video").parse::<u8>() {
                Ok(number) => Some(format!("v4l2:/dev/video{number}")),
                Err(_) => None,
            },
        }),
        "test" => test_pattern(rest).map(ParsedSource::from),
        "gst" if rest.trim().is_empty() => {
            Err("the pipeline is empty; write one without its sink, such as \
                 \"gst:videotestsrc ! video/x-raw,width=640,height=480\""
                .into())
        }
        "gst" => {
            let shown = raw.strip_prefix("gst:").unwrap_or(raw);
            Ok(Source::Gst(GstPipeline::new(rest.to_owned(), shown)).into())
        }
        _ => Err(no_scheme(raw, &text)),
    }
}

fn is_rtsp(text: &str) -> bool {
    text.starts_with("rtsp://") || text.starts_with("rtsps://")
}

/// A source that begins with none of the schemes: guess what was meant.
pub(crate) fn no_scheme(raw: &str, text: &str) -> SourceProblem {
    let problem = |suggestion: Option<String>| SourceProblem {
        message: FORMS.to_owned(),
        // What came out of a variable is not repeated; logins are masked where it is printed.
        suggestion: suggestion.filter(|_| !raw.contains('$')),
    };
    if let Ok(number) = text.parse::<u8>() {
        return problem(Some(format!("v4l2:/dev/video{number}")));
    }
    if text.starts_with("/dev/") {
        return problem(Some(format!("v4l2:{text}")));
    }
    let host = text.split([':', '/']).next().unwrap_or("");
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return problem(Some(format!("rtsp://{text}")));
    }
    if text.starts_with("rtsp:") || text.starts_with("rtsps:") {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        return problem(Some(format!("{scheme}://{}", rest.trim_start_matches('/'))));
    }
    if let Some((scheme, rest)) = text.split_once(':') {
        if ["http", "https", "rtmp", "srt", "udp", "hls"].contains(&scheme) {
            return SourceProblem {
                message: format!(
                    "{scheme} is not read directly; use the camera's rtsp:// address, or \
                     \"gst:PIPELINE\" with the GStreamer elements that read it"
                ),
                suggestion: None,
            };
        }
        let near = crate::suggest::nearest(&scheme.to_ascii_lowercase(), &SCHEMES);
        return problem(near.map(|scheme| format!("{scheme}:{rest}")));
    }
    if PATTERNS.contains(&text) {
        return problem(Some(format!("test:{text}")));
    }
    problem((!text.is_empty()).then(|| format!("file:{text}")))
}

fn rtsp(text: &str, raw: &str, env: Env<'_>) -> Result<ParsedSource, SourceProblem> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("rtsp", text));
    // The last "@" before the path; if there is none, an "@" further on belongs to a password
    // with a "/" in it, or to the path: ambiguous, so it is refused.
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (login, address) = match rest[..authority_end].rfind('@') {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None if rest.contains('@') => {
            return Err("\"@\" after the first \"/\": if the password contains \"/\", \"?\" or \
                        \"#\", put it into the key password; if the path contains \"@\", write \
                        %40"
            .into());
        }
        None => (None, rest),
    };
    let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
        None => (None, None),
        Some(Ok((user, password))) => {
            (Some(expand_decoded(user, env)?), Some(expand_decoded(password, env)?))
        }
        // "${LOGIN}@host" with LOGIN = "user:password".
        Some(Err(login)) => {
            let login = expand_decoded(login, env)?;
            match login.split_once(':') {
                Some((user, password)) => (Some(user.to_owned()), Some(password.to_owned())),
                None => (Some(login), None),
            }
        }
    };
    let url = format!("{scheme}://{}", expand(address, env)?);
    if url.contains('@') && !address.contains('@') {
        return Err("a variable after the login contains \"@\"; put user and password into the \
                    keys user and password"
            .into());
    }
    check_address(&url)?;
    let shown = match (is_rtsp(raw), is_rtsp(text)) {
        (true, true) => format!("{scheme}://{address}"),
        // The whole URL came out of a variable: nothing of it is shown.
        _ => raw.to_owned(),
    };
    Ok(ParsedSource {
        source: Source::Rtsp(RtspUrl::new(url, &shown)),
        user: user.filter(|user| !user.is_empty()),
        password: password.map(Secret::new),
    })
}

/// Host and port of a URL without a login.
fn check_address(url: &str) -> Result<(), SourceProblem> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let Some((host, after)) = v6.split_once(']') else {
                return Err("an IPv6 address stands in brackets: rtsp://[fd00::1]:554/PATH".into());
            };
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("what stands in brackets is no IPv6 address".into());
            }
            (host, after.strip_prefix(':').or((!after.is_empty()).then_some(after)))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing: rtsp://HOST/PATH".into());
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
        return Err("the host contains a space".into());
    }
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("a URL contains no spaces; write %20".into());
    }
    match port.map(str::parse::<u16>) {
        None | Some(Ok(1..)) => Ok(()),
        Some(_) => Err("the port after the host must be a number between 1 and 65535".into()),
    }
}

impl TryFrom<&str> for RtspUrl {
    type Error = UrlError;

    /// Takes a URL without a login; user and password travel beside it.
    fn try_from(text: &str) -> Result<Self, UrlError> {
        if !is_rtsp(text) {
            return Err(UrlError("must begin with rtsp:// or rtsps://".to_owned()));
        }
        if text.contains('@') {
            return Err(UrlError("must not contain user and password".to_owned()));
        }
        check_address(text).map_err(|problem| UrlError(problem.message))?;
        Ok(Self::new(text.to_owned(), text))
    }
}

fn file(rest: &str, folder: &Path) -> Result<ParsedSource, SourceProblem> {
    let path = match rest.strip_prefix("//") {
        Some(url) if url.starts_with('/') => percent_decode(url),
        Some(_) => {
            return Err("file:// wants an absolute path: \"file:///home/…\"; a path relative to \
                        this file is \"file:PATH\""
                .into());
        }
        None => rest.to_owned(),
    };
    Ok(Source::File(resolve(&path, folder)?).into())
}

/// A path of the configuration file; relative ones count from its folder.
pub(crate) fn resolve(path: &str, folder: &Path) -> Result<PathBuf, String> {
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if path.contains('\0') {
        return Err("a path contains no NUL character".to_owned());
    }
    if path == "~" || path.starts_with("~/") {
        return Err("\"~\" is not replaced here; write the whole path".to_owned());
    }
    Ok(folder.join(path))
}

fn test_pattern(rest: &str) -> Result<Source, SourceProblem> {
    let (pattern, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !PATTERNS.contains(&pattern) {
        return Err(SourceProblem {
            message: format!("there is no such test pattern; there are {}", PATTERNS.join(", ")),
            suggestion: crate::suggest::nearest(pattern, &PATTERNS).map(|p| format!("test:{p}")),
        });
    }
    let mut test = TestPattern {
        pattern: pattern.to_owned(),
        width: 640,
        height: 480,
        fps: 30.0,
        frames: None,
    };
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let side = || match value.parse() {
            Ok(side @ 16..=8192) => Ok(side),
            _ => Err(format!("{name} must be a whole number between 16 and 8192 pixels")),
        };
        match name {
            "width" => test.width = side()?,
            "height" => test.height = side()?,
            "fps" => match value.parse::<f64>() {
                Ok(fps) if (0.1..=240.0).contains(&fps) => test.fps = fps,
                _ => return Err("fps must be between 0.1 and 240 frames per second".into()),
            },
            "frames" => match value.parse::<u64>() {
                Ok(frames @ 1..) => test.frames = Some(frames),
                _ => return Err("frames must be a whole number of at least 1".into()),
            },
            _ => {
                return Err(SourceProblem {
                    message: "after \"?\" a test source takes width, height, fps and frames, \
                              joined by \"&\""
                        .to_owned(),
                    suggestion: crate::suggest::nearest(name, &TEST_PARAMETERS)
                        .map(|near| rest.replacen(name, near, 1))
                        .map(|rest| format!("test:{rest}")),
                });
            }
        }
    }
    Ok(Source::Test(test))
}
