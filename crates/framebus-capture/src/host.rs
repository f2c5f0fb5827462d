//! What a camera's process is given: its section of the configuration and the service.
//! And whether it goes on when the configuration changes (SIGHUP).

use framebus_config::{Camera, Config, Diff};
use framebus_service::{Backoff, Service, clock};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// One camera and the process that serves it.
pub(crate) struct Host<'a> {
    pub(crate) camera: &'a Camera,
    pub(crate) service: &'a Service,
    changed: AtomicBool,
}

/// What a new configuration means for one camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    GoOn,
    /// To be started anew.
    Changed,
    /// The camera is not there any more, or not enabled.
    Removed,
}

impl<'a> Host<'a> {
    pub(crate) fn new(camera: &'a Camera, service: &'a Service) -> Self {
        Self { camera, service, changed: AtomicBool::new(false) }
    }

    /// Says that the process lives, and asks it to stop where a changed configuration
    /// takes its camera away or changes it. To be called in every loop that lasts.
    pub(crate) fn progress(&self) {
        self.service.progress();
        let Some(config) = self.service.reloaded() else { return };
        let camera = self.camera.name.as_str();
        match verdict(self.service.config(), &config, camera) {
            Verdict::GoOn => {
                tracing::info!(camera, "the changed configuration changes nothing here")
            }
            Verdict::Changed => {
                self.changed.store(true, Relaxed);
                self.service.shutdown().request();
            }
            Verdict::Removed => {
                tracing::info!(camera, "no longer in the configuration, or not enabled");
                self.service.shutdown().request();
            }
        }
    }

    /// Whether it stops in order to be started with another configuration.
    pub(crate) fn changed(&self) -> bool {
        self.changed.load(Relaxed)
    }

    /// Waits before the next attempt; returns whether asked to stop.
    pub(crate) fn wait_to_retry(&self, wait: Duration) -> bool {
        let shutdown = self.service.shutdown();
        tracing::info!(camera = %self.camera.name, retry_ms = wait.as_millis() as u64, "trying again");
        let until_ns = clock::monotonic_ns() + wait.as_nanos() as u64;
        loop {
            self.progress();
            let left_ns = until_ns.saturating_sub(clock::monotonic_ns());
            if left_ns == 0 || shutdown.wait(Duration::from_nanos(left_ns.min(1_000_000_000))) {
                return shutdown.requested();
            }
        }
    }

    /// The waits between the attempts at this camera.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.camera.reconnect_min_ms, self.camera.reconnect_max_ms)
    }
}

fn verdict(old: &Config, new: &Config, camera: &str) -> Verdict {
    let diff = Diff::between(old, new);
    let named = |names: &[String]| names.iter().any(|name| name == camera);
    if named(&diff.cameras_removed) {
        return Verdict::Removed;
    }
    // Services have the sizes that they were made with: processes must agree on them.
    let limits = |config| framebus_service::domain(config).map(|domain| *domain.limits()).ok();
    if diff.everything || named(&diff.cameras_changed) || limits(old) != limits(new) {
        return Verdict::Changed;
    }
    Verdict::GoOn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_configuration_concerns_the_camera_or_not() {
        let config = |body: &str| {
            let text = format!("[model]\npath = \"x.onnx\"\n{body}");
            framebus_config::parse(&text, "x.toml".as_ref(), &|_| None).expect("valid")
        };
        let a = "[[camera]]\nname = \"a\"\nsource = \"test:ball\"\n";
        let b = "[[camera]]\nname = \"b\"\nsource = \"test:ball\"\n";
        let old = config(&format!("{a}{b}"));
        for (body, expected) in [
            (format!("{a}{b}"), Verdict::GoOn),
            (format!("{a}{b}fps = 3.0\n"), Verdict::GoOn),
            (format!("{a}{b}[up]\nrestart_min_ms = 100\n"), Verdict::GoOn),
            (a.to_owned(), Verdict::GoOn),
            (format!("{a}fps = 3.0\n{b}"), Verdict::Changed),
            (format!("{a}{b}[bus]\nresult_buffer = 9\n"), Verdict::Changed),
            (format!("{a}enabled = false\n{b}"), Verdict::Removed),
            (b.to_owned(), Verdict::Removed),
        ] {
            assert_eq!(verdict(&old, &config(&body), "a"), expected, "{body}");
        }
    }
}
