//! Keeps the processes of an instance alive: one child per camera, one for inference,
//! one per sink.

use crate::children::{self, OnLine};
use crate::screen::Screen;
use crate::stats::Collector;
use crate::unit::{Around, Duty, Phase, Unit};
use framebus_config::{Config, Diff, LogFormat, Up};
use framebus_service::{Failure, Vitals, clock};
use framebus_types::{Role, State};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longer between two looks, and this process itself was stopped or starved, ns.
const SLEPT_NS: u64 = 1_000_000_000;

/// All children.
pub(crate) struct Supervisor {
    units: Vec<Unit>,
    /// Cameras that are switched off say so.
    disabled: Vec<Arc<Vitals>>,
    up: Up,
    /// `--config` and `--applied`, for every child.
    common: Vec<OsString>,
    on_line: OnLine,
    screen: Arc<Screen>,
    looked_ns: u64,
    awake_ns: u64,
}

impl Supervisor {
    /// Plans the children; starts none. They read `applied`, a copy of what `config`
    /// was made from. With `again`, an instance is already running and nobody watches:
    /// there is no failure after which nothing can go on.
    pub(crate) fn new(
        config: &Config,
        applied: &Path,
        screen: &Arc<Screen>,
        again: bool,
    ) -> Result<Self, Failure> {
        let file = std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone());
        let (json, log) = (config.log.format == LogFormat::Json, screen.clone());
        // The live table shows what is well.
        let brief = screen.is_live() && std::env::var_os("FRAMEBUS_LOG").is_none();
        let on_line: OnLine = Arc::new(move |name, line| {
            if brief && children::is_chatter(line) {
                return;
            }
            // A prefix would break lines that a machine reads.
            if json { log.log(line) } else { log.log(&format!("[{name}] {line}")) }
        });
        let mut supervisor = Self {
            units: Vec::new(),
            disabled: disabled(config),
            up: config.up,
            common: vec!["--config".into(), file.into(), "--applied".into(), applied.into()],
            on_line,
            screen: screen.clone(),
            looked_ns: clock::monotonic_ns(),
            awake_ns: 0,
        };
        // Readers first, so that they miss nothing.
        let sinks = config.enabled_sinks().map(Duty::sink);
        let captures = config.enabled_cameras().map(Duty::capture);
        for duty in sinks.chain([Duty::Infer]).chain(captures) {
            let mut unit = supervisor.unit(duty)?;
            unit.was_live = again;
            supervisor.units.push(unit);
        }
        Ok(supervisor)
    }

    fn unit(&self, duty: Duty) -> Result<Unit, Failure> {
        let mut args = self.common.clone();
        args.extend(duty.args());
        Ok(Unit::new(duty.clone(), children::find(duty.program())?, args, &self.up))
    }

    /// One record per child and switched-off camera, for the health service.
    pub(crate) fn vitals(&self) -> Vec<Arc<Vitals>> {
        let children = self.units.iter().map(|unit| unit.vitals.clone());
        children.chain(self.disabled.iter().cloned()).collect()
    }

    /// Numbers of the children that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let running = self.units.iter().filter_map(|unit| match &unit.phase {
            Phase::Running(child) | Phase::Leaving { child, .. } => Some(child.pid()),
            _ => None,
        });
        running.collect()
    }

    /// Children that there are, whatever their state.
    pub(crate) fn count(&self) -> usize {
        self.units.len()
    }

    /// Starts what should run, notices what has died or hangs. Returns whether a state
    /// has changed.
    ///
    /// # Errors
    /// Why nothing can go on.
    pub(crate) fn tick(&mut self, collector: &Collector) -> Result<bool, Failure> {
        let now_ns = clock::monotonic_ns();
        if now_ns.saturating_sub(self.looked_ns) > SLEPT_NS {
            self.awake_ns = now_ns;
        }
        self.looked_ns = now_ns;
        let around = Around {
            collector,
            screen: &self.screen,
            on_line: &self.on_line,
            up: &self.up,
            now_ns,
            awake_ns: self.awake_ns,
        };
        let mut changed = false;
        for unit in &mut self.units {
            let before = unit.vitals.state();
            unit.tick(&around)?;
            changed |= unit.vitals.state() != before;
        }
        self.units.retain(|unit| !matches!(unit.phase, Phase::Stopped));
        Ok(changed)
    }

    /// Children that `config` wants and that there are not yet; none is started.
    ///
    /// # Errors
    /// When a program is missing.
    pub(crate) fn added(&self, config: &Config) -> Result<Vec<Unit>, Failure> {
        let here = |duty: &Duty| self.units.iter().any(|unit| unit.name == duty.shown());
        duties(config).filter(|duty| !here(duty)).map(|duty| self.unit(duty)).collect()
    }

    /// Takes over a changed configuration, which the children find in the applied copy:
    /// what is concerned is started, stopped or started again, the rest goes on.
    /// Inference takes cameras and sinks over in place, sinks what they show of others. What had failed for good is
    /// tried again. `added` is what [`added`](Self::added) said of `config`.
    pub(crate) fn reload(&mut self, config: &Config, diff: &Diff, added: Vec<Unit>) {
        let is_in = |names: &[String], duty: &Duty| names.iter().any(|name| name == duty.name());
        let duties: Vec<Duty> = duties(config).collect();
        self.up = config.up;
        self.disabled = disabled(config);
        for unit in &mut self.units {
            let (gone, changed) = match unit.duty.role() {
                Role::Capture => (&diff.cameras_removed, &diff.cameras_changed),
                Role::Sink => (&diff.sinks_removed, &diff.sinks_changed),
                _ => {
                    match &unit.phase {
                        _ if diff.model || diff.scene => unit.renew(&self.up),
                        Phase::Running(child) => child.hang_up(),
                        Phase::Failed(_) => unit.renew(&self.up),
                        _ => {}
                    }
                    continue;
                }
            };
            if is_in(gone, &unit.duty) {
                unit.retire(&self.up);
                continue;
            }
            let wanted = duties.iter().find(|duty| duty.shown() == unit.name);
            let leaves = matches!(unit.phase, Phase::Leaving { again: false, .. });
            let renewed = is_in(changed, &unit.duty)
                || matches!(unit.phase, Phase::Failed(_))
                || (leaves && wanted.is_some());
            if let Some(duty) = wanted.filter(|_| renewed) {
                unit.duty = duty.clone();
                unit.renew(&self.up);
            } else if unit.duty.role() == Role::Sink
                && let Phase::Running(child) = &unit.phase
            {
                // It may show cameras and zones of others' sections.
                child.hang_up();
            }
        }
        self.units.extend(added);
    }

    /// Whether no camera will deliver anything any more.
    pub(crate) fn cameras_over(&self) -> bool {
        self.units
            .iter()
            .filter(|unit| unit.duty.role() == Role::Capture)
            .all(|unit| matches!(unit.phase, Phase::Ended | Phase::Failed(_)))
    }

    /// Whether the reader of what a sink prints has gone (`framebus up | head`).
    pub(crate) fn reader_gone(&self) -> bool {
        self.units.iter().any(|unit| {
            matches!((&unit.duty, &unit.phase), (Duty::Sink { prints: true, .. }, Phase::Ended))
        })
    }

    /// The first camera that failed for good.
    pub(crate) fn failed_camera(&self) -> Option<Failure> {
        self.units.iter().find_map(|unit| match (&unit.duty, &unit.phase) {
            (Duty::Capture { camera, .. }, Phase::Failed(kind)) => Some(Failure::message(
                *kind,
                format_args!("camera {camera} failed: {}", unit.reason),
            )),
            _ => None,
        })
    }

    /// Stops everything in the order in which frames flow, each group within
    /// `drain_s`, so that results of the last frames still reach the sinks.
    pub(crate) fn stop(&mut self, mut meanwhile: impl FnMut()) {
        let bound = Duration::from_secs_f64(self.up.drain_s);
        for role in [Role::Capture, Role::Infer, Role::Sink] {
            let units = self.units.iter_mut().filter(|unit| unit.duty.role() == role);
            let running = units.filter_map(|unit| match &mut unit.phase {
                Phase::Running(child) | Phase::Leaving { child, .. } => {
                    unit.vitals.set_state(State::Stopping, "");
                    Some((unit.name.as_str(), &mut **child))
                }
                _ => None,
            });
            for name in children::stop_all(running, bound, &mut meanwhile) {
                self.screen.log(&format!(
                    "{name} did not stop within up.drain_s = {} s and was killed",
                    self.up.drain_s
                ));
            }
        }
        self.units.clear();
    }
}

/// What sinks and captures do. Readers first, so that they miss nothing.
fn duties(config: &Config) -> impl Iterator<Item = Duty> {
    config.enabled_sinks().map(Duty::sink).chain(config.enabled_cameras().map(Duty::capture))
}

/// Records of the cameras that are switched off.
fn disabled(config: &Config) -> Vec<Arc<Vitals>> {
    let off = config.cameras.iter().filter(|camera| !camera.enabled);
    off.map(|camera| {
        let vitals = Vitals::new(Role::Capture, camera.name.as_str());
        vitals.set_state(State::Disabled, "");
        vitals
    })
    .collect()
}
