//! The model, and which backend would run it.

use super::finding::{Finding, Level};
use super::machine::libraries;
use crate::cmd::models::input_text;
use framebus_config::Config;
use framebus_engine::LoadOptions;
use framebus_model::Model;
use framebus_service::{Kind, clock};

const AREA: &str = "inference";

pub(crate) fn look(config: Option<&Config>) -> Vec<Finding> {
    let options = match config {
        Some(config) => LoadOptions { contexts: 1, ..LoadOptions::of(config, clock::monotonic_ns) },
        None => LoadOptions::new(clock::monotonic_ns),
    };
    let order = config.map_or_else(|| framebus_engine::expand(&[]), framebus_engine::backends_of);
    let mut findings = backends(&order, &options);
    findings.push(tensorrt());
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

fn tensorrt() -> Finding {
    let text = match libraries("libnvinfer.so").first() {
        Some(path) => format!("{} is here; it is not part of this build yet", path.display()),
        None => {
            "no libnvinfer.so where the loader looks; it is not part of this build yet".to_owned()
        }
    };
    Finding::new(AREA, "TensorRT", Level::Skipped, text)
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
    match config.model.class_numbers(model.labels()) {
        Ok(_) => Finding::ok(AREA, "model", text),
        Err(reason) => Finding::new(AREA, "model", Level::Problem(Kind::Config), reason)
            .next("correct model.classes, or leave it away for all classes"),
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
        assert!(alone[0].next.is_some() && alone[0].text.contains("not part of this build"));
        let server = backends(&["triton".to_owned()], &LoadOptions::new(|| 0));
        let next = server[0].next.as_deref().unwrap_or_default();
        assert!(next.starts_with("start the server"), "{next}");
    }
}
