//! A TEST's double of CUDA: what the device is, from `GPU_DOUBLE_DEVICE`, for example
//! `name=Double;cc=8.9;cuda=12060;integrated=0;register=1;devices=1;memory=8589934592`.
//!
//! | word | is |
//! |---|---|
//! | `name`, `cc`, `memory`, `devices` | the name, `8.9`, bytes, how many |
//! | `cuda` | the driver's CUDA version, 1000 x major + 10 x minor |
//! | `integrated` | 1: host and device share their memory, as on a Jetson |
//! | `register` | 1: `cuMemHostRegister` works |
//! | `readonly` | 1: it also takes memory that cannot be written; as `register` |
//! | `pools` | 1: `cuMemAllocAsync` works |
//! | `init` | what `cuInit` answers instead of 0 |
//! | `tensorrt` | TensorRT's version number |

use crate::code::Code;
use std::sync::OnceLock;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) capability: (i32, i32),
    pub(crate) cuda: i32,
    pub(crate) integrated: bool,
    pub(crate) register: bool,
    pub(crate) read_only: bool,
    pub(crate) pools: bool,
    pub(crate) devices: i32,
    pub(crate) memory: u64,
    pub(crate) init: Code,
    pub(crate) tensorrt: i32,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            name: "GPU double".to_owned(),
            capability: (8, 9),
            cuda: 12_060,
            integrated: false,
            register: true,
            read_only: true,
            pools: true,
            devices: 1,
            memory: 8 << 30,
            init: 0,
            tensorrt: 100_300,
        }
    }
}

/// The device of this process; its first use fixes it.
pub(crate) fn get() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| parse(&std::env::var("GPU_DOUBLE_DEVICE").unwrap_or_default()))
}

fn set<T: std::str::FromStr>(number: &mut T, text: &str) -> bool {
    text.parse().map(|value| *number = value).is_ok()
}

/// What is not understood is an error of the test, shown as a violation.
fn parse(text: &str) -> Device {
    let mut device = Device::default();
    let mut read_only = None;
    for word in text.split(';').map(str::trim).filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').unwrap_or((word, "1"));
        let flag = value != "0";
        let mut understood = true;
        match key {
            "name" => value.clone_into(&mut device.name),
            "cc" => match value.split_once('.') {
                Some((major, minor)) => {
                    understood = set(&mut device.capability.0, major)
                        && set(&mut device.capability.1, minor);
                }
                None => understood = false,
            },
            "cuda" => understood = set(&mut device.cuda, value),
            "devices" => understood = set(&mut device.devices, value),
            "memory" => understood = set(&mut device.memory, value),
            "init" => understood = set(&mut device.init, value),
            "tensorrt" => understood = set(&mut device.tensorrt, value),
            "integrated" => device.integrated = flag,
            "register" => device.register = flag,
            "readonly" => read_only = Some(flag),
            "pools" => device.pools = flag,
            _ => understood = false,
        }
        if !understood {
            crate::count::violation(format!("GPU_DOUBLE_DEVICE: {word:?} means nothing"));
        }
    }
    device.read_only = read_only.unwrap_or(device.register);
    device
}

impl Device {
    /// `cuDeviceGetAttribute`; `None` for numbers that CUDA 12 does not have.
    pub(crate) fn attribute(&self, number: i32) -> Option<i32> {
        Some(match number {
            1 | 2 | 3 | 39 => 1024, // threads per block, its x and y; threads per processor / 2
            4 => 64,                // block z
            5 => i32::MAX,          // grid x
            6 | 7 => 65_535,        // grid y and z
            8 => 49_152,            // shared memory per block
            10 => 32,               // warp
            12 => 65_536,           // registers per block
            13 => 1_500_000,        // clock in kHz
            14 => 512,              // alignment of textures
            15 | 31 | 41 | 78 | 91 => 1, // overlap, concurrent kernels, unified addressing, priorities, host pointers as they are
            16 => 20,                    // multiprocessors
            18 => i32::from(self.integrated),
            19 => 1, // maps host memory
            33 => 1, // PCI bus
            40 => 2, // copy engines
            75 => self.capability.0,
            76 => self.capability.1,
            83 => 1, // managed memory
            99 => i32::from(self.register),
            113 => i32::from(self.read_only),
            115 => i32::from(self.pools),
            1..=150 => 0,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_environment() {
        assert_eq!(parse(""), Device::default());
        let orin = parse("name=Orin; cc=8.7;integrated=1;register=0;memory=1024");
        assert_eq!(
            (orin.name.as_str(), orin.capability, orin.integrated, orin.memory),
            ("Orin", (8, 7), true, 1024)
        );
        assert_eq!(
            (orin.attribute(99), orin.attribute(113), orin.attribute(18)),
            (Some(0), Some(0), Some(1))
        );
        assert!(!parse("readonly=0").read_only);
    }
}
