//! The model, and which backend would run it.

use super::finding::{Finding, Level};
use crate::cmd::models::input_text;
use framebus_config::Config;
use framebus_engine::{Backend as _, Build, EngineError, LoadOptions, tensorrt};
use framebus_model::Model;
use framebus_service::{Kind, clock};

const AREA: &str = "inference";

pub(crate) fn look(config: Option<&Config>) -> Vec<Finding> {
    let options = match config {
        Some(config) => LoadOptions { contexts: 1, ..LoadOptions::of(config, clock::monotonic_ns) },
        None => LoadOptions::new(clock::monotonic_ns),
    };
    // Looking takes seconds; building an engine takes minutes.
    let options = LoadOptions { build: Build::Later, ..options };
    let order = config.map_or_else(|| framebus_engine::expand(&[]), framebus_engine::backends_of);
    let mut findings = backends(&order, &options);
    findings.extend(gpu(&order, &options));
    let Some(config) = config else { return findings };
    match Model::open(&config.model.path) {
        Err(error) => {
            // The model's own errors say what to do; of others the chain tells why.
            let text = format!("{:#}", anyhow::Error::new(error));
            findings
                .push(Finding::new(AREA, "model", Level::Problem(Kind::Config), text).next(
                    "`framebus models fetch` brings one, `framebus models` lists those here",
                ));
        }
        Ok(model) => {
            findings.push(describe(config, &model));
            let available = |finding: &Finding| finding.level == Level::Ok;
            if findings.iter().any(|finding| available(finding) && order.contains(&finding.what)) {
                findings.push(load(&order, &model, &options));
            }
        }
    }
    findings
}

/// Each backend of the order: chosen, next, or why not.
fn backends(order: &[String], options: &LoadOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut chosen = false;
    for name in order {
        let probed = framebus_engine::backend(name).and_then(|backend| backend.probe(options));
        findings.push(match probed {
            Ok(text) => {
                let place = if chosen { "; only where those before it fail" } else { "" };
                chosen = true;
                Finding::ok(AREA, name, format!("{text}{place}"))
            }
            Err(error) => Finding::new(AREA, name, Level::Warning, error.to_string()),
        });
    }
    if !chosen {
        for finding in &mut findings {
            finding.level = Level::Problem(Kind::Unavailable);
        }
        if let Some(last) = findings.last_mut() {
            let next = match order.iter().all(|name| framebus_engine::is_remote(name)) {
                true => {
                    "start the server, or correct url and model under [triton]; docs/triton.md says how, or name openvino in model.backend too"
                }
                false if order.iter().all(|name| name == tensorrt::NAME) => {
                    "install what it lacks (docs/gpu.md), or name openvino in model.backend too"
                }
                false => {
                    "install the OpenVINO runtime: `pip install --no-deps --target DIR openvino`, then set FRAMEBUS_OPENVINO_LIB=DIR/openvino/libs"
                }
            };
            last.next = Some(next.to_owned());
        }
    } else {
        for finding in findings.iter_mut().filter(|finding| finding.level == Level::Warning) {
            let next = match framebus_engine::is_remote(&finding.what) {
                true => "take it out of model.backend, or start the server and see [triton]",
                false => "take it out of model.backend, or install what it lacks",
            };
            finding.next = Some(next.to_owned());
        }
    }
    findings
}

/// Says that a GPU lies idle, or why there is none to use, where nobody asked for it.
fn gpu(order: &[String], options: &LoadOptions) -> Option<Finding> {
    if order.iter().any(|name| name == tensorrt::NAME) {
        return None;
    }
    let probed = tensorrt::TensorRt.probe(options);
    Some(match probed {
        Ok(text) => Finding::ok(AREA, "TensorRT", format!("{text}; model.backend does not name it"))
            .next("model.backend = [\"tensorrt\", \"openvino\"] uses the GPU; docs/gpu.md says what has been tried"),
        Err(error) => Finding::new(AREA, "TensorRT", Level::Skipped, error.to_string()),
    })
}

fn describe(config: &Config, model: &Model) -> Finding {
    let outputs: Vec<String> = model.outputs().iter().map(|output| output.name.clone()).collect();
    let cut = match model.cut() {
        Ok(_) => "its head can be cut off: inputs are shaped like the cameras".to_owned(),
        Err(reason) => format!("runs as exported ({reason})"),
    };
    let text = format!(
        "{}: {} classes, input {}, outputs {}; {cut}",
        config.model.path.display(),
        model.classes(),
        input_text(model),
        outputs.join(" ")
    );
    match config.check_classes(model.labels()) {
        Ok(()) => Finding::ok(AREA, "model", text),
        Err(reason) => Finding::new(AREA, "model", Level::Problem(Kind::Config), reason)
            .next("correct these classes, or leave them away for all classes"),
    }
}

/// Compiles the model and runs it on an empty picture: the only proof there is.
fn load(order: &[String], model: &Model, options: &LoadOptions) -> Finding {
    const WHAT: &str = "trial run";
    match framebus_engine::load_first(order, model, options) {
        Ok((engine, _)) => {
            let info = engine.info();
            let text = format!("{} {} at {}, {}", info.backend, info.model, info.base, info.device);
            Finding::ok(AREA, WHAT, text)
        }
        Err(error @ EngineError::NotBuilt { .. }) => Finding::new(
            AREA,
            WHAT,
            Level::Warning,
            error.to_string(),
        )
        .next(
            "`framebus models build --config FILE` builds it; inference does so at its first start",
        ),
        Err(error) => {
            Finding::new(AREA, WHAT, Level::Problem(Kind::Unavailable), error.to_string())
                .next("try another model (`framebus models fetch`), or another model.backend")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_is_not_here_is_a_problem_only_without_another() {
        let alone = backends(&["tensorrt".to_owned()], &LoadOptions::new(|| 0));
        assert_eq!(alone[0].level, Level::Problem(Kind::Unavailable));
        assert!(alone[0].next.is_some() && alone[0].text.starts_with("tensorrt is not available"));
        let server = backends(&["triton".to_owned()], &LoadOptions::new(|| 0));
        let next = server[0].next.as_deref().unwrap_or_default();
        assert!(next.starts_with("start the server"), "{next}");
    }
}
