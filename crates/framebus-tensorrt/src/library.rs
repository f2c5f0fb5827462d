//! The library: found, opened, its version known.

use crate::abi::{Abi, Version};
use crate::build::{self, BuildRequest, Built};
use crate::engine::Runtime;
use crate::error::Error;
use crate::open::{self, Opened, Parser};
use crate::progress::Progress;
use crate::search::{self, Candidate, Found};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Compute capabilities that TensorRT-RTX 1.x knows.
const RTX: [(u32, u32); 6] = [(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)];
/// Oldest of TensorRT 10.0 to 10.4 (Volta); its release notes have the removal in 10.5.
const VOLTA: (u32, u32) = (7, 0);
/// Oldest of TensorRT since 10.5 (Turing).
const TURING: (u32, u32) = (7, 5);

/// An open TensorRT. Clones share it; the library stays open until the process ends.
#[derive(Clone)]
pub struct Library {
    shared: Arc<Shared>,
}

struct Shared {
    opened: Opened,
    /// Opened when something is built for the first time.
    parser: Mutex<Option<Arc<Parser>>>,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("path", &self.path())
            .field("version", &format_args!("{}", self.version()))
            .field("abi", &self.abi())
            .finish()
    }
}

impl Library {
    /// Opens TensorRT: the file or folder `path`, or else the first of libnvinfer 11,
    /// 10 and TensorRT-RTX 1 that the loader or one of the usual folders has.
    ///
    /// The ONNX parser is only looked for by [`Library::build`].
    ///
    /// # Errors
    /// [`Error::NotFound`] with everything that was tried; for a `path`, also
    /// [`Error::Load`], [`Error::Symbol`] or [`Error::Version`] of the file there.
    pub fn open(path: Option<&Path>) -> Result<Self, Error> {
        let found = match path {
            Some(path) => search::given(path),
            None => search::usual(Path::new("/")),
        };
        Self::open_first(found, path.is_some())
    }

    pub(crate) fn of(opened: Opened) -> Self {
        Self { shared: Arc::new(Shared { opened, parser: Mutex::new(None) }) }
    }

    fn open_first(found: Found, given: bool) -> Result<Self, Error> {
        let mut tried = Vec::new();
        let mut refused = Vec::new();
        for candidate in found.candidates {
            let path = match &candidate {
                Candidate::Name(name) => Path::new(name),
                Candidate::File(file) => file,
            };
            match open::open(path) {
                Ok(opened) => {
                    let version = opened.version;
                    tracing::debug!(path = %opened.path.display(), %version, "TensorRT opened");
                    return Ok(Self::of(opened));
                }
                Err(error) => {
                    tried.push(why(&candidate, &error));
                    refused.push(error);
                }
            }
        }
        tried.extend(found.empty);
        // The user named this very file: its own error says more than a search.
        if given && refused.len() == 1 {
            return Err(refused.remove(0));
        }
        Err(Error::NotFound { tried })
    }

    /// Version of the library.
    #[must_use]
    pub fn version(&self) -> Version {
        self.shared.opened.version
    }

    /// Its binary interface.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.shared.opened.abi
    }

    /// The file in use.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.opened.path
    }

    /// Whether plans can be built for, and run on, a GPU of this compute capability
    /// (major, minor). TensorRT 10 and 11 are only asked for their oldest GPU: each
    /// release knows the GPUs of its time, and says itself when one is too new for it.
    ///
    /// # Errors
    /// [`Error::Capability`] names what is supported.
    pub fn check_capability(&self, capability: (u32, u32)) -> Result<(), Error> {
        check(self.version(), self.abi(), capability)
    }

    /// A runtime, which loads plans.
    ///
    /// Only where there is a working CUDA driver and device: without them TensorRT
    /// hands out objects that end the process when they are used. What is recognised
    /// as such is refused.
    ///
    /// # Errors
    /// [`Error::Refused`] with TensorRT's words.
    pub fn runtime(&self) -> Result<Runtime, Error> {
        Runtime::new(self)
    }

    /// Builds a plan from an ONNX model, types as the model has them. It takes from
    /// seconds to many minutes, on the calling thread, for the CUDA device that is
    /// current there (TensorRT-RTX needs none).
    ///
    /// `progress` is called by whichever thread of TensorRT has something to tell,
    /// never by two at once, and says whether to go on. A process builds one plan at a
    /// time: another call waits for its turn before it tells anything.
    ///
    /// # Errors
    /// [`Error::Parse`], [`Error::Cancelled`], [`Error::Argument`],
    /// [`Error::Capability`], [`Error::NoParser`], or
    /// [`Error::Refused`] with TensorRT's words.
    ///
    /// # Panics
    /// With what `progress` panicked with, after everything was released.
    pub fn build(
        &self,
        request: &BuildRequest<'_>,
        progress: &mut (dyn FnMut(&Progress) -> bool + Send),
    ) -> Result<Built, Error> {
        build::build(self, request, progress)
    }

    pub(crate) fn opened(&self) -> &Opened {
        &self.shared.opened
    }

    /// The parser beside the library, or where the loader has it.
    pub(crate) fn parser(&self) -> Result<Arc<Parser>, Error> {
        let mut slot = self.shared.parser.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parser) = &*slot {
            return Ok(Arc::clone(parser));
        }
        let name = self.abi().parser_name();
        let beside = self.path().parent().map(|folder| folder.join(name));
        let mut tried = Vec::new();
        for path in beside.filter(|file| file.is_file()).into_iter().chain([PathBuf::from(name)]) {
            match open::open_parser(&path) {
                Ok(parser) => {
                    tracing::debug!(path = %path.display(), "TensorRT's ONNX parser opened");
                    return Ok(Arc::clone(slot.insert(Arc::new(parser))));
                }
                Err(Error::Load { reason, .. }) => tried.push(reason),
                Err(error) => tried.push(error.to_string()),
            }
        }
        Err(Error::NoParser { name, library: self.path().to_owned(), reason: tried.join("; ") })
    }
}

/// `libnvinfer.so.11`, or with the reason where a file is there and of no use.
fn why(candidate: &Candidate, error: &Error) -> String {
    match (candidate, error) {
        (Candidate::Name(name), Error::Load { reason, .. })
            if reason.contains("No such file or directory") && reason.starts_with(name) =>
        {
            (*name).to_owned()
        }
        _ => format!("({error})"),
    }
}

fn check(version: Version, abi: Abi, capability: (u32, u32)) -> Result<(), Error> {
    let oldest = if abi == Abi::V10 && version.minor < 5 { VOLTA } else { TURING };
    let supported = match abi {
        Abi::Rtx1 if RTX.contains(&capability) => return Ok(()),
        Abi::Rtx1 => RTX.map(|(major, minor)| format!("{major}.{minor}")).join(", "),
        // Xavier (7.2) is newer than Volta, but no TensorRT 10 has it.
        Abi::V10 | Abi::V11 if capability == oldest || capability >= TURING => return Ok(()),
        Abi::V10 | Abi::V11 if oldest == VOLTA => "7.0, 7.5 and newer".to_owned(),
        Abi::V10 | Abi::V11 => "7.5 and newer".to_owned(),
    };
    Err(Error::Capability {
        library: format!("{} {version}", abi.product()),
        capability,
        supported,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compute_capabilities() {
        let ok = |number, capability| {
            let version = Version::from_number(number);
            check(version, Abi::of(version).unwrap(), capability).is_ok()
        };
        for capability in RTX {
            assert!(ok(10_701, capability), "{capability:?}");
        }
        // Orin, Hopper, Thor.
        for capability in [(8, 7), (9, 0), (11, 0), (7, 0)] {
            assert!(!ok(10_701, capability), "{capability:?}");
        }
        assert!(ok(100_300, (7, 0)) && ok(100_300, (8, 7)) && ok(100_300, (9, 0)));
        assert!(!ok(100_300, (7, 2)) && !ok(100_300, (6, 1)));
        assert!(!ok(100_500, (7, 0)) && ok(100_500, (7, 5)));
        assert!(!ok(110_400, (7, 0)) && ok(110_400, (7, 5)) && ok(110_400, (12, 1)));
    }

    #[test]
    fn a_missing_library_is_an_error_with_everything_that_was_tried() {
        let error = Library::open(Some(Path::new("/nowhere/libnvinfer.so"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "TensorRT not found (looked for /nowhere/libnvinfer.so, which does not exist); install \
             TensorRT 10 or 11 or give the path of its library"
        );
        let found =
            Found { candidates: vec![Candidate::Name("libnvinfer.so.none")], ..Found::default() };
        let Err(Error::NotFound { tried }) = Library::open_first(found, false) else {
            panic!("no such library")
        };
        assert_eq!(tried, ["libnvinfer.so.none"]);
    }

    #[test]
    fn a_file_of_no_use_is_named_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libnvinfer.so.10");
        std::fs::write(&file, "no library").unwrap();
        let error = Library::open(Some(folder.path())).unwrap_err();
        assert!(matches!(error, Error::Load { .. }), "{error}");
        let found = Found { candidates: vec![Candidate::File(file.clone())], ..Found::default() };
        let error = Library::open_first(found, false).unwrap_err();
        assert!(error.to_string().contains(&format!("({} cannot", file.display())), "{error}");
    }
}
