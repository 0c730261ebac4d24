// Columns of a dense sign matrix.
#include "philox.cuh"

#define TAG 2  // rpcls.random.STREAM_TAGS["rademacher"]

// Columns start, start + 1, ... of the sign matrix into the rows of out (count, d). One thread a word: 32 signs.
extern "C" __global__ void columns(u64 key, i64 start, i64 count, i64 d, Real* out) {
    const i64 words = (d + 31) / 32, place = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= count * words) return;
    const i64 i = place / words, word = place % words, first = 32 * word;
    const u32 bits = word_of(philox(key, (u64)(start + i), (u32)(word / 4), TAG), (int)(word % 4));
    for (i64 bit = 0; bit < smaller(32, d - first); ++bit)
        out[i * d + first + bit] = (Real)1 - (Real)2 * (Real)((bits >> bit) & 1u);
}
