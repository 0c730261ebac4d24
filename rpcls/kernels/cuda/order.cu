// Which rows of A meet which rows of a sparse sign sketch: nnz disjoint row blocks of S, one +-1 of each column of S in
// each of them. nnz = 1 is CountSketch. The factor 1/sqrt(nnz) is left to whoever adds up.
//
// Rows of A are cut into lanes, and the entries of S in the columns of a lane are listed by row of S, then by row of A.
// So a sweep gathers what belongs together, adds in a fixed order, and needs no atomics; the list is small beside the
// rows, which are read once.
#include "philox.cuh"

#define TAG 1  // rpcls.random.STREAM_TAGS["sparse-sign"]
#define THREADS 512

// An entry of a list: the row of A in its lane, the row of S in its part, whether it is the last of that row of S, and
// whether it is a minus one.
#define ROW_BITS 13
#define LAST 0x40000000u
#define MINUS 0x80000000u

__device__ __forceinline__ u64 code_of(u32 word, u64 first, u64 width) {
    return ((first + (((word >> 1) * width) >> 31)) << 1) | (word & 1u);
}

// The codes of columns start, start + 1, ... of S (d rows) into out (nnz, count): twice the row of S, plus one for a
// minus sign. One thread a draw.
extern "C" __global__ void codes(u64 key, i64 start, i64 count, i64 d, i64 nnz, u32* out) {
    const i64 draws = (nnz + 3) / 4, place = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= count * draws) return;
    const i64 i = place % count, draw = place / count;
    const Words drawn = philox(key, (u64)(start + i), (u32)draw, TAG);
    for (i64 z = 4 * draw; z < smaller(4 * draw + 4, nnz); ++z) {
        const u64 first = z * d / nnz, width = (z + 1) * d / nnz - first;
        out[z * count + i] = (u32)code_of(word_of(drawn, (int)(z % 4)), first, width);
    }
}

// Rows first_row ... of S and the blocks z that they belong to: a share of one, or several whole.
struct Part {
    i64 first_row, rows, first_z, blocks;
};

// Hand every entry of a lane that falls into the part to `take(row of S in the part, row of A in the lane, minus)`.
template <typename Take>
__device__ __forceinline__ void each_entry(u64 key, i64 start, i64 rows, i64 d, i64 nnz, Part part, Take take) {
    const i64 first_draw = part.first_z / 4, draws = (part.first_z + part.blocks + 3) / 4 - first_draw;
    for (i64 place = threadIdx.x; place < rows * draws; place += THREADS) {
        const i64 i = place % rows, draw = first_draw + place / rows;
        const Words drawn = philox(key, (u64)(start + i), (u32)draw, TAG);
#pragma unroll
        for (int word = 0; word < 4; ++word) {
            const i64 z = 4 * draw + word;
            if (z < part.first_z || z >= part.first_z + part.blocks) continue;
            const u64 first = z * d / nnz, width = (z + 1) * d / nnz - first;
            const u64 code = code_of(drawn.w[word], first, width);
            const i64 row = (i64)(code >> 1) - part.first_row;
            if (row >= 0 && row < part.rows) take((u32)row, (u32)i, (u32)(code & 1u));
        }
    }
}

// The lists of all lanes: blocks are (lanes, parts), parts (parts, 4) are first_row, rows, first_z, blocks. Leaves list
// (parts, lanes, capacity) and bounds (parts, lanes, width + 1): entries bounds[r] to bounds[r + 1] meet row r of the
// part. capacity and width are those of the largest part.
//
// Integers are counted by atomics, which have one result. They hand out places in any order; each row of S, with a few
// entries in a lane, is sorted after that.
extern "C" __global__ void __launch_bounds__(THREADS)
    order(u64 key, i64 start, i64 count, i64 d, i64 nnz, const i64* parts, i64 lane_rows, i64 capacity, i64 width,
          u32* list, u32* bounds) {
    const i64 lane = blockIdx.x;
    const i64* const cut = parts + 4 * blockIdx.y;
    const Part part = {cut[0], cut[1], cut[2], cut[3]};
    const i64 first = lane * lane_rows, rows = smaller(lane_rows, count - first);
    list += (blockIdx.y * gridDim.x + lane) * capacity;
    bounds += (blockIdx.y * gridDim.x + lane) * (width + 1);

    SHARED(u32, room);
    u32* const place = room;                    // (width + 1): how many, then where the next goes
    u32* const chunk = place + width + 1;       // (THREADS + 1)
    u32* const sorted = chunk + (THREADS + 1);  // (capacity)
    for (i64 r = threadIdx.x; r <= width; r += THREADS) place[r] = 0;
    __syncthreads();
    each_entry(key, start + first, rows, d, nnz, part, [&](u32 row, u32, u32) { atomicAdd(place + row, 1u); });
    __syncthreads();

    const i64 each = (width + THREADS - 1) / THREADS, begin = smaller(width, threadIdx.x * each);
    const i64 end = smaller(width, begin + each);
    u32 own = 0;
    for (i64 r = begin; r < end; ++r) own += place[r];
    chunk[threadIdx.x + 1] = own;
    if (threadIdx.x == 0) chunk[0] = 0;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int t = 0; t < THREADS; ++t) chunk[t + 1] += chunk[t];
    __syncthreads();
    u32 next = chunk[threadIdx.x];
    for (i64 r = begin; r < end; ++r) {
        const u32 here = place[r];
        place[r] = bounds[r] = next;
        next += here;
    }
    if (threadIdx.x == 0) bounds[width] = chunk[THREADS];
    __syncthreads();

    each_entry(key, start + first, rows, d, nnz, part, [&](u32 row, u32 i, u32 minus) {
        sorted[atomicAdd(place + row, 1u)] = minus << 31 | row << ROW_BITS | i;
    });
    __syncthreads();
    for (i64 r = threadIdx.x; r < width; r += THREADS) {
        const u32 low = r ? place[r - 1] : 0, high = place[r];
        for (u32 p = low + 1; p < high; ++p) {
            const u32 entry = sorted[p];
            u32 q = p;
            for (; q > low && (sorted[q - 1] & ~MINUS) > (entry & ~MINUS); --q) sorted[q] = sorted[q - 1];
            sorted[q] = entry;
        }
        if (high > low) sorted[high - 1] |= LAST;
    }
    __syncthreads();
    const u32 total = chunk[THREADS];
    for (u32 p = threadIdx.x; p < total; p += THREADS) list[p] = sorted[p];
}
