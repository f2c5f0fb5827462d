// What the host and the kernels of framebus.cu agree on.
//
// Rust mirrors both structures with repr(C); the offsets below are held by
// assertions on both sides. Little endian, as CUDA is.
#ifndef FRAMEBUS_H
#define FRAMEBUS_H

// NVRTC brings no standard headers.
#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;
#else
#include <stddef.h>
#include <stdint.h>
#endif

// FrameEntry::format
#define FRAMEBUS_NV12 0u
#define FRAMEBUS_RGB24 1u

// One thread of framebus_letterbox writes this many neighbours of a row.
#define FRAMEBUS_PIXELS 2u

// One frame of a batch: where its pixels are, where they go, what their codes
// mean. 128 bytes; the table starts at a multiple of 16.
//
// Positions are 32.32 fixed point: f32 would lose a tenth of a code at a width
// of 4000 pixels, and integers give the same taps on every machine.
struct alignas(16) FrameEntry {
    // Luma, or R, G, B interleaved.
    const uint8_t* y; //         0
    // Cb, Cr interleaved, at half resolution rounded up; null for RGB24.
    const uint8_t* uv; //        8
    // Bytes from one row to the next.
    uint32_t y_stride; //       16
    uint32_t uv_stride; //      20
    // Pixels of the source (of its region, when one is cut out).
    uint32_t width; //          24
    uint32_t height; //         28
    uint32_t format; //         32
    // Where the picture lies in the network's input.
    uint32_t left; //           36
    uint32_t top; //            40
    uint32_t resized_width; //  44
    uint32_t resized_height; // 48
    // Horizontal place of a chroma sample in its pair of luma samples, in
    // 1/2^32 of a luma sample: 0 left, 0x80000000 centre.
    uint32_t site; //           52
    // Codes 0..=255 to 0..=1:
    // R = luma * Y + red_cr * Cr + constant[0]
    // G = luma * Y + green_cb * Cb + green_cr * Cr + constant[1]
    // B = luma * Y + blue_cb * Cb + constant[2]
    // RGB24 uses none of them.
    float luma; //              56
    float red_cr; //            60
    float green_cb; //          64
    float green_cr; //          68
    float blue_cb; //           72
    float constant[3]; //       76
    // Cells whose largest class logit reaches this become candidates.
    float logit; //             88
    uint32_t reserved0; //      92
    // Source samples per output pixel: (source << 32) / resized.
    uint64_t step_x; //         96
    uint64_t step_y; //        104
    uint64_t reserved1[2]; //  112
};

// A cell of a cut head that passed. 32 bytes; the array starts at a multiple
// of 16.
struct alignas(16) RawCandidate {
    // Left, top, right, bottom in network pixels.
    float bbox[4]; //   0
    // The largest class logit, and the first class that has it.
    float logit; //    16
    uint32_t cls; //   20
    // Number of the cell over all scales: first_cell of its scale + its index.
    uint32_t cell; //  24
    uint32_t reserved; // 28
};

static_assert(sizeof(FrameEntry) == 128, "mirrored in Rust");
static_assert(sizeof(RawCandidate) == 32, "mirrored in Rust");

// NVRTC has no offsetof; its layout is the host compiler's by CUDA's ABI.
#ifndef __CUDACC_RTC__
#define FRAMEBUS_AT(type, field, offset) \
    static_assert(offsetof(type, field) == offset, #type "::" #field)
FRAMEBUS_AT(FrameEntry, y, 0);
FRAMEBUS_AT(FrameEntry, uv, 8);
FRAMEBUS_AT(FrameEntry, y_stride, 16);
FRAMEBUS_AT(FrameEntry, uv_stride, 20);
FRAMEBUS_AT(FrameEntry, width, 24);
FRAMEBUS_AT(FrameEntry, height, 28);
FRAMEBUS_AT(FrameEntry, format, 32);
FRAMEBUS_AT(FrameEntry, left, 36);
FRAMEBUS_AT(FrameEntry, top, 40);
FRAMEBUS_AT(FrameEntry, resized_width, 44);
FRAMEBUS_AT(FrameEntry, resized_height, 48);
FRAMEBUS_AT(FrameEntry, site, 52);
FRAMEBUS_AT(FrameEntry, luma, 56);
FRAMEBUS_AT(FrameEntry, red_cr, 60);
FRAMEBUS_AT(FrameEntry, green_cb, 64);
FRAMEBUS_AT(FrameEntry, green_cr, 68);
FRAMEBUS_AT(FrameEntry, blue_cb, 72);
FRAMEBUS_AT(FrameEntry, constant, 76);
FRAMEBUS_AT(FrameEntry, logit, 88);
FRAMEBUS_AT(FrameEntry, reserved0, 92);
FRAMEBUS_AT(FrameEntry, step_x, 96);
FRAMEBUS_AT(FrameEntry, step_y, 104);
FRAMEBUS_AT(FrameEntry, reserved1, 112);
FRAMEBUS_AT(RawCandidate, bbox, 0);
FRAMEBUS_AT(RawCandidate, logit, 16);
FRAMEBUS_AT(RawCandidate, cls, 20);
FRAMEBUS_AT(RawCandidate, cell, 24);
FRAMEBUS_AT(RawCandidate, reserved, 28);
#undef FRAMEBUS_AT
#endif

#endif
