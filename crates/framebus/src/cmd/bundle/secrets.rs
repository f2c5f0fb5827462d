//! Which values must not be shown: those of the configuration and of the environment.

use super::redact::{Known, Redactor};
use crate::cmd::systemd::environment;
use crate::cmd::up::APPLIED;
use crate::instance::DEFAULT_CONFIG;
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
    /// of framebus that run and from the file of the package's units.
    pub(crate) environment: Vec<(String, String)>,
}

/// Where the package keeps what may hold secrets, besides the configuration.
pub(crate) struct Packaged<'a> {
    /// The copy of the configuration that its units start from.
    pub(crate) applied: &'a Path,
    /// Variables of its units, in the form of EnvironmentFile=.
    pub(crate) environment: &'a Path,
}

/// Reads the configuration and every secret in it.
pub(crate) fn load(file: Option<&Path>, packaged: &Packaged) -> Result<Instance, regex::Error> {
    // What is not there, or may not be read, holds nothing that this user could show.
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let patterns = Redactor::new(&[])?;
    let text = file.map(read).unwrap_or_default();
    let of_units = read(packaged.environment);
    let mut variables = Variables { of_units: environment(&of_units), ..Variables::default() };
    variables.learn(&text);
    let (mut config, mut errors) = (None, String::new());
    if let Some(file) = file {
        match framebus_config::parse(&text, file, &|name| variables.get(name)) {
            Ok(parsed) => config = Some(parsed),
            Err(found) => errors = found.to_string(),
        }
    }
    let mut known = patterns.values_in(&text, "the configuration file");
    known.extend(patterns.values_in(&of_units, "the environment file"));
    known.extend(own_environment(&patterns));
    known.extend(config.iter().flat_map(|config| of_config(config, &patterns)));
    let domain = match &config {
        Some(config) => framebus_service::domain(config).ok(),
        None => Domain::new("default", &Domain::default_root(), Limits::default()).ok(),
    };
    // What runs may be older than the file.
    let own = domain.as_ref().map(|domain| domain.folder().join(APPLIED));
    for applied in own.iter().map(PathBuf::as_path).chain([packaged.applied]) {
        let applied = read(applied);
        variables.learn(&applied);
        known.extend(patterns.values_in(&applied, "the applied configuration"));
        let file = file.unwrap_or(Path::new(DEFAULT_CONFIG));
        let older = framebus_config::parse(&applied, file, &|name| variables.get(name));
        known.extend(older.iter().flat_map(|config| of_config(config, &patterns)));
    }
    known.extend(variables.known);
    known.retain(|known| !known.value.is_empty());
    Ok(Instance {
        file: file.map(Path::to_owned),
        config,
        text,
        errors,
        domain,
        known,
        environment: variables.lacking.into_iter().collect(),
    })
}

/// Variables that configurations refer to.
#[derive(Default)]
struct Variables {
    /// Of the package's units.
    of_units: BTreeMap<String, String>,
    /// Those that this process lacks.
    lacking: BTreeMap<String, String>,
    known: Vec<Known>,
}

impl Variables {
    /// Finds what a configuration refers to: here, in processes that run, or in the
    /// units' file.
    fn learn(&mut self, text: &str) {
        for name in references(text) {
            let own = std::env::var(&name).ok();
            let others = running(&name).into_iter().chain(self.of_units.get(&name).cloned());
            let values: Vec<String> = own.iter().cloned().chain(others).collect();
            if let (None, Some(first)) = (own, values.first()) {
                self.lacking.insert(name.clone(), first.clone());
            }
            let origin = format!("environment variable {name}");
            let known = |value| Known { origin: origin.clone(), value, user: None };
            self.known.extend(values.into_iter().map(known));
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().or_else(|| self.lacking.get(name).cloned())
    }
}

/// Passwords, the server's token, and what addresses and pipelines hold.
fn of_config(config: &Config, patterns: &Redactor) -> Vec<Known> {
    let token = config.triton.token.as_ref().map(|token| Known {
        origin: "triton.token".to_owned(),
        value: token.expose().to_owned(),
        user: None,
    });
    let mut known = Vec::from_iter(token);
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
    fn secrets_of_the_packaged_units_are_known() {
        let folder = tempfile::tempdir().expect("temp dir");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let config = |password: &str| {
            format!(
                "[bus]\nroot = {:?}\n[model]\npath = \"a.onnx\"\n[[camera]]\nname = \"a\"\n\
                 source = \"rtsp://10.0.0.1/x\"\nuser = \"u\"\npassword = \"{password}\"\n",
                folder.path().join("bus")
            )
        };
        let file = write("framebus.toml", &config("${BUNDLE_TEST_NEW}"));
        let packaged = Packaged {
            applied: &write("applied.toml", &config("applied-${BUNDLE_TEST_OLD}")),
            environment: &write(
                "framebus.env",
                "BUNDLE_TEST_NEW=\"new pass\"\nBUNDLE_TEST_OLD=oldpass\nYARD_PASSWORD=yardpass\n",
            ),
        };
        let instance = load(Some(&file), &packaged).expect("patterns");
        assert_eq!(instance.errors, "");
        assert!(
            instance.environment.contains(&("BUNDLE_TEST_NEW".to_owned(), "new pass".to_owned()))
        );
        let redactor = Redactor::new(&instance.known).expect("patterns");
        let said = redactor.redact("a new pass, oldpass, applied-oldpass, yardpass, red").0;
        assert_eq!(said, "a ***, ***, ***, ***, red");
    }

    #[test]
    fn references_are_found_once() {
        assert_eq!(references("a ${B} ${A_1}${B} ${no good} ${open"), ["A_1", "B"]);
        assert!(references("").is_empty());
    }
}
