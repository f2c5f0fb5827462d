//! Zones and lines of a configuration.

use framebus_config::{ClassFilter, Config};

/// Zones and lines: camera, name, kind, classes, anchor.
pub(super) fn all(config: &Config) -> Vec<[String; 5]> {
    let classes = |classes: &[ClassFilter]| {
        let names: Vec<String> = classes.iter().map(ToString::to_string).collect();
        if names.is_empty() { "all".to_owned() } else { names.join(", ") }
    };
    let zones = config.zones.iter().map(|zone| {
        let kind = if zone.dwell_s > 0.0 {
            format!("zone of {} corners, dwell {} s", zone.points.len(), zone.dwell_s)
        } else {
            format!("zone of {} corners", zone.points.len())
        };
        let (camera, name) = (zone.camera.to_string(), zone.name.clone());
        [camera, name, kind, classes(&zone.classes), zone.anchor.to_string()]
    });
    let lines = config.lines.iter().map(|line| {
        let (camera, name) = (line.camera.to_string(), line.name.clone());
        [camera, name, "line".to_owned(), classes(&line.classes), line.anchor.to_string()]
    });
    zones.chain(lines).collect()
}

/// What is asked for and can never be: classes of zones and lines that the model is told
/// to leave out, and places where nothing is tracked.
pub(super) fn idle(config: &Config, labels: &[String]) -> Result<Vec<String>, String> {
    if !config.tracking.enabled && !all(config).is_empty() {
        let none = "warning: tracking.enabled is false; zones and lines have no effect";
        return Ok(vec![none.to_owned()]);
    }
    let kept = config.model.class_numbers(labels)?;
    let zones = config
        .zones
        .iter()
        .map(|zone| ("zone", &zone.camera, &zone.name, zone.class_numbers(labels)));
    let lines = config
        .lines
        .iter()
        .map(|line| ("line", &line.camera, &line.name, line.class_numbers(labels)));
    let mut warnings = Vec::new();
    for (section, camera, name, classes) in zones.chain(lines) {
        let missing = classes?.into_iter().find(|class| !kept.is_empty() && !kept.contains(class));
        let label = missing.and_then(|class| labels.get(class as usize));
        warnings.extend(label.map(|label| {
            format!(
                "warning: {section}[{camera}/{name}].classes has {label}, which model.classes \
                 leaves out"
            )
        }));
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn idle_of(more: &str) -> Vec<String> {
        let text = format!(
            "[model]\npath = \"x.onnx\"\nclasses = [\"person\"]\n\
             [[camera]]\nname = \"a\"\nsource = \"test:ball\"\n\
             [[zone]]\ncamera = \"a\"\nname = \"yard\"\nclasses = [\"car\"]\n\
             points = [[0, 0], [1, 0], [1, 1]]\n\
             [[line]]\ncamera = \"a\"\nname = \"door\"\nclasses = [\"person\"]\n\
             from = [0, 0]\nto = [1, 1]\n{more}"
        );
        let config = framebus_config::parse(&text, Path::new("x.toml"), &|_| None).expect("valid");
        assert_eq!(all(&config)[1], ["a", "door", "line", "person", "bottom"]);
        idle(&config, &["person".to_owned(), "car".to_owned()]).expect("the model has them")
    }

    #[test]
    fn what_cannot_happen_is_said() {
        let car = "warning: zone[a/yard].classes has car, which model.classes leaves out";
        assert_eq!(idle_of(""), [car]);
        let none = "warning: tracking.enabled is false; zones and lines have no effect";
        assert_eq!(idle_of("[tracking]\nenabled = false\n"), [none]);
    }
}
