//! A TEST's double of TensorRT: `IBuilder`. Building checks what TensorRT checks,
//! reports progress as TensorRT does, and writes a plan.
#![allow(unsafe_code)] // A function exported under TensorRT's name; nothing unsafe in it.

use super::config::{Config, OptimizationProfile, Settings, TimingCache};
use super::logger::{Logger, Monitor};
use super::network::{Content, HostMemory, NetworkDefinition};
use super::object::{Class, Method, make, public, this, written};
use super::openvino::{self, Shapes};
use super::plan::{self, Plan};
use super::runtime::without_cuda;
use crate::table::lock;
use crate::{context, count, device, fault, time};
use std::ffi::{CStr, c_void};
use std::sync::{Arc, Mutex};

/// `NetworkDefinitionCreationFlag::kSTRONGLY_TYPED` of 10.x.
const STRONGLY_TYPED: u32 = 1 << 1;

/// The whole build and its phases with their steps.
const BUILD: &CStr = c"Building Engine";
const PHASES: [(&CStr, i32); 3] =
    [(c"Graph Optimization", 10), (c"Tactic Selection", 80), (c"Engine Serialization", 10)];

struct Builder {
    logger: Logger,
}

#[unsafe(no_mangle)]
extern "C" fn createInferBuilder_INTERNAL(logger: *const c_void, _version: i32) -> *mut c_void {
    let Some(logger) = Logger::new(logger) else {
        return std::ptr::null_mut();
    };
    if !context::started() {
        return without_cuda(logger, "createInferBuilder");
    }
    make(Builder { logger })
}

impl Class for Builder {
    const NAME: &'static str = "IBuilder";

    fn methods() -> Vec<Method> {
        vec![
            (7, create_config as *const () as usize),
            (8, create_network as *const () as usize),
            (9, create_profile as *const () as usize),
            (14, build as *const () as usize),
        ]
    }
}

extern "C" fn create_config(builder: *const c_void) -> *mut c_void {
    let logger = this::<Builder>(builder).logger;
    make(Config { logger, settings: Mutex::default() })
}

extern "C" fn create_network(builder: *const c_void, flags: u32) -> *mut c_void {
    this::<Builder>(builder);
    if flags & STRONGLY_TYPED == 0 {
        count::violation(format!("createNetworkV2({flags}): not strongly typed"));
    }
    make(NetworkDefinition::default())
}

extern "C" fn create_profile(builder: *const c_void) -> *mut c_void {
    this::<Builder>(builder);
    make(OptimizationProfile::default())
}

extern "C" fn build(
    builder: *const c_void,
    network: *const c_void,
    config: *const c_void,
) -> *mut c_void {
    let logger = this::<Builder>(builder).logger;
    let content = lock(&public::<NetworkDefinition>(network).content).clone();
    let settings = lock(&public::<Config>(config).settings).clone();
    match built(content, &settings) {
        Ok(bytes) => {
            if settings.cache != 0 {
                let mut builds =
                    lock(&public::<TimingCache>(settings.cache as *const c_void).builds);
                *builds = builds.saturating_add(1);
            }
            count::BUILDS.add(1);
            make(HostMemory(bytes))
        }
        Err(why) => {
            logger.error(&format!("IBuilder::buildSerializedNetwork: {why}"));
            std::ptr::null_mut()
        }
    }
}

fn built(content: Option<Content>, settings: &Settings) -> Result<Vec<u8>, String> {
    fault::alive().map_err(|code| format!("Error Code 1: Cuda Runtime (error {code})"))?;
    if fault::now().oom {
        return Err("Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)".to_owned());
    }
    let content =
        content.ok_or("Error Code 4: Internal Error (Network must have at least one output)")?;
    let shapes = checked(&content, settings)?;
    openvino::check(&content.onnx, &shapes)
        .map_err(|why| format!("Error Code 4: Internal Error ({why})"))?;
    // TensorRT calls a monitor from threads of its own.
    let monitor = settings.monitor;
    let worked = std::thread::spawn(move || work(monitor)).join();
    if !worked.unwrap_or(false) {
        return Err("Error Code 10: Internal Error (Build was cancelled by the progress monitor)"
            .to_owned());
    }
    if fault::now().build_fail {
        return Err("Error Code 10: Internal Error (Could not find any implementation for node \
                    {ForeignNode[/model.0/conv/Conv]}.)"
            .to_owned());
    }
    let profiles = settings.profiles.clone();
    let onnx = Arc::unwrap_or_clone(content.onnx);
    Ok(plan::write(&Plan { profiles, onnx }, device::get()))
}

/// Each input's best shape, when the profiles fit the network.
fn checked(content: &Content, settings: &Settings) -> Result<Shapes, String> {
    let usage = |why: String| Err(format!("Error Code 4: API Usage Error ({why})"));
    let inputs = || content.graph.tensors.iter().filter(|tensor| tensor.input);
    let free = |shape: &[i64]| shape.contains(&-1);
    if settings.profiles.is_empty() && inputs().any(|tensor| free(&tensor.shape)) {
        return usage(
            "Network has dynamic or shape inputs, but no optimization profile has been defined."
                .to_owned(),
        );
    }
    for (i, profile) in settings.profiles.iter().enumerate() {
        for (name, range) in profile {
            let Some(tensor) = inputs().find(|tensor| tensor.name == *name) else {
                return usage(format!("{name} of optimization profile {i} is no input"));
            };
            for shape in range {
                let fits = shape.len() == tensor.shape.len()
                    && shape.iter().zip(&tensor.shape).all(|(size, own)| *own == -1 || size == own);
                if !fits {
                    return usage(format!(
                        "{name}: dimensions {} of optimization profile {i} do not fit network's {}",
                        written(shape),
                        written(&tensor.shape)
                    ));
                }
            }
        }
        let missing = |name: &String| !profile.iter().any(|(known, _)| known == name);
        if let Some(tensor) = inputs().find(|t| free(&t.shape) && missing(&t.name)) {
            return usage(format!(
                "{}: dynamic input is missing dimensions in profile {i}.",
                tensor.name
            ));
        }
    }
    let best = |name: &String| {
        let profile = settings.profiles.first()?;
        profile.iter().find(|(known, _)| known == name).map(|(_, [_, best, _])| best.clone())
    };
    Ok(inputs()
        .map(|tensor| {
            (tensor.name.clone(), best(&tensor.name).unwrap_or_else(|| tensor.shape.clone()))
        })
        .collect())
}

/// Takes the time that a fault wants; false: the monitor has cancelled the build.
fn work(monitor: Option<Monitor>) -> bool {
    let steps = u32::try_from(PHASES.iter().map(|(_, steps)| steps).sum::<i32>()).unwrap_or(1);
    if let Some(monitor) = monitor {
        monitor.start(BUILD, None, i32::try_from(PHASES.len()).unwrap_or(1));
    }
    let mut go_on = true;
    for (number, (phase, phase_steps)) in (0..).zip(PHASES) {
        if let Some(monitor) = monitor {
            monitor.start(phase, Some(BUILD), phase_steps);
        }
        for step in 0..phase_steps {
            time::pause(fault::now().build_slow / steps);
            go_on = monitor.is_none_or(|monitor| monitor.step(phase, step));
            if !go_on {
                break;
            }
        }
        if let Some(monitor) = monitor {
            monitor.finish(phase);
        }
        go_on = go_on && monitor.is_none_or(|monitor| monitor.step(BUILD, number));
        if !go_on {
            break;
        }
    }
    if let Some(monitor) = monitor {
        monitor.finish(BUILD);
    }
    go_on
}
