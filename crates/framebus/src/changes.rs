//! What a changed configuration does to a running instance, and how that is said.

use framebus_config::{Config, Diff};
use framebus_service::{Failure, Kind};
use serde_json::{Value, json};

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) diff: Diff,
    /// Every process starts anew.
    pub(crate) everything: bool,
    /// Services are made anew, in other sizes.
    pub(crate) sizes: bool,
}

impl Changes {
    /// Compares; what needs a new supervisor is refused.
    pub(crate) fn between(old: &Config, new: &Config) -> Result<Self, Failure> {
        for (key, same) in
            [("instance", old.instance == new.instance), ("bus.root", old.bus.root == new.bus.root)]
        {
            if !same {
                return Err(Failure::message(
                    Kind::Config,
                    format_args!(
                        "{}: {key} cannot change while the instance runs: stop `framebus up` and start it again",
                        new.file.display()
                    ),
                ));
            }
        }
        let diff = Diff::between(old, new);
        let limits = |config| framebus_service::domain(config).map(|domain| *domain.limits());
        let sizes = limits(old)? != limits(new)?;
        Ok(Self { everything: diff.everything || sizes, diff, sizes })
    }

    /// One line for each thing that is done.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Diff { model, scene, up, .. } = self.diff;
        if self.everything {
            return vec![
                "all processes start anew: [bus], [log] or the sizes of the bus changed".to_owned(),
            ];
        }
        let mut lines = Vec::new();
        let mut name = |what: &str, names: &[String], done: &str| {
            lines.extend(names.iter().map(|name| format!("{what} {name}: {done}")));
        };
        let diff = &self.diff;
        name("camera", &diff.cameras_added, "started");
        name("camera", &diff.cameras_changed, "started anew");
        name("camera", &diff.cameras_removed, "stopped");
        name("sink", &diff.sinks_added, "started");
        name("sink", &diff.sinks_changed, "started anew");
        name("sink", &diff.sinks_removed, "stopped");
        if model || scene {
            lines.push("inference: started anew".to_owned());
        }
        if up {
            lines.push("[up]: taken over".to_owned());
        }
        if lines.is_empty() {
            lines.push("nothing has changed".to_owned());
        }
        lines
    }

    /// The answer of `framebus reload`.
    pub(crate) fn to_json(&self, config: &Config) -> Value {
        let diff = &self.diff;
        let names = |added: &[String], changed: &[String], removed: &[String]| json!({"added": added, "changed": changed, "removed": removed});
        json!({
            "ok": true,
            "code": 0,
            "file": config.file.display().to_string(),
            "done": self.lines(),
            "everything": self.everything,
            "inference": self.everything || diff.model || diff.scene,
            "cameras": names(&diff.cameras_added, &diff.cameras_changed, &diff.cameras_removed),
            "sinks": names(&diff.sinks_added, &diff.sinks_changed, &diff.sinks_removed),
        })
    }
}

/// The answer when nothing was done.
pub(crate) fn refusal(failure: &Failure) -> Value {
    json!({"ok": false, "code": failure.kind.code(), "error": failure.to_string()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(body: &str) -> Config {
        let text = format!("{body}\n[model]\npath = \"x.onnx\"\n{CAMERAS}");
        framebus_config::parse(&text, "x.toml".as_ref(), &|_| None).expect("valid")
    }

    const CAMERAS: &str = "[[camera]]\nname = \"a\"\nsource = \"file:x.mp4\"\ndelivery = \"every-frame\"\n[[camera]]\nname = \"b\"\nsource = \"test:ball\"\n";

    #[test]
    fn what_needs_a_new_supervisor_is_refused_and_named() {
        let old = config("");
        for (body, key) in
            [("instance = \"other\"", "instance"), ("[bus]\nroot = \"/tmp/x\"", "bus.root")]
        {
            let refused = Changes::between(&old, &config(body)).expect_err(key);
            assert_eq!(refused.kind, Kind::Config);
            assert!(refused.to_string().contains(&format!("{key} cannot change")), "{refused}");
        }
    }

    #[test]
    fn sizes_of_the_bus_concern_everybody() {
        let old = config("");
        let without_live = {
            let mut config = old.clone();
            config.cameras.pop();
            config
        };
        // Only every-frame cameras are left: results now wait for their readers.
        let changes = Changes::between(&old, &without_live).expect("possible");
        assert!(changes.everything && changes.sizes && !changes.diff.everything);
        assert!(changes.lines()[0].starts_with("all processes"));
        let same = Changes::between(&old, &old).expect("possible");
        assert_eq!(same.lines(), ["nothing has changed"]);
        let up = Changes::between(&old, &config("[up]\nhang_s = 5")).expect("possible");
        assert!(!up.everything);
        assert_eq!(up.lines(), ["[up]: taken over"]);
    }
}
