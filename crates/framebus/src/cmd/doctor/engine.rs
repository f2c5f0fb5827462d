//! The model, and which backend would run it.

use super::finding::{Finding, Level};
use super::machine::libraries;
use crate::cmd::models::input_text;
use framebus_config::{Backends, Config, InputShape};
use framebus_engine::{LoadOptions, Shape};
use framebus_model::Model;
use framebus_service::{Kind, clock};

const AREA: &str = "inference";

pub(crate) fn look(config: Option<&Config>) -> Vec<Finding> {
    let order: Vec<String> = match config.map(|config| &config.model.backend) {
        None | Some(Backends::Auto) => {
            framebus_engine::backends().iter().map(|backend| backend.name().to_owned()).collect()
        }
        Some(Backends::Ordered(names)) => names.iter().map(ToString::to_string).collect(),
    };
    let mut findings = backends(&order);
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
                findings.push(load(config, &order, &model));
            }
        }
    }
    findings
}

/// Each backend of the order: chosen, next, or why not.
fn backends(order: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut chosen = false;
    for name in order {
        let probed = framebus_engine::backend(name).and_then(|backend| backend.probe());
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
            last.next = Some(
                "install the OpenVINO runtime: `pip install --no-deps --target DIR openvino`, then set FRAMEBUS_OPENVINO_LIB=DIR/openvino/libs".to_owned(),
            );
        }
    } else {
        for finding in findings.iter_mut().filter(|finding| finding.level == Level::Warning) {
            finding.next =
                Some("take it out of model.backend, or install what it lacks".to_owned());
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
fn load(config: &Config, order: &[String], model: &Model) -> Finding {
    const WHAT: &str = "trial run";
    let options = LoadOptions {
        input: match config.model.input {
            InputShape::Auto => framebus_engine::InputShape::Auto,
            InputShape::Fixed { height, width } => {
                framebus_engine::InputShape::Fixed(Shape { height, width })
            }
        },
        contexts: 1,
        threads: config.model.threads,
        cache: framebus_model::cache_folder(),
        ..LoadOptions::new(clock::monotonic_ns)
    };
    match framebus_engine::load_first(order, model, &options) {
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
        let alone = backends(&["triton".to_owned()]);
        assert_eq!(alone[0].level, Level::Problem(Kind::Unavailable));
        assert!(alone[0].next.is_some() && alone[0].text.contains("not part of this build"));
    }
}
