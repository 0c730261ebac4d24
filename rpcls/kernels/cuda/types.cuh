// What every kernel shares: integer names, the element type of A, and how work meets the card.
//
// Each file is compiled once for each type of input: -DINPUT=32 (float, the default), 64 (double), 16 (IEEE half) or
// 116 (bfloat16). Sums over rows are double; products and b are `Real`, float for the 16-bit inputs.
//
// Everything is compiled with --fmad=false: the compiler fuses nothing, so streams have the same bits on every device,
// and products fuse where they say fma. No sum is made by atomics: every entry of an accumulator belongs to one thread,
// which adds to it in a fixed order. Results are the same from run to run, and there is no other mode.
#pragma once

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef INPUT
#define INPUT 32
#endif

#define WARP 32
#define EVERY_LANE 0xffffffffu

#if INPUT == 64
typedef double Input;
typedef double Real;
__device__ __forceinline__ Real widen(Input x) { return x; }
#elif INPUT == 32
typedef float Input;
typedef float Real;
__device__ __forceinline__ Real widen(Input x) { return x; }
#else
typedef u16 Input;  // the bits; conversions are exact, and need no header
typedef float Real;

__device__ __forceinline__ float float_of(u32 bits) {
    union {
        u32 word;
        float value;
    } both;
    both.word = bits;
    return both.value;
}

__device__ __forceinline__ Real widen(Input x) {
#if INPUT == 16
    const u32 magnitude = x & 0x7fffu;
    const float value = magnitude < 0x0400u ? (float)magnitude * 5.9604644775390625e-08f  // 2^-24; no float subnormals
                        : magnitude < 0x7c00u ? float_of((magnitude << 13) + 0x38000000u)
                                              : float_of(magnitude << 13 | 0x7f800000u);  // infinity and NaN
    return x & 0x8000u ? -value : value;
#else
    return float_of((u32)x << 16);
#endif
}
#endif

// The value, or its negative where the highest bit of `entry` is set.
__device__ __forceinline__ Real signed_by(Real value, u32 entry) {
    union {
        Real value;
        u32 words[sizeof(Real) / sizeof(u32)];
    } both;
    both.value = value;
    both.words[sizeof(Real) / sizeof(u32) - 1] ^= entry & 0x80000000u;
    return both.value;
}

__device__ __forceinline__ i64 smaller(i64 a, i64 b) { return a < b ? a : b; }

// A sum over the lanes of a warp, in a fixed order, on each of them.
__device__ __forceinline__ double warp_sum(double value) {
    for (int apart = WARP / 2; apart; apart /= 2) value += __shfl_xor_sync(EVERY_LANE, value, apart);
    return value;
}

// Copy 4, 8 or 16 bytes into shared memory without waiting for them, or zeros where they are not there. They are the
// thread's own to read after copies_arrived, and its block's after one more barrier. Cards before sm_80 wait.
template <typename Chunk>
__device__ __forceinline__ void copy_async(Chunk* to, const Chunk* from, bool there) {
#if __CUDA_ARCH__ >= 800
    const u32 place = (u32)__cvta_generic_to_shared(to), bytes = there ? (u32)sizeof(Chunk) : 0;
    if (sizeof(Chunk) == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(place), "l"(from), "n"(sizeof(Chunk)),
                     "r"(bytes) : "memory");
#else
    *to = there ? *from : Chunk{};
#endif
}

__device__ __forceinline__ void copies_arrived() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Dynamic shared memory, as an array of some type; its size is given at the launch.
#ifndef SHARED
#define SHARED(type, name) extern __shared__ type name[]
#endif
