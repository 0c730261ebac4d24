// Which rows of A meet which rows of a sparse sign sketch: nnz disjoint row blocks of S, one +-1 of each column of S in
// each of them. nnz = 1 is CountSketch. The factor 1/sqrt(nnz) is left to whoever adds up.
//
// Rows of A are cut into lanes, and the entries of S in the columns of a lane are listed by row of S, then by row of A.
// So a sweep gathers what belongs together, adds in a fixed order, and needs no atomics; the lists are small beside the
// rows. Integers are counted by atomics, which have one result; they hand out places in any order, and each row of S,
// with a few entries in a lane, is sorted after that.
#pragma once
#include "philox.cuh"

#define TAG 1  // rpcls.random.STREAM_TAGS["sparse-sign"]
#ifndef THREADS
#define THREADS 512
#endif
#define WARPS (THREADS / WARP)
#define MOST_BLOCKS 16  // z of a part

__device__ __forceinline__ u64 code_of(u32 word, u64 first, u64 width) {
    return ((first + (((word >> 1) * width) >> 31)) << 1) | (word & 1u);
}

// Rows first_row ... of S and the blocks z that they belong to: a share of one, or several whole.
struct Part {
    i64 first_row, rows, first_z, blocks;
};

__device__ __forceinline__ Part part_of(const i64* parts, i64 which) {
    const i64* const cut = parts + 4 * which;
    return Part{cut[0], cut[1], cut[2], cut[3]};
}

// Hand every entry of a lane that falls into the part to `take(row of S in the part, row of A in the lane, sign bit)`.
// edges (blocks + 1) are where those blocks begin in S.
template <typename Take>
__device__ __forceinline__ void each_entry(u64 key, i64 start, int rows, Part part, const u32* edges, Take take) {
    const i64 first_draw = part.first_z / 4;
    const int draws = (int)((part.first_z + part.blocks + 3) / 4 - first_draw);
    for (i64 draw = first_draw; draw < first_draw + draws; ++draw)
        for (int i = threadIdx.x; i < rows; i += THREADS) {
            const Words drawn = philox(key, (u64)(start + i), (u32)draw, TAG);
#pragma unroll
            for (int word = 0; word < 4; ++word) {
                const int z = (int)(4 * draw + word - part.first_z);
                if (z < 0 || z >= part.blocks) continue;
                const u64 code = code_of(drawn.w[word], edges[z], edges[z + 1] - edges[z]);
                const u32 row = (u32)(code >> 1) - (u32)part.first_row;  // wraps around below the first
                if (row < (u32)part.rows) take(row, (u32)i, (u32)(code & 1u) << 31);
            }
        }
}

// Where the blocks of the part begin in S, and no entries yet in its `width` rows. All threads call it.
__device__ __forceinline__ void clear(Part part, i64 d, i64 nnz, u32* edges, u32* counts, int width) {
    if (threadIdx.x <= part.blocks) edges[threadIdx.x] = (u32)((part.first_z + threadIdx.x) * d / nnz);
    for (int r = threadIdx.x; r < width; r += THREADS) counts[r] = 0;
    __syncthreads();
}

// Replace each of `count` numbers by the sum of those before it; room (WARPS) is shared. All threads call it, each for
// an odd number of them, so that those of a warp are in different banks.
__device__ __forceinline__ void add_up(u32* numbers, int count, u32* room) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, each = (count + THREADS - 1) / THREADS | 1;
    const int begin = (int)smaller(count, threadIdx.x * each), end = (int)smaller(count, begin + each);
    u32 own = 0;
    for (int i = begin; i < end; ++i) own += numbers[i];
    u32 total = own;
    for (int apart = 1; apart < WARP; apart *= 2) {
        const u32 other = __shfl_sync(EVERY_LANE, total, (lane - apart) & (WARP - 1));
        if (lane >= apart) total += other;
    }
    if (lane == WARP - 1) room[warp] = total;
    __syncthreads();
    u32 before = total - own;
    for (int w = 0; w < warp; ++w) before += room[w];
    for (int i = begin; i < end; ++i) {
        const u32 number = numbers[i];
        numbers[i] = before;
        before += number;
    }
    __syncthreads();
}

// Sort entries by their lower sixteen bits.
template <typename Entry>
__device__ __forceinline__ void sort(Entry* entries, u32 count) {
    for (u32 p = 1; p < count; ++p) {
        const Entry entry = entries[p];
        u32 q = p;
        for (; q > 0 && (entries[q - 1] & 0xffffu) > (entry & 0xffffu); --q) entries[q] = entries[q - 1];
        entries[q] = entry;
    }
}
