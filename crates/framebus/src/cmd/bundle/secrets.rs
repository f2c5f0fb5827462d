//! Which values must not be shown: those of the configuration and of the environment.

use super::redact::{Known, Redactor};
use crate::cmd::up::APPLIED;
use framebus_bus::{Domain, Limits};
use framebus_config::{Config, Source};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the bundle is about.
pub(crate) struct Instance {
    pub(crate) file: Option<PathBuf>,
    pub(crate) config: Option<Config>,
    /// The file's text; empty when it cannot be read.
    pub(crate) text: String,
    /// What is wrong in it.
    pub(crate) errors: String,
    pub(crate) domain: Option<Domain>,
    pub(crate) known: Vec<Known>,
    /// Variables that the configuration needs and this process lacks, from processes
    /// of framebus that run.
    pub(crate) environment: Vec<(String, String)>,
}

/// Reads the configuration and every secret in it.
pub(crate) fn load(file: Option<&Path>) -> Result<Instance, regex::Error> {
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let references = references(&text);
    let mut environment = BTreeMap::new();
    let mut known = Vec::new();
    for name in &references {
        let origin = format!("environment variable {name}");
        let values = running(name);
        if let (Err(_), Some(first)) = (std::env::var(name), values.first()) {
            environment.insert(name.clone(), first.clone());
        }
        let values = std::env::var(name).into_iter().chain(values);
        known.extend(values.map(|value| Known { origin: origin.clone(), value, user: None }));
    }
    let lookup = |name: &str| std::env::var(name).ok().or_else(|| environment.get(name).cloned());
    let (mut config, mut errors) = (None, String::new());
    if let Some(file) = file {
        match framebus_config::parse(&text, file, &lookup) {
            Ok(parsed) => config = Some(parsed),
            Err(found) => errors = found.to_string(),
        }
    }
    let patterns = Redactor::new(&[])?;
    known.extend(patterns.values_in(&text, "the configuration file"));
    known.extend(own_environment(&patterns));
    known.extend(config.iter().flat_map(|config| of_config(config, &patterns)));
    let domain = match &config {
        Some(config) => framebus_service::domain(config).ok(),
        None => Domain::new("default", &Domain::default_root(), Limits::default()).ok(),
    };
    // What runs may be older than the file.
    let applied = domain.as_ref().map(|domain| domain.folder().join(APPLIED));
    let applied = applied.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    known.extend(patterns.values_in(&applied, "the applied configuration"));
    let older = file.and_then(|file| framebus_config::parse(&applied, file, &lookup).ok());
    known.extend(older.iter().flat_map(|config| of_config(config, &patterns)));
    known.retain(|known| !known.value.is_empty());
    Ok(Instance {
        file: file.map(Path::to_owned),
        config,
        text,
        errors,
        domain,
        known,
        environment: environment.into_iter().collect(),
    })
}

/// Passwords, and what addresses and pipelines hold.
fn of_config(config: &Config, patterns: &Redactor) -> Vec<Known> {
    let mut known = Vec::new();
    for camera in &config.cameras {
        let origin = format!("camera {}", camera.name);
        if let Some(password) = &camera.password {
            let value = password.expose().to_owned();
            known.push(Known { origin: origin.clone(), value, user: camera.user.clone() });
        }
        match &camera.source {
            Source::Rtsp(url) => known.extend(patterns.values_in(url.as_str(), &origin)),
            Source::Gst(pipeline) => known.extend(patterns.values_in(pipeline.as_str(), &origin)),
            Source::File(_) | Source::V4l2(_) | Source::Test(_) => {}
        }
    }
    known
}

/// Names in `${NAME}`.
fn references(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .split("${")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('}')?.0))
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Variables of this process that are named like secrets.
fn own_environment(patterns: &Redactor) -> Vec<Known> {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        // The shell's working folders are no passwords.
        let folder = matches!(name.as_str(), "PWD" | "OLDPWD");
        let looks = !patterns.values_in(&format!("{name}='x'"), "").is_empty();
        (looks && !folder).then(|| Known {
            origin: format!("environment variable {name}"),
            value,
            user: None,
        })
    });
    variables.collect()
}

/// What a variable holds in the framebus processes that run: under systemd the
/// passwords are only there. Several instances may have several.
fn running(name: &str) -> Vec<String> {
    let mut values = Vec::new();
    let prefix = format!("{name}=");
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| entry.file_name() != own.as_str()) {
        let program = super::collect::program(&process.path());
        if !program.is_some_and(|program| program.starts_with("framebus")) {
            continue;
        }
        let environ = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let mut entries = environ.split(|byte| *byte == 0);
        let value = entries.find_map(|entry| entry.strip_prefix(prefix.as_bytes()));
        let value = value.map(|value| String::from_utf8_lossy(value).into_owned());
        values.extend(value.filter(|value| !values.contains(value)));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_once() {
        assert_eq!(references("a ${B} ${A_1}${B} ${no good} ${open"), ["A_1", "B"]);
        assert!(references("").is_empty());
    }
}
