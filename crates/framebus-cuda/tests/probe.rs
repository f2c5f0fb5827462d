//! What is said of drivers and devices, above all when there are none.

#![allow(clippy::print_stdout, reason = "what is skipped is said")]

mod common;

use common::{child, is_child, over_double};
use framebus_cuda::{CudaError, Device, HostAccess, devices};

#[test]
fn a_device_is_described() {
    let orin = "name=Orin;cc=8.7;cuda=12060;integrated=1;register=1;devices=2;memory=4096";
    over_double("a_device_is_described", orin, || {
        let all = devices().unwrap();
        assert_eq!(all.len(), 2);
        let info = &all[1];
        assert_eq!((info.ordinal, info.name.as_str(), info.capability), (1, "Orin", (8, 7)));
        assert_eq!((info.driver, info.memory_bytes, info.integrated), ((12, 6), 4096, true));
        assert_eq!(info.host_access, HostAccess::Mapped);
        let device = Device::open(1).unwrap();
        assert_eq!(device.info(), info);
        device.bind().unwrap();
        let error = Device::open(2).unwrap_err().to_string();
        assert!(error.ends_with("device 2 was asked for, there are 2 (0 is the first)"), "{error}");
    });
}

#[test]
fn how_frames_reach_a_device_depends_on_what_it_says() {
    over_double("how_frames_reach_a_device_depends_on_what_it_says", "integrated=0", || {
        assert_eq!(devices().unwrap()[0].host_access, HostAccess::Registered);
        let device = Device::open_with(0, Some(HostAccess::Staged)).unwrap();
        assert_eq!(device.info().host_access, HostAccess::Staged);
    });
}

#[test]
fn a_device_that_registers_nothing_is_staged() {
    over_double("a_device_that_registers_nothing_is_staged", "integrated=1;register=0", || {
        assert_eq!(devices().unwrap()[0].host_access, HostAccess::Staged);
    });
}

#[test]
fn a_driver_without_a_device() {
    over_double("a_driver_without_a_device", "devices=0", || {
        let error = devices().unwrap_err();
        assert!(matches!(error, CudaError::NoDevice { .. }));
        let text = error.to_string();
        assert!(text.starts_with("driver found but no usable CUDA device: "), "{text}");
        assert!(Device::open(0).is_err());
    });
}

#[test]
fn a_driver_that_does_not_start() {
    over_double("a_driver_that_does_not_start", "init=100", || {
        assert_eq!(
            devices().unwrap_err().to_string(),
            "driver found but no usable CUDA device: CUDA_ERROR_NO_DEVICE (100) at cuInit"
        );
    });
}

#[test]
fn a_driver_too_old_for_the_kernels() {
    over_double("a_driver_too_old_for_the_kernels", "cuda=11040;name=Old", || {
        let error = Device::open(0).unwrap_err();
        assert_eq!(error.to_string(), "the CUDA kernels cannot be loaded for Old");
        let source = std::error::Error::source(&error).expect("the driver's words").to_string();
        assert!(source.contains("UNSUPPORTED_PTX_VERSION"), "{source}");
    });
}

#[test]
fn no_driver_is_no_panic() {
    if is_child() {
        match devices() {
            Err(CudaError::NoDriver) => {
                let text = CudaError::NoDriver.to_string();
                assert!(text.starts_with("no NVIDIA driver (libcuda.so.1 not found)"), "{text}");
                assert!(matches!(Device::open(0), Err(CudaError::NoDriver)));
            }
            // This machine has one where every loader looks.
            other => println!("SKIPPED: there is a driver: {other:?}"),
        }
        return;
    }
    let nothing = tempfile::tempdir().unwrap();
    child("no_driver_is_no_panic", nothing.path(), "");
}

#[test]
fn a_driver_that_lacks_a_function_is_named_with_it() {
    if is_child() {
        let error = devices().unwrap_err();
        assert!(matches!(error, CudaError::OldDriver { missing: "cuGetErrorName" }), "{error}");
        assert!(error.to_string().contains("it has no cuGetErrorName; update it"), "{error}");
        return;
    }
    // A library without any of the functions: this process's C library.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.contains("libc.so") || path.contains("libc-"))
        .expect("a C library is mapped");
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(library, folder.path().join("libcuda.so")).unwrap();
    child("a_driver_that_lacks_a_function_is_named_with_it", folder.path(), "");
}
