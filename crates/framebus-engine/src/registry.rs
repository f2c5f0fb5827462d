//! Which backends there are, and trying them in order.

use crate::api::{Backend, Engine, EngineError, LoadOptions};
use crate::openvino::{self, OpenVino};
use crate::triton::{self, Triton};
use framebus_model::Model;

/// Every name that a configuration may use, `auto` aside.
pub const NAMES: [&str; 3] = ["openvino", "tensorrt", "triton"];

/// What `auto` stands for, best first. A server must be named.
const AUTO: [&str; 1] = [openvino::NAME];

/// A backend that was not chosen.
#[derive(Debug)]
pub struct Skipped {
    /// Its name.
    pub backend: String,
    /// Why it was not chosen.
    pub reason: EngineError,
}

/// The backends of this build.
#[must_use]
pub fn backends() -> Vec<Box<dyn Backend>> {
    vec![Box::new(OpenVino), Box::new(Triton)]
}

/// A backend by its name.
///
/// # Errors
/// [`EngineError::Unavailable`] when this build does not have it.
pub fn backend(name: &str) -> Result<Box<dyn Backend>, EngineError> {
    if let Some(found) = backends().into_iter().find(|backend| backend.name() == name) {
        return Ok(found);
    }
    let reason = |text: &str| text.to_owned();
    Err(match NAMES.into_iter().find(|known| *known == name) {
        Some(known) => EngineError::Unavailable {
            backend: known,
            reason: reason("it is not part of this build yet; use `openvino` or `auto`"),
        },
        None => EngineError::Unavailable {
            backend: "the backend",
            reason: format!("'{name}' is unknown; known are auto, {}", NAMES.join(", ")),
        },
    })
}

/// Whether the backend is a server, which comes and goes by itself.
#[must_use]
pub fn is_remote(name: &str) -> bool {
    name == triton::NAME
}

/// Loads `model` with the first backend of `order` that can, and says why the ones
/// before it could not. `auto`, or an empty order, stands for all of this build.
///
/// # Errors
/// The only backend's own error, or [`EngineError::NoBackend`] with every reason.
pub fn load_first(
    order: &[String],
    model: &Model,
    options: &LoadOptions,
) -> Result<(Box<dyn Engine>, Vec<Skipped>), EngineError> {
    try_in_order(&expand(order), model, options, &backend)
}

/// `order` with each backend once and `auto`, or nothing, replaced by those of this build.
#[must_use]
pub fn expand(order: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let auto = ["auto".to_owned()];
    for name in if order.is_empty() { &auto } else { order } {
        let expanded: Vec<&str> = if name == "auto" { AUTO.to_vec() } else { vec![name.as_str()] };
        for name in expanded {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

type Lookup<'a> = &'a dyn Fn(&str) -> Result<Box<dyn Backend>, EngineError>;

fn try_in_order(
    names: &[String],
    model: &Model,
    options: &LoadOptions,
    lookup: Lookup<'_>,
) -> Result<(Box<dyn Engine>, Vec<Skipped>), EngineError> {
    let mut skipped: Vec<Skipped> = Vec::new();
    for name in names {
        match lookup(name).and_then(|backend| backend.load(model, options)) {
            Ok(engine) => return Ok((engine, skipped)),
            Err(reason) => skipped.push(Skipped { backend: name.clone(), reason }),
        }
    }
    if skipped.len() == 1
        && let Some(only) = skipped.pop()
    {
        return Err(only.reason);
    }
    let reasons: Vec<String> = skipped.iter().map(|skipped| skipped.reason.to_string()).collect();
    Err(EngineError::NoBackend { model: model.name().to_owned(), reasons: reasons.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Script, ScriptedBackend};
    use framebus_model::testing::tiny_detector;
    use std::path::Path;

    fn options() -> LoadOptions {
        LoadOptions { contexts: 1, ..LoadOptions::new(|| 0) }
    }

    fn model() -> Model {
        Model::from_bytes(Path::new("tiny.onnx"), tiny_detector(1, Some((32, 32)))).unwrap()
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn every_known_name_is_a_backend_or_says_that_it_comes_later() {
        assert!(["openvino", "triton"].iter().all(|name| backend(name).is_ok()));
        for name in NAMES {
            match backend(name) {
                Ok(found) => assert_eq!(found.name(), name),
                Err(error) => assert_eq!(
                    error.to_string(),
                    format!(
                        "{name} is not available: it is not part of this build yet; use `openvino` \
                         or `auto`"
                    )
                ),
            }
        }
        let text = backend("cuda").err().unwrap().to_string();
        assert!(text.contains("'cuda' is unknown; known are auto, openvino"), "{text}");
    }

    #[test]
    fn auto_expands_in_place_and_names_count_once() {
        assert_eq!(expand(&[]), ["openvino"]);
        assert_eq!(expand(&names(&["triton", "auto", "openvino"])), ["triton", "openvino"]);
    }

    #[test]
    fn the_first_that_loads_is_taken_and_the_reasons_are_kept() {
        let lookup = |name: &str| match name {
            "openvino" => Ok(Box::new(ScriptedBackend::new(Script::default())) as Box<dyn Backend>),
            other => backend(other),
        };
        let order = names(&["tensorrt", "openvino", "triton"]);
        let (_, skipped) = try_in_order(&order, &model(), &options(), &lookup).unwrap();
        assert_eq!(skipped.len(), 1);
        assert_eq!(skipped[0].backend, "tensorrt");
    }

    #[test]
    fn when_none_loads_every_reason_is_told() {
        let order = names(&["tensorrt", "triton"]);
        let text = load_first(&order, &model(), &options()).err().unwrap().to_string();
        assert!(text.starts_with("no backend can run model tiny: tensorrt is not"), "{text}");
        assert!(text.contains("; triton is not available: no server is configured"), "{text}");
        let only = load_first(&names(&["triton"]), &model(), &options()).err().unwrap();
        assert!(matches!(only, EngineError::Unavailable { backend: "triton", .. }));
    }
}
