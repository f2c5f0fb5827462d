//! Inference on CPUs and Intel GPUs with OpenVINO.
//!
//! The library is opened at run time ([`OpenVino::probe`] says where it was looked
//! for); nothing of it is linked. A model whose head can be cut off, or that was
//! exported with free sizes, is reshaped to each camera's shape before it is compiled,
//! so that what runs is always static. Batches have one frame: on CPUs a bigger one
//! keeps the same cores busy for longer, which adds latency and no frames a second.

mod compile;
mod context;
mod library;
mod outputs;
mod probe;

use crate::api::{Backend, Engine, EngineError, LoadOptions};
use crate::plan;
use compile::OpenVinoEngine;
use framebus_model::{Model, OutputLayout};
use openvino::{Core, DeviceType, InferenceError, PropertyKey, SetupError};

/// Name in the configuration and in results.
pub const NAME: &str = "openvino";

/// Characters of a library message that are shown.
const MESSAGE_LENGTH: usize = 400;

/// The backend; holds nothing, the library is opened when it is first needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenVino;

impl Backend for OpenVino {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, _: &LoadOptions) -> Result<String, EngineError> {
        let (core, loaded) = start()?;
        let devices = devices(&core)?;
        let names: Vec<String> = devices.iter().map(|device| describe(&core, device)).collect();
        Ok(format!(
            "OpenVINO {} in {}; devices {}",
            loaded.version,
            loaded.path.display(),
            names.join(", ")
        ))
    }

    fn load(&self, model: &Model, options: &LoadOptions) -> Result<Box<dyn Engine>, EngineError> {
        let plans = plan::plans(NAME, model, options)?;
        let (core, loaded) = start()?;
        let devices = candidates(&devices(&core)?);
        drop(core);
        // The last try's error is the answer; earlier ones are only logged.
        let mut tries = plans
            .into_iter()
            .flat_map(|plan| devices.iter().map(move |device| (plan.clone(), device)))
            .peekable();
        while let Some((plan, device)) = tries.next() {
            let cut = plan.model.layout() == OutputLayout::Heads;
            match OpenVinoEngine::load(plan, options, device, &loaded) {
                Ok(engine) => return Ok(Box::new(engine)),
                Err(error) if tries.peek().is_none() => return Err(error),
                Err(error) => {
                    tracing::warn!(
                        device = device.as_ref(),
                        cut,
                        reason = %error,
                        "OpenVINO device refused the model, trying the next"
                    );
                }
            }
        }
        Err(EngineError::Unavailable { backend: NAME, reason: "it has no device".to_owned() })
    }
}

fn start() -> Result<(Core, probe::Loaded), EngineError> {
    let unavailable = |reason| EngineError::Unavailable { backend: NAME, reason };
    let loaded = probe::load().map_err(unavailable)?;
    let core = Core::new().map_err(|error| {
        let reason = match &error {
            SetupError::Inference(error) => message(error),
            SetupError::Loading(error) => error.to_string(),
        };
        unavailable(format!(
            "{} was opened but does not start ({reason}); install it again with `make setup`",
            loaded.path.display()
        ))
    })?;
    Ok((core, loaded))
}

fn devices(core: &Core) -> Result<Vec<DeviceType<'static>>, EngineError> {
    let devices = core.available_devices().map_err(|error| EngineError::Unavailable {
        backend: NAME,
        reason: format!("it lists no devices ({})", message(&error)),
    })?;
    Ok(devices.iter().map(DeviceType::to_owned).collect())
}

/// The first Intel GPU, then the CPU.
fn candidates(devices: &[DeviceType<'static>]) -> Vec<DeviceType<'static>> {
    let gpu = devices.iter().find(|device| device.as_ref().starts_with("GPU"));
    gpu.map(DeviceType::to_owned).into_iter().chain([DeviceType::CPU]).collect()
}

/// `CPU: Intel(R) Xeon(R) …`.
fn describe(core: &Core, device: &DeviceType<'_>) -> String {
    match core.get_property(device, &PropertyKey::DeviceFullName) {
        Ok(name) => format!("{}: {}", device.as_ref(), name.trim()),
        Err(_) => device.as_ref().to_owned(),
    }
}

/// The library's message on one line of bounded length.
fn message(error: &InferenceError) -> String {
    let text = error.message.clone().unwrap_or_else(|| error.kind.to_string());
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(MESSAGE_LENGTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openvino::InferenceErrorKind;

    #[test]
    fn an_intel_gpu_is_preferred_and_the_cpu_stays_as_the_next() {
        let device = |name: &str| DeviceType::from(name).to_owned();
        let list = [device("CPU"), device("GPU.0"), device("GPU.1"), device("NPU")];
        assert_eq!(candidates(&list), [device("GPU.0"), DeviceType::CPU]);
        assert_eq!(candidates(&[device("CPU"), device("NPU")]), [DeviceType::CPU]);
    }

    #[test]
    fn messages_are_one_bounded_line() {
        let error = InferenceError {
            kind: InferenceErrorKind::GeneralError,
            message: Some(format!("Exception from x:\n  Check failed\n{}", "é".repeat(1000))),
        };
        let text = message(&error);
        assert!(text.starts_with("Exception from x: Check failed é"), "{text}");
        assert_eq!(text.chars().count(), MESSAGE_LENGTH + 1);
    }
}
