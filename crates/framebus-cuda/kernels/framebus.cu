// The two kernels of the GPU path, around the network:
//   framebus_letterbox: frames of NV12 or RGB24 -> the network's input
//   framebus_decode:    maps of a cut head -> candidate boxes
//
// Definitions are those of the crate framebus-vision (modules `resample` and
// `heads`), which a test compares them with. The same text compiles as C++
// (cpu.cpp), so that it runs where there is no GPU.
//
// No headers but our own: NVRTC has none, and PTX made without a toolkit's
// headers is the same text on every machine.
#include "framebus.h"

#ifndef FRAMEBUS_CPU
// ---- what the CPU build has its own version of (cpu.h) ------------------------

// Source pixels and maps do not change while a kernel runs: __ldg takes them
// through the read-only path, which a pointer out of a table would not get.
static __device__ __forceinline__ uint32_t load_byte(const uint8_t* at) { return __ldg(at); }
static __device__ __forceinline__ uint32_t load_pair(const uint8_t* at) {
    return __ldg(reinterpret_cast<const uint16_t*>(at));
}
static __device__ __forceinline__ float load_float(const float* at) { return __ldg(at); }
static __device__ __forceinline__ float load_half(const uint16_t* at) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(__ldg(at)));
    return value;
}
static __device__ __forceinline__ uint16_t to_half(float value) {
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

// ---- letterbox -----------------------------------------------------------------

// Grey that YOLO models see around a picture.
#define PADDING (114.0f / 255.0f)

struct Rgb {
    float r, g, b;
};

// Two neighbouring samples of an axis and the weight of the second.
struct Tap {
    uint32_t first, second;
    float weight;
};

// Position of output pixel `d` in source samples, 32.32: (d + 0.5) * step - 0.5.
static __device__ __forceinline__ int64_t position(uint32_t d, uint64_t step) {
    return static_cast<int64_t>(d * step + (step >> 1)) - 0x80000000LL;
}

// The samples around `at`, clamped to the edge ones.
static __device__ __forceinline__ Tap tap(int64_t at, uint32_t samples) {
    const uint32_t last = samples - 1;
    Tap t;
    // Before the first sample both are the first, and after the last the last:
    // the weight does not matter then.
    const int64_t whole = at >> 32;
    t.first = whole < 0 ? 0 : min(static_cast<uint32_t>(whole), last);
    t.second = whole < 0 ? 0 : min(t.first + 1, last);
    t.weight = static_cast<float>(static_cast<uint32_t>(at)) * (1.0f / 4294967296.0f);
    return t;
}

static __device__ __forceinline__ float mix(float a, float b, float weight) {
    return a + (b - a) * weight;
}

// Upper left, upper right, lower left, lower right.
static __device__ __forceinline__ float mix4(
    uint32_t a, uint32_t b, uint32_t c, uint32_t d, float x, float y) {
    const float upper = mix(static_cast<float>(a), static_cast<float>(b), x);
    const float lower = mix(static_cast<float>(c), static_cast<float>(d), x);
    return mix(upper, lower, y);
}

static __device__ __forceinline__ float unit(float value) {
    return fminf(fmaxf(value, 0.0f), 1.0f);
}

// The rows that one output row is made of.
struct Rows {
    const uint8_t *upper, *lower;
    float weight;
};

static __device__ __forceinline__ Rows rows(const uint8_t* plane, uint32_t stride, Tap t) {
    return {plane + static_cast<uint64_t>(t.first) * stride,
            plane + static_cast<uint64_t>(t.second) * stride, t.weight};
}

// Cb in the low byte, Cr in the next. Nothing promises that planes and strides
// are even; where they are, one load takes both. `even` is the same for all
// threads of a frame.
static __device__ __forceinline__ uint32_t chroma(const uint8_t* row, uint32_t i, bool even) {
    const uint8_t* at = row + 2 * i;
    return even ? load_pair(at) : load_byte(at) | load_byte(at + 1) << 8;
}

static __device__ __forceinline__ Rgb nv12_pixel(
    const FrameEntry& e, const Rows& y, const Rows& uv, bool even, uint32_t column) {
    const int64_t at = position(column, e.step_x);
    const Tap l = tap(at, e.width);
    // Chroma sample i lies at luma 2i + site.
    const Tap c = tap((at - e.site) >> 1, (e.width + 1) / 2);

    const float luma = mix4(load_byte(y.upper + l.first), load_byte(y.upper + l.second),
                            load_byte(y.lower + l.first), load_byte(y.lower + l.second),
                            l.weight, y.weight);
    const uint32_t ul = chroma(uv.upper, c.first, even), ur = chroma(uv.upper, c.second, even);
    const uint32_t ll = chroma(uv.lower, c.first, even), lr = chroma(uv.lower, c.second, even);
    const float cb = mix4(ul & 255, ur & 255, ll & 255, lr & 255, c.weight, uv.weight);
    const float cr = mix4(ul >> 8, ur >> 8, ll >> 8, lr >> 8, c.weight, uv.weight);

    const float base = luma * e.luma;
    return {unit(base + cr * e.red_cr + e.constant[0]),
            unit(base + cb * e.green_cb + cr * e.green_cr + e.constant[1]),
            unit(base + cb * e.blue_cb + e.constant[2])};
}

static __device__ __forceinline__ Rgb rgb_pixel(
    const FrameEntry& e, const Rows& row, uint32_t column) {
    const Tap x = tap(position(column, e.step_x), e.width);
    const uint8_t *ul = row.upper + 3 * x.first, *ur = row.upper + 3 * x.second;
    const uint8_t *ll = row.lower + 3 * x.first, *lr = row.lower + 3 * x.second;
    float value[3];
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        const float code = mix4(load_byte(ul + c), load_byte(ur + c), load_byte(ll + c),
                                load_byte(lr + c), x.weight, row.weight);
        value[c] = unit(code * (1.0f / 255.0f));
    }
    return {value[0], value[1], value[2]};
}

// Writes two neighbours of a row, in one store where the address allows it. `both`:
// the second one is inside the row.
static __device__ __forceinline__ void store(
    void* out, uint64_t index, float first, float second, bool both, bool aligned, uint32_t half) {
    if (half) {
        uint16_t* at = static_cast<uint16_t*>(out) + index;
        const uint16_t a = to_half(first), b = to_half(second);
        if (aligned) {
            *reinterpret_cast<uint32_t*>(at) = a | static_cast<uint32_t>(b) << 16;
        } else {
            at[0] = a;
            if (both) at[1] = b;
        }
    } else {
        float* at = static_cast<float*>(out) + index;
        if (aligned) {
            *reinterpret_cast<float2*>(at) = make_float2(first, second);
        } else {
            at[0] = first;
            if (both) at[1] = second;
        }
    }
}

// `out`: [batch, 3, height, width] of f32 (half = 0) or f16 (half = 1), at a
// multiple of 8 bytes. A source of any size up to 65536 a side.
//
// Block (32, 8); a thread writes FRAMEBUS_PIXELS neighbours of one row, so the grid
// is (ceil(width / 64), ceil(height / 8), batch); a larger one does no harm. A warp
// reads neighbouring columns of the same source rows: each byte comes out of memory
// about once, and what threads share comes out of the L1 cache.
extern "C" __global__ void __launch_bounds__(256) framebus_letterbox(
    const FrameEntry* __restrict__ frames, void* __restrict__ out, uint32_t width, uint32_t height,
    uint32_t half) {
    const uint32_t x = (blockIdx.x * blockDim.x + threadIdx.x) * FRAMEBUS_PIXELS;
    const uint32_t y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const FrameEntry& e = frames[blockIdx.z];

    Rgb pixels[FRAMEBUS_PIXELS];
#pragma unroll
    for (uint32_t i = 0; i < FRAMEBUS_PIXELS; ++i) pixels[i] = {PADDING, PADDING, PADDING};

    // Unsigned: what lies before the picture wraps to behind it.
    const uint32_t row = y - e.top;
    if (row < e.resized_height) {
        const int64_t at = position(row, e.step_y);
        const Rows luma = rows(e.y, e.y_stride, tap(at, e.height));
        if (e.format == FRAMEBUS_NV12) {
            // Vertically a chroma sample is centred between its luma rows.
            const Tap t = tap((at - 0x80000000LL) >> 1, (e.height + 1) / 2);
            const Rows chroma_rows = rows(e.uv, e.uv_stride, t);
            const bool even = ((reinterpret_cast<uint64_t>(e.uv) | e.uv_stride) & 1) == 0;
#pragma unroll
            for (uint32_t i = 0; i < FRAMEBUS_PIXELS; ++i) {
                const uint32_t column = x + i - e.left;
                if (column < e.resized_width)
                    pixels[i] = nv12_pixel(e, luma, chroma_rows, even, column);
            }
        } else {
#pragma unroll
            for (uint32_t i = 0; i < FRAMEBUS_PIXELS; ++i) {
                const uint32_t column = x + i - e.left;
                if (column < e.resized_width) pixels[i] = rgb_pixel(e, luma, column);
            }
        }
    }

    const uint64_t plane = static_cast<uint64_t>(width) * height;
    const uint64_t index =
        3 * plane * blockIdx.z + static_cast<uint64_t>(y) * width + x;
    // An even width makes every row of every plane start at a whole pair.
    const bool both = x + 1 < width, aligned = width % 2 == 0;
    store(out, index, pixels[0].r, pixels[1].r, both, aligned, half);
    store(out, index + plane, pixels[0].g, pixels[1].g, both, aligned, half);
    store(out, index + 2 * plane, pixels[0].b, pixels[1].b, both, aligned, half);
}
static_assert(FRAMEBUS_PIXELS == 2, "framebus_letterbox stores pairs");

// ---- decode --------------------------------------------------------------------

// Overloads for the two types a map has: f32, and the bits of an f16.
static __device__ __forceinline__ float load(const float* at) { return load_float(at); }
static __device__ __forceinline__ float load(const uint16_t* at) { return load_half(at); }

#define INFINITE __int_as_float(0x7f800000)

// False for NaN, too.
static __device__ __forceinline__ bool is_finite(float value) {
    return fabsf(value) < INFINITE;
}

// The first class of the largest logit, and how many are not finite.
struct Best {
    float logit;
    uint32_t cls, broken;
};

template <typename T>
static __device__ __forceinline__ Best strongest(
    const T* __restrict__ at, uint32_t nclasses, uint32_t cells) {
    Best best = {-INFINITE, 0, 0};
    // Loads of several classes are on their way at once.
#pragma unroll 8
    for (uint32_t c = 0; c < nclasses; ++c, at += cells) {
        const float logit = load(at);
        best.broken += !is_finite(logit);
        if (logit > best.logit) {
            best.logit = logit;
            best.cls = c;
        }
    }
    return best;
}

// Expectation of a distribution over `bins` distances: sum of softmax(logits)[i] * i
// (Distribution Focal Loss, Li et al. 2020, arXiv:2006.04388). One bin is the
// distance itself. Adds the values that are not finite to `broken`.
template <typename T>
static __device__ __forceinline__ float distance(
    const T* __restrict__ at, uint32_t bins, uint32_t cells, uint32_t& broken) {
    float most = -INFINITE, value = 0.0f;
#pragma unroll 8
    for (uint32_t bin = 0; bin < bins; ++bin) {
        value = load(at + static_cast<uint64_t>(bin) * cells);
        broken += !is_finite(value);
        most = fmaxf(most, value);
    }
    if (bins == 1) return value;
    // Read once more: registers for any number of bins do not exist, and the L1
    // cache still holds the values.
    float total = 0.0f, moment = 0.0f;
#pragma unroll 4
    for (uint32_t bin = 0; bin < bins; ++bin) {
        const float weight = expf(load(at + static_cast<uint64_t>(bin) * cells) - most);
        total += weight;
        moment += weight * static_cast<float>(bin);
    }
    return moment / total;
}

template <typename T>
static __device__ __forceinline__ void decode(
    float limit, const T* __restrict__ boxes, const T* __restrict__ classes, uint32_t bins,
    uint32_t nclasses, uint32_t width, uint32_t cells, uint32_t stride, uint32_t first_cell,
    uint32_t capacity, uint32_t* __restrict__ counts, RawCandidate* __restrict__ candidates) {
    const uint32_t cell = blockIdx.x * blockDim.x + threadIdx.x, frame = blockIdx.y;
    if (cell >= cells) return;

    const uint64_t class_channel = static_cast<uint64_t>(frame) * nclasses;
    const Best best = strongest(classes + class_channel * cells + cell, nclasses, cells);
    if (best.broken > 0) {
        atomicAdd(&counts[2 * frame + 1], best.broken);
        return;
    }
    if (!(best.logit >= limit)) return;

    float sides[4];
    uint32_t broken = 0;
    // Few cells get here: small code instead of fast.
#pragma unroll 1
    for (uint32_t side = 0; side < 4; ++side) {
        const uint64_t channel = (static_cast<uint64_t>(frame) * 4 + side) * bins;
        const float value = distance(boxes + channel * cells + cell, bins, cells, broken);
        // An index that is no constant would put the array into memory.
        if (side == 0) sides[0] = value;
        if (side == 1) sides[1] = value;
        if (side == 2) sides[2] = value;
        if (side == 3) sides[3] = value;
    }
    if (broken > 0) {
        atomicAdd(&counts[2 * frame + 1], broken);
        return;
    }

    const uint32_t slot = atomicAdd(&counts[2 * frame], 1u);
    if (slot >= capacity) return;
    const float x = static_cast<float>(cell % width) + 0.5f;
    const float y = static_cast<float>(cell / width) + 0.5f;
    const float scale = static_cast<float>(stride);
    RawCandidate found;
    found.bbox[0] = (x - sides[0]) * scale;
    found.bbox[1] = (y - sides[1]) * scale;
    found.bbox[2] = (x + sides[2]) * scale;
    found.bbox[3] = (y + sides[3]) * scale;
    found.logit = best.logit;
    found.cls = best.cls;
    found.cell = first_cell + cell;
    found.reserved = 0;
    candidates[static_cast<uint64_t>(frame) * capacity + slot] = found;
}

// One scale of a cut head: `boxes` [batch, 4 * bins, height, width] and `classes`
// [batch, nclasses, height, width] of f32 (half = 0) or f16 (half = 1).
//
// counts[2 * frame] counts the candidates, those that found no room in `capacity`
// included; counts[2 * frame + 1] the values that are not finite, of class logits
// and, where these passed, of box values: such a cell is no candidate. The host
// sets both to zero before the first scale. candidates[frame * capacity ..] come in
// no particular order.
//
// Boxes without an area, and those that overflowed, are the host's to sort out, as
// is the exact threshold (entry.logit lets a few ulp too much through).
//
// Block 128, grid (ceil(cells / 128), batch): a thread looks at one cell, so that a
// warp reads neighbouring cells of one class at a time. Nearly all cells end after
// that.
extern "C" __global__ void __launch_bounds__(128) framebus_decode(
    const FrameEntry* __restrict__ frames, const void* __restrict__ boxes,
    const void* __restrict__ classes, uint32_t half, uint32_t bins, uint32_t nclasses,
    uint32_t width, uint32_t height, uint32_t stride, uint32_t first_cell, uint32_t capacity,
    uint32_t* __restrict__ counts, RawCandidate* __restrict__ candidates) {
    const uint32_t cells = width * height;
    const float limit = frames[blockIdx.y].logit;
    if (half) {
        decode(limit, static_cast<const uint16_t*>(boxes), static_cast<const uint16_t*>(classes),
               bins, nclasses, width, cells, stride, first_cell, capacity, counts, candidates);
    } else {
        decode(limit, static_cast<const float*>(boxes), static_cast<const float*>(classes), bins,
               nclasses, width, cells, stride, first_cell, capacity, counts, candidates);
    }
}
