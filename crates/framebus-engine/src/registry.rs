//! Which backends there are, and trying them in order.

use crate::api::{Backend, Engine, EngineError, LoadOptions};
use crate::building::Build;
use crate::openvino::{self, OpenVino};
use crate::tensorrt::TensorRt;
use crate::triton::{self, Triton};
use framebus_model::Model;

/// Every name that a configuration may use, `auto` aside.
pub const NAMES: [&str; 3] = ["openvino", "tensorrt", "triton"];

/// What `auto` stands for, best first. A server must be named, and so must a GPU as long as
/// nobody has tried one (docs/gpu.md).
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
    vec![Box::new(OpenVino), Box::new(TensorRt), Box::new(Triton)]
}

/// A backend by its name.
///
/// # Errors
/// [`EngineError::Unavailable`] when there is none of this name.
pub fn backend(name: &str) -> Result<Box<dyn Backend>, EngineError> {
    if let Some(found) = backends().into_iter().find(|backend| backend.name() == name) {
        return Ok(found);
    }
    Err(EngineError::Unavailable {
        backend: "the backend",
        reason: format!("'{name}' is unknown; known are auto, {}", NAMES.join(", ")),
    })
}

/// Whether the backend is a server, which comes and goes by itself.
#[must_use]
pub fn is_remote(name: &str) -> bool {
    name == triton::NAME
}

/// Loads `model` with the first backend of `order` that can, and says why the ones
/// before it could not. `auto`, or an empty order, stands for all of this build. A backend
/// that must build its engine first does so only where no other one can run the model.
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
    let load = |name: &str, options| lookup(name).and_then(|found| found.load(model, options));
    let later = LoadOptions { build: Build::Later, ..options.clone() };
    for (place, name) in names.iter().enumerate() {
        let options = if place + 1 < names.len() { &later } else { options };
        match load(name, options) {
            Ok(engine) => return Ok((engine, skipped)),
            Err(reason) => skipped.push(Skipped { backend: name.clone(), reason }),
        }
    }
    // The last one has had its chance to build.
    let not_built = |skipped: &Skipped| matches!(skipped.reason, EngineError::NotBuilt { .. });
    let waiting = skipped.len().saturating_sub(1);
    if options.build == Build::Now
        && let Some(place) = skipped[..waiting].iter().position(not_built)
    {
        match load(&names[place], options) {
            Ok(engine) => {
                skipped.truncate(place);
                return Ok((engine, skipped));
            }
            Err(reason) => skipped[place].reason = reason,
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
    fn every_known_name_is_a_backend() {
        for name in NAMES {
            assert_eq!(backend(name).expect("known").name(), name);
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

    /// Has to build first.
    struct Slow;

    impl Backend for Slow {
        fn name(&self) -> &'static str {
            "tensorrt"
        }

        fn probe(&self, _: &LoadOptions) -> Result<String, EngineError> {
            Ok(String::new())
        }

        fn load(
            &self,
            model: &Model,
            options: &LoadOptions,
        ) -> Result<Box<dyn Engine>, EngineError> {
            match options.build {
                Build::Now => ScriptedBackend::new(Script::default()).load(model, options),
                Build::Later => Err(EngineError::NotBuilt {
                    backend: "tensorrt",
                    model: model.name().to_owned(),
                    shape: crate::Shape { height: 32, width: 32 },
                    reason: "test".to_owned(),
                }),
            }
        }
    }

    #[test]
    fn an_engine_is_built_at_once_only_where_nothing_else_runs_the_model() {
        let lookup = |name: &str| match name {
            "tensorrt" => Ok(Box::new(Slow) as Box<dyn Backend>),
            "openvino" => Ok(Box::new(ScriptedBackend::new(Script::default())) as Box<dyn Backend>),
            other => backend(other),
        };
        let load = |list: &[&str], build| {
            let options = LoadOptions { build, ..options() };
            try_in_order(&names(list), &model(), &options, &lookup)
        };
        let (_, skipped) = load(&["tensorrt", "openvino"], Build::Now).unwrap();
        assert!(matches!(skipped[0].reason, EngineError::NotBuilt { .. }));
        assert!(load(&["tensorrt"], Build::Now).unwrap().1.is_empty());
        assert!(load(&["tensorrt", "triton"], Build::Now).unwrap().1.is_empty());
        let (_, skipped) = load(&["triton", "tensorrt", "triton2"], Build::Now).unwrap();
        assert_eq!(skipped.len(), 1, "{skipped:?}");
        let text = load(&["tensorrt", "triton"], Build::Later).err().unwrap().to_string();
        assert!(text.contains("no engine of model tiny for 32x32 yet: test"), "{text}");
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
