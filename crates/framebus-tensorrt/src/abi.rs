//! Which versions of TensorRT are spoken to, and where their methods are.
//!
//! [`TABLE_10`], [`TABLE_11`] and [`TABLE_RTX_1`] are made from one list below: a line
//! per method with its class, its name, what it takes and returns, and its slot in
//! the three ABIs. The binding calls by these slots and `tests/headers.rs` compares
//! them with NVIDIA's headers. Within one major version the tables only grow at
//! their end, so a slot holds for every minor version from the one that has it.
//!
//! Counting: slots 0 and 1 of a `V…` class are its destructors; a plain interface
//! (`IParser`, `IParserError`) counts from its first virtual function. Enumerations
//! travel as `i32`; an object that is passed or returned is a pointer.

use crate::raw::{ABSENT, Dims, Object, Slot};
use std::ffi::{c_char, c_void};
use std::fmt;

/// Version of a TensorRT library, as its own `getInferLibVersion()` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Decides the ABI.
    pub major: u32,
    /// Adds methods at the ends of tables.
    pub minor: u32,
    /// Changes no table.
    pub patch: u32,
}

impl Version {
    /// From the number of `getInferLibVersion()`: 100300 is 10.3.0, and TensorRT-RTX
    /// counts alike (10701 is 1.7.1). Up to TensorRT 9 the major version counted
    /// thousands: 8601 is 8.6.1.
    #[must_use]
    pub fn from_number(number: i32) -> Self {
        let number = u32::try_from(number).unwrap_or(0);
        let major = if number < 10_000 { 1_000 } else { 10_000 };
        Self { major: number / major, minor: number % major / 100, patch: number % 100 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The binary interfaces that differ from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abi {
    /// TensorRT 10.x (JetPack 6 has 10.3).
    V10,
    /// TensorRT 11.x.
    V11,
    /// TensorRT-RTX 1.x from 1.5; before, its tables were others.
    Rtx1,
}

/// The first minor version of TensorRT-RTX 1 with the tables of [`Abi::Rtx1`].
const RTX_SINCE: u32 = 5;

impl Abi {
    /// The interface that a library of this version has; `None` where it is none that
    /// is known. Calling by the wrong table calls the wrong functions, and TensorRT
    /// itself checks nothing.
    #[must_use]
    pub fn of(version: Version) -> Option<Self> {
        match version.major {
            1 if version.minor >= RTX_SINCE => Some(Self::Rtx1),
            10 => Some(Self::V10),
            11 => Some(Self::V11),
            _ => None,
        }
    }

    /// Slots of this interface.
    #[must_use]
    pub fn table(self) -> &'static Table {
        match self {
            Self::V10 => &TABLE_10,
            Self::V11 => &TABLE_11,
            Self::Rtx1 => &TABLE_RTX_1,
        }
    }

    /// `NetworkDefinitionCreationFlag::kSTRONGLY_TYPED` as a bit mask: types come from
    /// the ONNX file alone.
    pub(crate) fn strongly_typed(self) -> u32 {
        match self {
            Self::V10 => 1 << 1,
            Self::V11 | Self::Rtx1 => 1 << 0,
        }
    }

    /// File name of the ONNX parser that belongs to the library.
    pub(crate) fn parser_name(self) -> &'static str {
        match self {
            Self::V10 => "libnvonnxparser.so.10",
            Self::V11 => "libnvonnxparser.so.11",
            Self::Rtx1 => "libtensorrt_onnxparser_rtx.so.1",
        }
    }

    /// `TensorRT`, or what NVIDIA calls the other one.
    pub(crate) fn product(self) -> &'static str {
        match self {
            Self::V10 | Self::V11 => "TensorRT",
            Self::Rtx1 => "TensorRT-RTX",
        }
    }
}

/// One method of the list, for checking it against a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Class in `NvInferImpl.h` (`V…`) or `NvOnnxParser.h` (`I…`).
    pub class: &'static str,
    /// Method, or `~` and the class for its deleting destructor.
    pub method: &'static str,
    /// Place in the virtual table; `None` where this interface has no such method.
    pub slot: Option<usize>,
}

macro_rules! table {
    ($($field:ident: $class:literal $method:literal $signature:ty = $v10:expr, $v11:expr, $rtx:expr;)+) => {
        /// The slots of one interface.
        pub struct Table {
            $(pub(crate) $field: Slot<$signature>,)+
        }

        impl Table {
            /// The whole list.
            #[must_use]
            pub fn entries(&self) -> Vec<Entry> {
                vec![$(Entry { class: $class, method: $method, slot: self.$field.index() },)+]
            }
        }

        /// TensorRT 10.x.
        pub static TABLE_10: Table = Table { $($field: Slot::at($v10),)+ };
        /// TensorRT 11.x.
        pub static TABLE_11: Table = Table { $($field: Slot::at($v11),)+ };
        /// TensorRT-RTX 1.x.
        pub static TABLE_RTX_1: Table = Table { $($field: Slot::at($rtx),)+ };
    };
}

type Text = *const c_char;

table! {
    // field: class, method, signature = 10.x, 11.x, RTX 1.x
    deserialize: "VRuntime" "deserializeCudaEngine" fn(*const c_void, usize) -> *mut Object = 3, 3, 3;

    create_context: "VCudaEngine" "createExecutionContext" fn(i32) -> *mut Object = 5, 5, 5;
    profile_count: "VCudaEngine" "getNbOptimizationProfiles" fn() -> i32 = 10, 8, 8;
    engine_shape: "VCudaEngine" "getTensorShape" fn(Text) -> Dims = 19, 15, 15;
    data_type: "VCudaEngine" "getTensorDataType" fn(Text) -> i32 = 20, 16, 16;
    io_mode: "VCudaEngine" "getTensorIOMode" fn(Text) -> i32 = 23, 19, 19;
    profile_shape: "VCudaEngine" "getProfileShape" fn(Text, i32, i32) -> Dims = 29, 25, 25;
    tensor_count: "VCudaEngine" "getNbIOTensors" fn() -> i32 = 30, 26, 26;
    tensor_name: "VCudaEngine" "getIOTensorName" fn(i32) -> Text = 31, 27, 27;
    // From 10.3: the caller looks at the version first.
    device_memory: "VCudaEngine" "getDeviceMemorySizeV2" fn() -> i64 = 52, 44, 44;

    set_profile: "VExecutionContext" "setOptimizationProfileAsync" fn(i32, *mut c_void) -> bool = 17, 16, 16;
    set_input_shape: "VExecutionContext" "setInputShape" fn(Text, *const Dims) -> bool = 21, 20, 20;
    context_shape: "VExecutionContext" "getTensorShape" fn(Text) -> Dims = 22, 21, 21;
    set_address: "VExecutionContext" "setTensorAddress" fn(Text, *mut c_void) -> bool = 24, 23, 23;
    enqueue: "VExecutionContext" "enqueueV3" fn(*mut c_void) -> bool = 37, 36, 36;

    create_config: "VBuilder" "createBuilderConfig" fn() -> *mut Object = 7, 5, 5;
    create_network: "VBuilder" "createNetworkV2" fn(u32) -> *mut Object = 8, 6, 6;
    create_profile: "VBuilder" "createOptimizationProfile" fn() -> *mut Object = 9, 7, 7;
    build: "VBuilder" "buildSerializedNetwork" fn(*mut Object, *mut Object) -> *mut Object = 14, 11, 11;

    add_profile: "VBuilderConfig" "addOptimizationProfile" fn(*const Object) -> i32 = 25, 23, 23;
    create_timing_cache: "VBuilderConfig" "createTimingCache" fn(*const c_void, usize) -> *mut Object = 40, 29, 29;
    set_timing_cache: "VBuilderConfig" "setTimingCache" fn(*const Object, bool) -> bool = 41, 30, 30;
    set_memory_limit: "VBuilderConfig" "setMemoryPoolLimit" fn(i32, usize) = 43, 32, 32;
    set_level: "VBuilderConfig" "setBuilderOptimizationLevel" fn(i32) = 47, 36, 36;
    set_monitor: "VBuilderConfig" "setProgressMonitor" fn(*const c_void) = 56, 45, 45;
    set_capability_count: "VBuilderConfig" "setNbComputeCapabilities" fn(i32) -> bool = ABSENT, ABSENT, 55;
    set_capability: "VBuilderConfig" "setComputeCapability" fn(i32, i32) -> bool = ABSENT, ABSENT, 57;

    output_count: "VNetworkDefinition" "getNbOutputs" fn() -> i32 = 16, 16, 16;

    serialize_timing_cache: "VTimingCache" "serialize" fn() -> *mut Object = 2, 2, 2;

    set_dimensions: "VOptimizationProfile" "setDimensions" fn(Text, i32, *const Dims) -> bool = 2, 2, 2;

    memory_data: "VHostMemory" "data" fn() -> *const c_void = 2, 2, 2;
    memory_size: "VHostMemory" "size" fn() -> usize = 3, 3, 3;

    parse: "IParser" "parse" fn(*const c_void, usize, Text) -> bool = 0, 0, 0;
    error_count: "IParser" "getNbErrors" fn() -> i32 = 5, 3, 3;
    error: "IParser" "getError" fn(i32) -> *mut Object = 6, 4, 4;
    parser_destructor: "IParser" "~IParser" fn() = 9, 7, 7;

    error_text: "IParserError" "desc" fn() -> Text = 1, 1, 1;
    error_node: "IParserError" "nodeName" fn() -> Text = 6, 6, 6;
    error_operator: "IParserError" "nodeOperator" fn() -> Text = 7, 7, 7;
}

/// `getDeviceMemorySizeV2` is not in the tables of TensorRT before this.
pub(crate) const DEVICE_MEMORY_SINCE: Version = Version { major: 10, minor: 3, patch: 0 };

/// Virtual tables of the interfaces that this crate implements for TensorRT, in order;
/// `~` stands for each of the two destructors. For checking against a header.
pub mod implemented {
    /// `ILogger` of TensorRT 10.x.
    pub const LOGGER_10: [&str; 3] = ["log", "~", "~"];
    /// `ILogger` of TensorRT 11.x and TensorRT-RTX 1.x.
    pub const LOGGER_11: [&str; 5] = ["getAPILanguage", "getInterfaceInfo", "~", "~", "log"];
    /// `IProgressMonitor` of all of them.
    pub const MONITOR: [&str; 7] = [
        "getAPILanguage",
        "getInterfaceInfo",
        "~",
        "~",
        "phaseStart",
        "stepComplete",
        "phaseFinish",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_each_product_counts_them() {
        let text = |number| Version::from_number(number).to_string();
        assert_eq!(text(100_300), "10.3.0");
        assert_eq!(text(101_601), "10.16.1");
        assert_eq!(text(110_400), "11.4.0");
        assert_eq!(text(10_701), "1.7.1");
        assert_eq!(text(8_601), "8.6.1");
        assert_eq!(text(9_300), "9.3.0");
        assert_eq!(text(-1), "0.0.0");
    }

    #[test]
    fn only_known_interfaces_are_spoken_to() {
        let abi = |number| Abi::of(Version::from_number(number));
        assert_eq!(abi(100_300), Some(Abi::V10));
        assert_eq!(abi(101_601), Some(Abi::V10));
        assert_eq!(abi(110_400), Some(Abi::V11));
        assert_eq!(abi(10_500), Some(Abi::Rtx1));
        assert_eq!(abi(10_701), Some(Abi::Rtx1));
        for refused in [0, -5, 10_300, 10_400, 8_601, 9_300, 20_000, 120_000, i32::MAX] {
            assert_eq!(abi(refused), None, "{refused}");
        }
    }

    #[test]
    fn only_rtx_has_compute_capabilities_and_nothing_else_is_absent() {
        for (table, absent) in [(&TABLE_10, 2), (&TABLE_11, 2), (&TABLE_RTX_1, 0)] {
            let missing = table.entries().iter().filter(|entry| entry.slot.is_none()).count();
            assert_eq!(missing, absent);
        }
    }
}
