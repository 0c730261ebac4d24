// Philox4x32-10; the layout of counters is in rpcls/random.py.
#pragma once
#include "types.cuh"

struct Words {
    u32 w[4];
};

// The four words of one draw.
__device__ __forceinline__ Words philox(u64 key, u64 index, u32 draw, u32 tag) {
    u32 k0 = (u32)key, k1 = (u32)(key >> 32);
    u32 c0 = (u32)index, c1 = (u32)(index >> 32), c2 = draw, c3 = tag;
    for (int round = 0; round < 10; ++round) {
        const u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2;
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        c1 = (u32)p1;
        c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c3 = (u32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words out = {{c0, c1, c2, c3}};
    return out;
}

// Word `place` of a draw, from registers.
__device__ __forceinline__ u32 word_of(Words drawn, int place) {
    return place == 0 ? drawn.w[0] : place == 1 ? drawn.w[1] : place == 2 ? drawn.w[2] : drawn.w[3];
}
