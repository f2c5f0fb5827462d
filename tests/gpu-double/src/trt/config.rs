//! A TEST's double of TensorRT: `IBuilderConfig`, `IOptimizationProfile` and
//! `ITimingCache`.

use super::logger::{Logger, Monitor, WARNING};
use super::network::HostMemory;
use super::object::{Class, Dims, Method, bytes, make, public, text, this};
use super::plan::{Profile, Range};
use crate::table::lock;
use crate::{count, device};
use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::sync::Mutex;

/// First bytes of a serialised timing cache; TensorRT's version and a number follow.
const MAGIC: &[u8; 8] = b"GPUDTIME";

/// What a configuration says to the builder.
#[derive(Default, Clone)]
pub(super) struct Settings {
    pub(super) profiles: Vec<Profile>,
    pub(super) monitor: Option<Monitor>,
    pub(super) cache: usize,
    flags: u64,
}

pub(super) struct Config {
    pub(super) logger: Logger,
    pub(super) settings: Mutex<Settings>,
}

impl Class for Config {
    const NAME: &'static str = "IBuilderConfig";

    fn methods() -> Vec<Method> {
        vec![
            (10, clear_flag as *const () as usize),
            (11, set_flag as *const () as usize),
            (12, flag as *const () as usize),
            (25, add_profile as *const () as usize),
            (26, profiles as *const () as usize),
            (40, create_cache as *const () as usize),
            (41, set_cache as *const () as usize),
            (42, cache as *const () as usize),
            (43, set_memory as *const () as usize),
            (47, set_level as *const () as usize),
            (56, set_monitor as *const () as usize),
        ]
    }
}

fn bit(flag: i32) -> u64 {
    u32::try_from(flag).ok().and_then(|flag| 1_u64.checked_shl(flag)).unwrap_or(0)
}

extern "C" fn set_flag(config: *const c_void, flag: i32) {
    // FP16, INT8, FP8 and BF16 of 10.x.
    if [0, 1, 15, 17].contains(&flag) {
        count::violation(format!(
            "IBuilderConfig::setFlag({flag}): precision flags are not for strongly typed networks"
        ));
    }
    lock(&this::<Config>(config).settings).flags |= bit(flag);
}

extern "C" fn clear_flag(config: *const c_void, flag: i32) {
    lock(&this::<Config>(config).settings).flags &= !bit(flag);
}

extern "C" fn flag(config: *const c_void, flag: i32) -> bool {
    lock(&this::<Config>(config).settings).flags & bit(flag) != 0
}

extern "C" fn add_profile(config: *const c_void, profile: *const c_void) -> i32 {
    let config = this::<Config>(config);
    let profile = lock(&public::<OptimizationProfile>(profile).shapes).clone();
    let Some(profile) = complete(&profile) else {
        config.logger.error(
            "IBuilderConfig::addOptimizationProfile: Error Code 4: API Usage Error (Parameter \
             check failed, condition: profile->isValid(). Profile needs kMIN <= kOPT <= kMAX)",
        );
        return -1;
    };
    let mut settings = lock(&config.settings);
    settings.profiles.push(profile);
    i32::try_from(settings.profiles.len() - 1).unwrap_or(-1)
}

extern "C" fn profiles(config: *const c_void) -> i32 {
    i32::try_from(lock(&this::<Config>(config).settings).profiles.len()).unwrap_or(0)
}

extern "C" fn set_memory(config: *const c_void, pool: i32, _bytes: usize) {
    this::<Config>(config);
    if pool != 0 {
        count::violation(format!("setMemoryPoolLimit: pool {pool} is not the workspace"));
    }
}

extern "C" fn set_level(config: *const c_void, level: i32) {
    this::<Config>(config);
    if !(0..=5).contains(&level) {
        count::violation(format!("setBuilderOptimizationLevel: there is no level {level}"));
    }
}

extern "C" fn set_monitor(config: *const c_void, monitor: *const c_void) {
    let monitor = (!monitor.is_null()).then_some(Monitor(monitor as usize));
    lock(&this::<Config>(config).settings).monitor = monitor;
}

extern "C" fn create_cache(config: *const c_void, blob: *const c_void, len: usize) -> *mut c_void {
    let config = this::<Config>(config);
    let blob = bytes(blob, len);
    let version = device::get().tensorrt.to_le_bytes();
    let (mine, current) = (blob.starts_with(MAGIC), blob.get(8..12) == Some(&version[..]));
    if blob.is_empty() || (mine && current) {
        let builds = blob.get(12).copied().unwrap_or(0);
        return make(TimingCache { builds: Mutex::new(builds), foreign: false });
    }
    config.logger.log(
        WARNING,
        "Timing cache: the blob is of another version or device and is not used (TensorRT \
         verification of timing cache header failed)",
    );
    if mine {
        return make(TimingCache { builds: Mutex::new(0), foreign: true });
    }
    std::ptr::null_mut()
}

extern "C" fn set_cache(config: *const c_void, cache: *const c_void, ignore: bool) -> bool {
    let config = this::<Config>(config);
    if public::<TimingCache>(cache).foreign && !ignore {
        return false;
    }
    lock(&config.settings).cache = cache as usize;
    true
}

extern "C" fn cache(config: *const c_void) -> *const c_void {
    lock(&this::<Config>(config).settings).cache as *const c_void
}

/// `ITimingCache`.
pub(super) struct TimingCache {
    /// Engines that were built with it.
    pub(super) builds: Mutex<u8>,
    foreign: bool,
}

impl Class for TimingCache {
    const NAME: &'static str = "ITimingCache";

    fn methods() -> Vec<Method> {
        vec![(2, serialize as *const () as usize)]
    }
}

extern "C" fn serialize(cache: *const c_void) -> *mut c_void {
    let builds = *lock(&this::<TimingCache>(cache).builds);
    let version = device::get().tensorrt.to_le_bytes();
    make(HostMemory([&MAGIC[..], &version[..], &[builds][..]].concat()))
}

/// Minimum, optimum and maximum that have been set, by the input's name.
type Shapes = BTreeMap<String, [Option<Vec<i64>>; 3]>;

/// `IOptimizationProfile`, the builder's own.
#[derive(Default)]
pub(super) struct OptimizationProfile {
    shapes: Mutex<Shapes>,
}

impl Class for OptimizationProfile {
    const NAME: &'static str = "IOptimizationProfile";
    const DELETED_BY_CALLER: bool = false;

    fn methods() -> Vec<Method> {
        vec![
            (2, set_dimensions as *const () as usize),
            (3, dimensions as *const () as usize),
            (9, valid as *const () as usize),
        ]
    }
}

/// The profile when everything is set and in order.
fn complete(shapes: &Shapes) -> Option<Profile> {
    let all = shapes.iter().map(|(name, [least, best, most])| {
        let range: Range = [least.clone()?, best.clone()?, most.clone()?];
        let [least, best, most] = &range;
        let ordered = least.len() == best.len()
            && best.len() == most.len()
            && least.iter().zip(best).zip(most).all(|((a, b), c)| 0 <= *a && a <= b && b <= c);
        ordered.then_some((name.clone(), range))
    });
    all.collect::<Option<Profile>>().filter(|profile| !profile.is_empty())
}

extern "C" fn set_dimensions(
    profile: *const c_void,
    name: *const c_char,
    selector: i32,
    dims: Option<&Dims>,
) -> bool {
    let mut shapes = lock(&this::<OptimizationProfile>(profile).shapes);
    let (Some(dims), Ok(selector)) = (dims, usize::try_from(selector)) else {
        return false;
    };
    let shape = dims.shape();
    if shape.is_empty() || shape.iter().any(|size| *size < 0) {
        return false;
    }
    match shapes.entry(text(name)).or_default().get_mut(selector) {
        Some(place) => {
            *place = Some(shape);
            true
        }
        None => false,
    }
}

extern "C" fn dimensions(profile: *const c_void, name: *const c_char, selector: i32) -> Dims {
    let shapes = lock(&this::<OptimizationProfile>(profile).shapes);
    let found = usize::try_from(selector)
        .ok()
        .and_then(|selector| shapes.get(&text(name))?.get(selector)?.as_deref());
    found.map_or(Dims::NONE, Dims::new)
}

extern "C" fn valid(profile: *const c_void) -> bool {
    complete(&lock(&this::<OptimizationProfile>(profile).shapes)).is_some()
}
