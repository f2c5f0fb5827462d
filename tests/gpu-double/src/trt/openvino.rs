//! A TEST's double of TensorRT: OpenVINO, which runs the networks.
//!
//! The library is looked for where `FRAMEBUS_OPENVINO_LIB` says, or in the folders
//! `.framebus/openvino/openvino/libs` above this library, above the source it was built
//! from, and above the current folder.

use super::onnx::Tensor;
use crate::table::lock;
use openvino::{CompiledModel, Core, DeviceType, InferRequest, PartialShape, RwPropertyKey};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

const BELOW: &str = ".framebus/openvino/openvino/libs";

/// Shapes by the names of the inputs.
pub(super) type Shapes = Vec<(String, Vec<i64>)>;

/// `libopenvino_c.so…` in a folder.
fn inside(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix("libopenvino_c.so"))
                .is_some_and(|rest| rest.chars().all(|c| c == '.' || c.is_ascii_digit()))
        })
        .max()
}

/// The file that this code was loaded from.
fn own_file() -> Option<PathBuf> {
    let here = own_file as *const () as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        range.is_some_and(|(first, last)| {
            let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            (number(first)..number(last)).contains(&here)
        })
    })?;
    line.find('/').map(|at| PathBuf::from(&line[at..]))
}

fn library() -> Result<PathBuf, String> {
    if let Some(given) = std::env::var_os("FRAMEBUS_OPENVINO_LIB") {
        let given = PathBuf::from(given);
        let below = [given.clone(), given.join("openvino/libs"), given.join("libs")];
        let found = if given.is_dir() {
            below.iter().find_map(|folder| inside(folder))
        } else {
            Some(given.clone())
        };
        return found.ok_or_else(|| format!("no libopenvino_c.so in {}", given.display()));
    }
    let starts =
        [own_file(), Some(PathBuf::from(env!("CARGO_MANIFEST_DIR"))), std::env::current_dir().ok()];
    starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .find_map(|folder| inside(&folder.join(BELOW)))
        .ok_or_else(|| {
            format!(
                "the GPU double runs networks in OpenVINO and found none below a folder \
                 {BELOW}; run `make setup` or set FRAMEBUS_OPENVINO_LIB"
            )
        })
}

fn core() -> Result<&'static Mutex<Core>, String> {
    static CORE: OnceLock<Result<Mutex<Core>, String>> = OnceLock::new();
    let start = || {
        let path = library()?;
        openvino_sys::library::load_from(path)?;
        let mut core = Core::new().map_err(|error| error.to_string())?;
        // The same numbers on every machine.
        let properties = [
            (RwPropertyKey::HintInferencePrecision, "f32"),
            (RwPropertyKey::HintPerformanceMode, "LATENCY"),
            (RwPropertyKey::HintEnableCpuPinning, "NO"),
        ];
        for (key, value) in properties {
            core.set_property(&DeviceType::CPU, &key, value).map_err(|error| error.to_string())?;
        }
        Ok(Mutex::new(core))
    };
    CORE.get_or_init(start).as_ref().map_err(Clone::clone)
}

fn model(core: &mut Core, onnx: &[u8], shapes: &Shapes) -> Result<openvino::Model, String> {
    let text = |error: openvino::InferenceError| error.to_string();
    let mut model = core.read_model_from_buffer(onnx, None).map_err(text)?;
    let partial = shapes
        .iter()
        .map(|(_, shape)| {
            PartialShape::new_static(i64::try_from(shape.len()).unwrap_or(0), shape).map_err(text)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let named: Vec<_> = shapes.iter().map(|(name, _)| name.as_str()).zip(&partial).collect();
    model.reshape(&named).map_err(text)?;
    Ok(model)
}

/// Whether OpenVINO reads the model and takes the shapes.
pub(super) fn check(onnx: &[u8], shapes: &Shapes) -> Result<(), String> {
    model(&mut lock(core()?), onnx, shapes).map(|_| ())
}

/// A network compiled for one shape of its inputs.
pub(super) struct Compiled(Mutex<CompiledModel>);

impl Compiled {
    pub(super) fn new(onnx: &[u8], shapes: &Shapes) -> Result<Self, String> {
        let mut core = lock(core()?);
        let model = model(&mut core, onnx, shapes)?;
        let compiled = core.compile_model(&model, DeviceType::CPU);
        Ok(Self(Mutex::new(compiled.map_err(|error| error.to_string())?)))
    }

    pub(super) fn request(&self, tensors: &[Tensor]) -> Result<Request, String> {
        let request = lock(&self.0).create_infer_request().map_err(|error| error.to_string())?;
        Request::new(request, tensors)
    }
}

/// Memory to run a compiled network in.
pub(super) struct Request {
    request: Mutex<InferRequest>,
    /// Shape and bytes of each tensor of the engine.
    pub(super) tensors: Vec<(Vec<i64>, usize)>,
}

impl Request {
    fn new(request: InferRequest, tensors: &[Tensor]) -> Result<Self, String> {
        let sizes = tensors
            .iter()
            .map(|tensor| {
                let memory = request.get_tensor(&tensor.name).map_err(|error| error.to_string())?;
                let shape = memory.get_shape().map_err(|error| error.to_string())?;
                let shape = shape.get_dimensions().to_vec();
                let bytes = memory.get_byte_size().map_err(|error| error.to_string())?;
                let count: i64 = shape.iter().product();
                if usize::try_from(count).ok().map(|count| count * tensor.size()) != Some(bytes) {
                    return Err(format!(
                        "OpenVINO's {} of {shape:?} has {bytes} bytes, the ONNX's elements {}",
                        tensor.name,
                        tensor.size()
                    ));
                }
                Ok((shape, bytes))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { request: Mutex::new(request), tensors: sizes })
    }

    /// Runs the network from and to addresses that are held, in the order of `tensors`.
    pub(super) fn run(&self, tensors: &[Tensor], addresses: &[usize]) -> Result<(), String> {
        let mut request = lock(&self.request);
        let copy = |request: &InferRequest, input: bool| {
            for (tensor, address) in tensors.iter().zip(addresses).filter(|(t, _)| t.input == input)
            {
                let mut memory = request.get_tensor(&tensor.name)?;
                let bytes = memory.get_raw_data_mut()?;
                let (here, len) = (bytes.as_mut_ptr() as usize, bytes.len());
                if input {
                    crate::memory::copy(here, *address, len);
                } else {
                    crate::memory::copy(*address, here, len);
                }
            }
            Ok(())
        };
        copy(&request, true)
            .and_then(|()| request.infer())
            .and_then(|()| copy(&request, false))
            .map_err(|error: openvino::InferenceError| error.to_string())
    }
}
