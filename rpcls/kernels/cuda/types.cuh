// What every kernel shares: integer names, the element type of A, and how work meets the card.
//
// Each file is compiled once for each type of input: -DINPUT=32 (float, the default), 64 (double), 16 (IEEE half) or
// 116 (bfloat16). Sums over rows are double; products and b are `Real`, float for the 16-bit inputs.
//
// Everything is compiled with --fmad=false: the compiler fuses nothing, so streams have the same bits on every device,
// and products fuse where they say fma. No kernel uses atomics: every entry of an accumulator belongs to one thread,
// which adds to it in the order of the rows. Results are the same from run to run, and there is no other mode.
#pragma once

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
typedef unsigned short Input;  // the bits; conversions are exact, and need no header
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
    const u32 magnitude = (x & 0x7fffu) << 13;
    const float value = magnitude >= 0x0f800000u ? float_of(magnitude | 0x7f800000u)  // infinity and NaN
                                                 : float_of(magnitude) * 5.192296858534828e+33f;  // 2^112
    return x & 0x8000u ? -value : value;
#else
    return float_of((u32)x << 16);
#endif
}
#endif

__device__ __forceinline__ i64 smaller(i64 a, i64 b) { return a < b ? a : b; }

// Dynamic shared memory, as an array of some type; its size is given at the launch.
#ifndef SHARED
#define SHARED(type, name) extern __shared__ type name[]
#endif
