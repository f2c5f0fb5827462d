//! `framebus bundle`: what somebody who helps needs to see, without secrets.
//!
//! Order of reading: [`run`] → `secrets` (which values must not be shown) → `collect`
//! (what goes in) → `redact` (how they are taken out).

mod collect;
mod redact;
mod secrets;

use crate::cmd::systemd;
use crate::instance::DEFAULT_CONFIG;
use crate::out;
use crate::screen::Screen;
use collect::Entry;
use flate2::Compression;
use flate2::write::GzEncoder;
use framebus_service::{Failure, Kind, OrFail, clock};
use redact::{Known, Redactor};
use secrets::Packaged;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Pack what somebody who helps needs to see, with secrets taken out
///
/// Configuration, doctor, state, logs of systemd, shared memory and processes of the
/// instance. Passwords and tokens are replaced by ***. What is in the archive is
/// printed; look at it before you send it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus bundle --config framebus.toml
  framebus bundle -o /tmp/help.tar.gz

Taken out are: passwords and tokens of the configuration, also where they came from
the environment, in all of the archive and in every usual encoding; logins in URLs;
values of keys named password, token, secret and the like. Not in it: environments,
memory and core files of processes, pictures, results. Camera names, addresses and
file names stay.

Takes some seconds for each look at the instance and at its cameras. As root it also
has the journal of the services; the instance is then looked at as its own user.

Exit codes: 0 written, 69 it could not be written.")]
pub(crate) struct Args {
    /// Configuration file [default: /etc/framebus/framebus.toml where it exists].
    #[arg(long, short, env = "FRAMEBUS_CONFIG")]
    config: Option<PathBuf>,
    /// The archive [default: framebus-bundle-SECONDS.tar.gz here].
    #[arg(long, short, value_name = "FILE.tar.gz")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    super::init_log(&Screen::new(true));
    let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|file| file.exists());
    let file = args.config.clone().or_else(default);
    let seconds = clock::wall_ns() / 1_000_000_000;
    let output = args.output.clone();
    let output =
        output.unwrap_or_else(|| PathBuf::from(format!("framebus-bundle-{seconds}.tar.gz")));
    // First: a minute of looking is not to end at a folder that cannot be written.
    let mut archive = create(&output)?;
    let result = fill(&mut archive, file.as_deref(), seconds);
    if result.is_err() {
        let _ = std::fs::remove_file(&output);
    }
    out::line(result?)?;
    out::line(format_args!(
        "written to {path}; look at it before you send it: tar -xzf {path}",
        path = output.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Collects, redacts, packs. Returns the table of contents.
fn fill(archive: &mut File, file: Option<&Path>, seconds: u64) -> Result<String, Failure> {
    let packaged = Packaged {
        applied: Path::new(systemd::APPLIED),
        environment: Path::new(systemd::ENVIRONMENT),
    };
    let instance = secrets::load(file, &packaged).or_fail(Kind::Bug)?;
    let redactor = Redactor::new(&instance.known).or_fail(Kind::Bug)?;
    let mut entries = collect::all(&instance);
    for entry in &mut entries {
        (entry.text, entry.redacted) = redactor.redact(&entry.text);
    }
    let (manifest, _) = redactor.redact(&manifest(&entries, &instance.known));
    let first = Entry::new("MANIFEST", "", manifest.clone());
    let all = std::iter::once(&first).chain(&entries);
    pack(archive, all, seconds).map_err(|error| Failure {
        kind: Kind::Unavailable,
        error: anyhow::Error::new(error).context("cannot write the archive"),
    })?;
    Ok(manifest)
}

/// A new file for this user alone; one that is there is nobody's to overwrite.
fn create(path: &Path) -> Result<File, Failure> {
    File::options().write(true).create_new(true).mode(0o600).open(path).map_err(|error| Failure {
        kind: Kind::Unavailable,
        error: anyhow::Error::new(error)
            .context(format!("cannot make {}; name another file with -o", path.display())),
    })
}

fn manifest(entries: &[Entry], known: &[Known]) -> String {
    let mut text = format!(
        "What a framebus bundle holds, version {}.\nSecrets are replaced by ***.\n\n",
        env!("CARGO_PKG_VERSION")
    );
    let rows = entries.iter().map(|entry| {
        let (bytes, redacted) = (entry.text.len().to_string(), entry.redacted.to_string());
        vec![entry.name.clone(), bytes, redacted, entry.what.to_owned()]
    });
    let header = ["file", ">bytes", ">redacted", "what it is"];
    text.push_str(&crate::table::table(&header, rows.collect()));
    text.push_str("\n\nSearched for in all files, as they are and encoded:\n");
    let mut origins: Vec<String> = known
        .iter()
        .map(|known| match redact::is_short(&known.value) {
            false => format!("  {}\n", known.origin),
            true => format!(
                "  {} (too short to be searched for; taken out where it stands as a password)\n",
                known.origin
            ),
        })
        .collect();
    origins.sort();
    origins.dedup();
    if origins.is_empty() {
        origins.push("  nothing: no secret is known\n".to_owned());
    }
    text.push_str(&origins.concat());
    text.push_str(
        "Besides: logins in URLs, values of keys like password, token and secret, authorization\n\
         headers, private keys.\n\n\
         Not in it: environments, memory and core files of processes, pictures, results.\n",
    );
    text
}

fn pack<'a>(
    archive: &mut File,
    entries: impl Iterator<Item = &'a Entry>,
    seconds: u64,
) -> std::io::Result<()> {
    let mut tar = tar::Builder::new(GzEncoder::new(archive, Compression::default()));
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(entry.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        let path = format!("framebus-bundle/{}", entry.name);
        tar.append_data(&mut header, path, entry.text.as_bytes())?;
    }
    tar.into_inner()?.finish()?.flush()
}
