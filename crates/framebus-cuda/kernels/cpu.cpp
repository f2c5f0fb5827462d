// framebus.cu for the CPU: one launcher per kernel, which takes what
// cuLaunchKernel takes and has run the kernel when it returns.
//
//   c++ -std=c++17 -O2 -shared -fPIC -Wno-unknown-pragmas cpu.cpp
#include "cpu.h"

#include "framebus.cu"

// The value that kernelParams[i] points to.
template <typename T>
static T parameter(void** params, int i) {
    T value;
    memcpy(&value, params[i], sizeof value);
    return value;
}

template <typename Kernel>
static void launch(Dim3 grid, Dim3 block, Kernel kernel) {
    gridDim = grid;
    blockDim = block;
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < block.z; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < block.y; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x) kernel();
}

extern "C" void framebus_letterbox_cpu(
    uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz, void** params) {
    const auto frames = parameter<const FrameEntry*>(params, 0);
    const auto out = parameter<void*>(params, 1);
    const auto width = parameter<uint32_t>(params, 2), height = parameter<uint32_t>(params, 3);
    const auto half = parameter<uint32_t>(params, 4);
    launch({gx, gy, gz}, {bx, by, bz},
           [=] { framebus_letterbox(frames, out, width, height, half); });
}

extern "C" void framebus_decode_cpu(
    uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz, void** params) {
    const auto frames = parameter<const FrameEntry*>(params, 0);
    const auto boxes = parameter<const void*>(params, 1);
    const auto classes = parameter<const void*>(params, 2);
    const auto half = parameter<uint32_t>(params, 3), bins = parameter<uint32_t>(params, 4);
    const auto nclasses = parameter<uint32_t>(params, 5), width = parameter<uint32_t>(params, 6);
    const auto height = parameter<uint32_t>(params, 7), stride = parameter<uint32_t>(params, 8);
    const auto first_cell = parameter<uint32_t>(params, 9);
    const auto capacity = parameter<uint32_t>(params, 10);
    const auto counts = parameter<uint32_t*>(params, 11);
    const auto candidates = parameter<RawCandidate*>(params, 12);
    launch({gx, gy, gz}, {bx, by, bz}, [=] {
        framebus_decode(frames, boxes, classes, half, bins, nclasses, width, height, stride,
                        first_cell, capacity, counts, candidates);
    });
}
