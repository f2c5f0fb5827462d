//! Compiles the product's kernels for the CPU, for a TEST's double of CUDA.

fn main() {
    let kernels = "../../crates/framebus-cuda/kernels";
    println!("cargo::rerun-if-changed={kernels}");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file(format!("{kernels}/cpu.cpp"))
        .include(kernels)
        .opt_level(2)
        .flag("-Wno-unknown-pragmas")
        .warnings(false)
        .compile("framebus_kernels_cpu");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    // Its threads run as long as the process: closing it must not take their code away.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
