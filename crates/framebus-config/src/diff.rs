//! What a changed configuration means for a running instance.

use crate::model::Config;

/// Differences between two valid configurations, by the process that they concern.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    /// Something that every process depends on changed: `instance`, `[bus]`, `[log]`, or
    /// the sizes of the bus. All processes start anew.
    pub everything: bool,
    /// `[model]`, `[triton]` or `[tensorrt]` changed: inference starts anew.
    pub model: bool,
    /// `[tracking]`, a `[[zone]]` or a `[[line]]` changed: inference starts anew.
    pub scene: bool,
    /// `[up]` changed: the supervisor takes it over in place.
    pub up: bool,
    /// Names of enabled cameras that were not there, or not enabled.
    pub cameras_added: Vec<String>,
    /// Names of cameras that are not there any more, or not enabled.
    pub cameras_removed: Vec<String>,
    /// Names of cameras whose section changed, or whose compressed video is wanted now and
    /// was not before, or the other way round.
    pub cameras_changed: Vec<String>,
    /// The same for sinks.
    pub sinks_added: Vec<String>,
    /// See [`sinks_added`](Self::sinks_added).
    pub sinks_removed: Vec<String>,
    /// See [`sinks_added`](Self::sinks_added).
    pub sinks_changed: Vec<String>,
}

impl Diff {
    /// Compares the configuration that runs with the one that shall.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let (cameras_added, cameras_removed, mut cameras_changed) =
            named(old.enabled_cameras(), new.enabled_cameras(), |camera| camera.name.as_str());
        for camera in new.enabled_cameras().map(|camera| camera.name.as_str()) {
            let is_listed = cameras_added.iter().chain(&cameras_changed).any(|name| name == camera);
            if !is_listed && old.wants_packets(camera) != new.wants_packets(camera) {
                cameras_changed.push(camera.to_owned());
            }
        }
        let (sinks_added, sinks_removed, sinks_changed) =
            named(old.enabled_sinks(), new.enabled_sinks(), |sink| sink.name.as_str());
        Self {
            everything: old.instance != new.instance || old.bus != new.bus || old.log != new.log,
            model: old.model != new.model
                || old.triton != new.triton
                || old.tensorrt != new.tensorrt,
            scene: old.tracking != new.tracking || old.zones != new.zones || old.lines != new.lines,
            up: old.up != new.up,
            cameras_added,
            cameras_removed,
            cameras_changed,
            sinks_added,
            sinks_removed,
            sinks_changed,
        }
    }

    /// Whether nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

type Names = Vec<String>;

fn named<'a, T: PartialEq + 'a>(
    old: impl Iterator<Item = &'a T>,
    new: impl Iterator<Item = &'a T>,
    name: impl Fn(&T) -> &str,
) -> (Names, Names, Names) {
    let (old, new): (Vec<&T>, Vec<&T>) = (old.collect(), new.collect());
    let owned = |item: &&T| name(item).to_owned();
    let in_list = |list: &[&T], item: &T| list.iter().any(|other| name(other) == name(item));
    let added = new.iter().filter(|item| !in_list(&old, item)).map(owned).collect();
    let removed = old.iter().filter(|item| !in_list(&new, item)).map(owned).collect();
    let differs = |item: &&&T| old.iter().any(|other| name(other) == name(item) && other != *item);
    (added, removed, new.iter().filter(differs).map(owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(body: &str) -> Config {
        let text = format!("[model]\npath = \"x.onnx\"\n{body}");
        crate::parse(&text, "x.toml".as_ref(), &|_| None).expect("valid")
    }

    #[test]
    fn a_diff_names_who_is_concerned() {
        let a = "[[camera]]\nname = \"a\"\nsource = \"test:ball\"\n";
        let b = "[[camera]]\nname = \"b\"\nsource = \"test:ball\"\n";
        let old = config(&format!("{a}{b}"));
        assert!(Diff::between(&old, &old).is_empty());
        let changed = Diff::between(&old, &config(&format!("{a}fps = 3.0\n{b}")));
        assert_eq!(changed, Diff { cameras_changed: vec!["a".into()], ..Diff::default() });
        let fewer = Diff::between(&old, &config(&format!("{a}{b}enabled = false\n")));
        assert_eq!(fewer, Diff { cameras_removed: vec!["b".into()], ..Diff::default() });
        let more = Diff::between(&config(b), &old);
        assert_eq!(more, Diff { cameras_added: vec!["a".into()], ..Diff::default() });
        let sink = "[[sink]]\nname = \"s\"\nkind = \"jsonl\"\n";
        let with_sink = config(&format!("{a}{b}{sink}"));
        assert_eq!(Diff::between(&old, &with_sink).sinks_added, ["s"]);
        let clips = "[[sink]]\nname = \"c\"\nkind = \"clips\"\nfolder = \"x\"\ncameras = [\"b\"]\n";
        let with_clips = Diff::between(&old, &config(&format!("{a}{b}{clips}")));
        assert_eq!(
            (with_clips.sinks_added, with_clips.cameras_changed),
            (vec!["c".into()], vec!["b".into()])
        );
        let bus = Diff::between(&old, &config(&format!("{a}{b}[bus]\nresult_buffer = 9\n")));
        assert!(bus.everything && bus.cameras_changed.is_empty());
        let server = config(&format!("{a}{b}[triton]\nmodel = \"n\"\n"));
        assert_eq!(Diff::between(&old, &server), Diff { model: true, ..Diff::default() });
    }
}
