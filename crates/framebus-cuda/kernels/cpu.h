// What framebus.cu takes from CUDA, as plain C++: a launch becomes loops, a thread
// a call. For tests and for the double that stands in for a GPU; never in a product.
#ifndef FRAMEBUS_CPU_H
#define FRAMEBUS_CPU_H
#define FRAMEBUS_CPU

#include <math.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct Dim3 {
    uint32_t x, y, z;
};
// Per thread of the host: several may run launches at once. Every thread of a grid
// reads them; a shared library's own way to its thread-locals is a call each time,
// which would be half of a letterbox.
static thread_local __attribute__((tls_model("initial-exec"))) Dim3 gridDim, blockDim, blockIdx, threadIdx;

struct float2 {
    float x, y;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline uint32_t min(uint32_t a, uint32_t b) { return b < a ? b : a; }
static inline uint32_t atomicAdd(uint32_t* at, uint32_t value) {
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline float __int_as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t load_byte(const uint8_t* at) { return *at; }
static inline uint32_t load_pair(const uint8_t* at) {
    uint16_t pair;
    memcpy(&pair, at, sizeof pair);
    return pair;
}
static inline float load_float(const float* at) { return *at; }

static inline float load_half(const uint16_t* at) {
    const uint32_t sign = (*at & 0x8000u) << 16, exponent = *at >> 10 & 31, mantissa = *at & 1023;
    // 2^-24 is one unit of a subnormal.
    if (exponent == 0) return copysignf(mantissa * 0x1p-24f, __int_as_float(sign));
    const uint32_t widened = exponent == 31 ? 255 : exponent + 112;
    return __int_as_float(sign | widened << 23 | mantissa << 13);
}

// To nearest, ties to even, as cvt.rn does; NaN is 0x7fff there.
static inline uint16_t to_half(float value) {
    const uint32_t bits = bits_of(value), size = bits & 0x7fffffffu;
    const uint32_t sign = bits >> 16 & 0x8000u;
    if (size > 0x7f800000u) return 0x7fff;
    // From 65520 on the nearest is infinity.
    if (size >= 0x477ff000u) return sign | 0x7c00u;
    if (size < 0x38800000u) {
        // A subnormal is a whole number of 2^-24; the sum rounds to one.
        return sign | (bits_of(fabsf(value) * 0x1p24f + 8388608.0f) & 0x7ffu);
    }
    // The carry of the rounding goes on into the exponent, which is right.
    return sign | (size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13;
}

#endif
