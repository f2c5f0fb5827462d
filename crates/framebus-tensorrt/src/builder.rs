//! The builder half of TensorRT as results: every method checked, every object owned.
//!
//! The lifetimes say what must be released before what: a parser and a configuration
//! before the network and the builder they came from, and all of them before the
//! logger, which is never released.
#![allow(unsafe_code)]

use crate::abi::{Abi, Table};
use crate::engine::Selector;
use crate::error::{Error, ParseError};
use crate::library::Library;
use crate::monitor::Monitor;
use crate::open::Parser as ParserLibrary;
use crate::raw::{self, Dims, Object, Owned};
use crate::record;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// `MemoryPoolType::kWORKSPACE`.
const WORKSPACE: i32 = 0;
/// Bytes kept of a message of the parser.
const MESSAGE_BYTES: usize = 600;
/// Errors of the parser that are kept.
const ERRORS: i32 = 16;

/// Takes over what a call made, or answers with TensorRT's words.
///
/// # Safety
/// As [`Owned::public`].
unsafe fn made<'k>(
    pointer: *mut Object,
    call: &'static str,
    mark: record::Mark,
) -> Result<Owned<'k>, Error> {
    // SAFETY: passed on.
    unsafe { Owned::public(pointer) }
        .ok_or_else(|| Error::Refused { call, log: record::since(mark) })
}

/// `IBuilder`.
pub(crate) struct Builder {
    object: Owned<'static>,
    abi: Abi,
}

/// `INetworkDefinition`.
pub(crate) struct Network<'b> {
    object: Owned<'b>,
}

/// `IParser`, which keeps the weights that its network refers to.
pub(crate) struct Parser<'n> {
    object: Owned<'n>,
    table: &'static Table,
}

/// `IBuilderConfig`.
pub(crate) struct Config<'b> {
    object: Owned<'b>,
    table: &'static Table,
}

/// `IOptimizationProfile`, which belongs to its builder.
pub(crate) struct Profile<'b> {
    object: NonNull<Object>,
    implementation: NonNull<Object>,
    table: &'static Table,
    builder: PhantomData<&'b Builder>,
}

/// `ITimingCache`.
pub(crate) struct TimingCache<'k> {
    object: Owned<'k>,
    table: &'static Table,
}

/// `IHostMemory`: bytes that TensorRT allocated.
pub(crate) struct HostMemory {
    object: Owned<'static>,
    table: &'static Table,
}

impl Builder {
    pub(crate) fn new(library: &Library) -> Result<Self, Error> {
        Ok(Self { object: library.opened().builder()?, abi: library.abi() })
    }

    fn table(&self) -> &'static Table {
        self.abi.table()
    }

    fn this(&self) -> NonNull<Object> {
        self.object.implementation()
    }

    /// An empty network whose types come from the model.
    pub(crate) fn network(&self) -> Result<Network<'_>, Error> {
        let mark = record::mark();
        let flags = self.abi.strongly_typed();
        // SAFETY: the builder is live.
        let network = unsafe { self.table().create_network.call(self.this(), flags) };
        // SAFETY: the call hands an `INetworkDefinition` over; the lifetime is the
        // builder's.
        let object = unsafe { made(network, "IBuilder::createNetworkV2", mark) }?;
        Ok(Network { object })
    }

    pub(crate) fn config(&self) -> Result<Config<'_>, Error> {
        let mark = record::mark();
        // SAFETY: the builder is live.
        let config = unsafe { self.table().create_config.call(self.this()) };
        // SAFETY: the call hands an `IBuilderConfig` over; the lifetime is the builder's.
        let object = unsafe { made(config, "IBuilder::createBuilderConfig", mark) }?;
        Ok(Config { object, table: self.table() })
    }

    pub(crate) fn profile(&self) -> Result<Profile<'_>, Error> {
        let mark = record::mark();
        // SAFETY: the builder is live.
        let profile = unsafe { self.table().create_profile.call(self.this()) };
        let object = raw::plausible(profile);
        // SAFETY: the call returns an `IOptimizationProfile` or null.
        let implementation = object.and_then(|object| unsafe { raw::implementation(object) });
        let (Some(object), Some(implementation)) = (object, implementation) else {
            let call = "IBuilder::createOptimizationProfile";
            return Err(Error::Refused { call, log: record::since(mark) });
        };
        Ok(Profile { object, implementation, table: self.table(), builder: PhantomData })
    }

    /// Builds the plan: the long part.
    pub(crate) fn build(
        &self,
        network: &Network<'_>,
        config: &Config<'_>,
    ) -> Result<HostMemory, Error> {
        let mark = record::mark();
        let (network, config) = (network.object.object(), config.object.object());
        // SAFETY: builder, network and configuration are live, and the latter two are
        // this builder's; what the configuration refers to outlives it.
        let memory =
            unsafe { self.table().build.call(self.this(), network.as_ptr(), config.as_ptr()) };
        // SAFETY: the call hands an `IHostMemory` over, which needs nothing else.
        let object = unsafe { made(memory, "IBuilder::buildSerializedNetwork", mark) }?;
        Ok(HostMemory { object, table: self.table() })
    }
}

impl Network<'_> {
    /// Fills the network from an ONNX model, which must live as long as the parser:
    /// weights may be used in place.
    pub(crate) fn parse<'n>(
        &'n self,
        library: &Library,
        parser: &ParserLibrary,
        onnx: &'n [u8],
    ) -> Result<Parser<'n>, Error> {
        // SAFETY: the network is live and outlives the parser, which is of the same
        // version.
        let object = unsafe { parser.create(library.opened(), self.object.object()) }?;
        let parser = Parser { object, table: library.abi().table() };
        let mark = record::mark();
        let (data, size) = (onnx.as_ptr().cast::<c_void>(), onnx.len());
        // SAFETY: the parser is live, the bytes live as long as it does; no path is
        // allowed, it is for weights in other files.
        let ok = unsafe {
            parser.table.parse.call(parser.object.object(), data, size, std::ptr::null())
        };
        if !ok {
            return Err(Error::Parse { errors: parser.errors(mark) });
        }
        let this = self.object.implementation();
        // SAFETY: the network is live.
        if unsafe { parser.table.output_count.call(this) } <= 0 {
            // Bytes that are no model may pass for an empty one.
            let message = "it describes no network; is it a complete ONNX file?".to_owned();
            let (node, operator) = (String::new(), String::new());
            return Err(Error::Parse { errors: vec![ParseError { node, operator, message }] });
        }
        Ok(parser)
    }
}

impl Parser<'_> {
    /// What the parser has to say, or else the log; never empty.
    fn errors(&self, mark: record::Mark) -> Vec<ParseError> {
        // SAFETY: the parser is live.
        let count = unsafe { self.table.error_count.call(self.object.object()) };
        let mut errors: Vec<ParseError> =
            (0..count.min(ERRORS)).filter_map(|index| self.error(index)).collect();
        if errors.is_empty() {
            let log = record::since(mark);
            let message = if log.is_empty() { "it gave no reason".to_owned() } else { log };
            errors.push(ParseError { node: String::new(), operator: String::new(), message });
        }
        errors
    }

    fn error(&self, index: i32) -> Option<ParseError> {
        // SAFETY: the parser is live, the index below its count.
        let error = unsafe { self.table.error.call(self.object.object(), index) };
        let error = raw::plausible(error)?;
        // SAFETY: the parser keeps the error and its texts while it lives.
        let message = unsafe { self.table.error_text.call(error) };
        // SAFETY: as above.
        let node = unsafe { self.table.error_node.call(error) };
        // SAFETY: as above.
        let operator = unsafe { self.table.error_operator.call(error) };
        Some(ParseError {
            // SAFETY: null or a C string that the error keeps.
            node: unsafe { text(node) },
            // SAFETY: as above.
            operator: unsafe { text(operator) },
            // SAFETY: as above.
            message: unsafe { text(message) },
        })
    }
}

/// # Safety
/// `text` is null or a live C string.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    record::one_line(&text.to_string_lossy(), MESSAGE_BYTES)
}

impl Profile<'_> {
    /// One bound of an input's shape.
    pub(crate) fn set(&self, name: &CStr, which: Selector, shape: &[i64]) -> Result<(), Error> {
        let mark = record::mark();
        let dims = Dims::new(shape).ok_or_else(|| Error::Argument {
            what: format!("a profile of {} dimensions; TensorRT has at most 8", shape.len()),
        })?;
        let slot = &self.table.set_dimensions;
        // SAFETY: the profile lives as long as its builder; name and sizes live during
        // the call.
        let ok = unsafe {
            slot.call(self.implementation, name.as_ptr(), which.number(), &raw const dims)
        };
        if ok {
            return Ok(());
        }
        let log = record::since(mark);
        Err(Error::Refused { call: "IOptimizationProfile::setDimensions", log })
    }
}

impl<'b> Config<'b> {
    fn this(&self) -> NonNull<Object> {
        self.object.implementation()
    }

    pub(crate) fn add_profile(&self, profile: &Profile<'b>) -> Result<(), Error> {
        let mark = record::mark();
        let profile = profile.object.as_ptr().cast_const();
        // SAFETY: both are live and of the same builder.
        let index = unsafe { self.table.add_profile.call(self.this(), profile) };
        if index >= 0 {
            return Ok(());
        }
        let log = record::since(mark);
        Err(Error::Refused { call: "IBuilderConfig::addOptimizationProfile", log })
    }

    /// Scratch memory that a layer may use at most.
    pub(crate) fn set_workspace(&self, bytes: usize) {
        // SAFETY: the configuration is live.
        unsafe { self.table.set_memory_limit.call(self.this(), WORKSPACE, bytes) };
    }

    pub(crate) fn set_level(&self, level: i32) {
        // SAFETY: the configuration is live.
        unsafe { self.table.set_level.call(self.this(), level) };
    }

    /// Reports to `monitor`, which outlives the configuration's builder.
    pub(crate) fn set_monitor(&self, monitor: &'b Monitor<'_>) {
        // SAFETY: the configuration is live; the monitor outlives it by its lifetime,
        // and is an `IProgressMonitor`.
        unsafe { self.table.set_monitor.call(self.this(), monitor.pointer()) };
    }

    /// A cache from `content`, empty for none; `None` where TensorRT wants no such
    /// content: it is another version's or GPU's.
    pub(crate) fn timing_cache<'k>(&'k self, content: &'k [u8]) -> Option<TimingCache<'k>> {
        let (data, size) = (content.as_ptr().cast::<c_void>(), content.len());
        // SAFETY: the configuration is live, and so are the bytes as long as the cache.
        let cache = unsafe { self.table.create_timing_cache.call(self.this(), data, size) };
        // SAFETY: the call hands an `ITimingCache` over; the lifetime is the
        // configuration's.
        let object = unsafe { Owned::public(cache) }?;
        // Whether it fits this GPU is found out here: `false` for not ignoring it.
        let pointer = object.object().as_ptr().cast_const();
        // SAFETY: both are live, and the cache outlives every build: see `build`.
        let ok = unsafe { self.table.set_timing_cache.call(self.this(), pointer, false) };
        ok.then_some(TimingCache { object, table: self.table })
    }

    /// GPUs to build for. Only TensorRT-RTX has this.
    pub(crate) fn set_capabilities(&self, capabilities: &[(u32, u32)]) -> Result<(), Error> {
        let (count, one) = (&self.table.set_capability_count, &self.table.set_capability);
        if capabilities.is_empty() || count.index().is_none() || one.index().is_none() {
            return Ok(());
        }
        let mark = record::mark();
        let refused = |call| Error::Refused { call, log: record::since(mark) };
        let number = i32::try_from(capabilities.len()).unwrap_or(i32::MAX);
        // SAFETY: the configuration is live, and this interface has the method.
        if !unsafe { count.call(self.this(), number) } {
            return Err(refused("IBuilderConfig::setNbComputeCapabilities"));
        }
        for (index, (major, minor)) in (0..).zip(capabilities) {
            // `ComputeCapability`: 86 is 8.6.
            let capability = i32::try_from(major.saturating_mul(10).saturating_add(*minor));
            let capability = capability.unwrap_or(i32::MAX);
            // SAFETY: as above.
            if !unsafe { one.call(self.this(), capability, index) } {
                return Err(refused("IBuilderConfig::setComputeCapability"));
            }
        }
        Ok(())
    }
}

impl TimingCache<'_> {
    /// Content for another build; `None` where TensorRT gives none.
    pub(crate) fn content(&self) -> Option<Vec<u8>> {
        let this = self.object.implementation();
        // SAFETY: the cache is live.
        let memory = unsafe { self.table.serialize_timing_cache.call(this) };
        // SAFETY: the call hands an `IHostMemory` over, which needs nothing else.
        let object = unsafe { Owned::public(memory) }?;
        let memory = HostMemory { object, table: self.table };
        Some(memory.bytes().to_vec())
    }
}

impl HostMemory {
    pub(crate) fn bytes(&self) -> &[u8] {
        let this = self.object.implementation();
        // SAFETY: the memory is live.
        let data = unsafe { self.table.memory_data.call(this) };
        // SAFETY: as above.
        let size = unsafe { self.table.memory_size.call(this) };
        if data.is_null() || size == 0 {
            return &[];
        }
        // SAFETY: TensorRT holds that many initialised bytes there until the memory is
        // released, and nobody writes them.
        unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) }
    }
}
