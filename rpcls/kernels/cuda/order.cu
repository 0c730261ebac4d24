// Which rows of A meet which rows of a sparse sign sketch: nnz disjoint row blocks of S, one +-1 of each column of S in
// each of them. nnz = 1 is CountSketch. The factor 1/sqrt(nnz) is left to whoever adds up.
//
// Rows of A are cut into lanes, and the entries of S in the columns of a lane are listed by row of S, then by row of A.
// So a sweep gathers what belongs together, adds in a fixed order, and needs no atomics; the list is small beside the
// rows.
#include "philox.cuh"

#define TAG 1  // rpcls.random.STREAM_TAGS["sparse-sign"]
#define THREADS 512
#define WARPS (THREADS / WARP)
#define MOST_BLOCKS 16    // z of a part
#define SHARES 32         // warps that share out a lane, where lanes are shared out
#define VECTOR 4          // entries that they read at a time: their shares begin at multiples
#define LAST 0x40000000u  // in shared memory: no more of this row of S

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

// Hand every entry of a lane that falls into the part to `take(row of S in the part, row of A in the lane, sign bit)`.
// edges (blocks + 1) are where those blocks begin in S.
template <typename Take>
__device__ __forceinline__ void each_entry(u64 key, i64 start, int rows, Part part, const u32* edges, Take take) {
    const i64 first_draw = part.first_z / 4;
    const int draws = (int)((part.first_z + part.blocks + 3) / 4 - first_draw);
    for (int place = threadIdx.x; place < rows * draws; place += THREADS) {
        const int i = place % rows;
        const i64 draw = first_draw + place / rows;
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

// The sum of `own` over the threads before this one; room (WARPS) is shared. All threads call it.
__device__ __forceinline__ u32 sum_before(u32 own, u32* room) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 total = own;
    for (int apart = 1; apart < WARP; apart *= 2) {
        const u32 other = __shfl_sync(EVERY_LANE, total, (lane - apart) & (WARP - 1));
        if (lane >= apart) total += other;
    }
    if (lane == WARP - 1) room[warp] = total;
    __syncthreads();
    u32 before = total - own;
    for (int w = 0; w < warp; ++w) before += room[w];
    __syncthreads();
    return before;
}

// The lists of all lanes: blocks are (lanes, parts), parts (parts, 4) are first_row, rows, first_z, blocks; capacity
// and width hold for the largest part.
//
// Leaves list (parts, lanes, capacity) of entries: the row of A in its lane, times 2^shift, in 16 bits, the row of S in
// its part from there on, and the sign on top. bounds (parts, lanes, width) say where each row of S begins, and from
// bit 16 on how many entries it has.
//
// Unless null, shares (parts, lanes, SHARES + 1) cut the list evenly into shares that begin at multiples of VECTOR.
// Then every row of S has an even number of entries, the last perhaps of the row of A behind the lane's; rows of S
// behind the part's fill the shares up. capacity must have room for all that.
//
// Integers are counted by atomics, which have one result. They hand out places in any order; each row of S, with a few
// entries in a lane, is sorted after that.
extern "C" __global__ void __launch_bounds__(THREADS)
    order(u64 key, i64 start, i64 count, i64 d, i64 nnz, const i64* parts, i64 lane_rows, i64 shift, i64 capacity,
          i64 width, u32* list, u32* bounds, u32* shares) {
    const i64 lane = blockIdx.x, here = blockIdx.y * (i64)gridDim.x + lane, first = lane * lane_rows;
    const i64* const cut = parts + 4 * blockIdx.y;
    const Part part = {cut[0], cut[1], cut[2], cut[3]};
    const int rows = (int)smaller(lane_rows, count - first), wide = (int)width;
    list += here * capacity;
    bounds += here * width;

    SHARED(u32, room);
    u32* const place = room;                    // (width): how many entries, then where the next goes
    u32* const meet = place + wide;             // (WARPS)
    u32* const edges = meet + WARPS;            // (MOST_BLOCKS + 1): where the blocks of the part begin in S
    u32* const edge = edges + MOST_BLOCKS + 1;  // (SHARES + 1): where shares begin among the sorted
    u32* const begins = edge + SHARES + 1;      // (SHARES): and where in the list
    u32* const sorted = begins + SHARES;        // (entries)
    if (threadIdx.x <= part.blocks) edges[threadIdx.x] = (u32)((part.first_z + threadIdx.x) * d / nnz);
    for (int r = threadIdx.x; r < wide; r += THREADS) place[r] = 0;
    __syncthreads();
    each_entry(key, start + first, rows, part, edges, [&](u32 row, u32, u32) { atomicAdd(place + row, 1u); });
    __syncthreads();

    const int each = (wide + THREADS - 1) / THREADS, begin = (int)smaller(wide, threadIdx.x * each);
    const int end = (int)smaller(wide, begin + each);
    const u32 even = shares ? 1u : 0u;  // added, then cleared
    u32 own = 0;
    for (int r = begin; r < end; ++r) own += (place[r] + even) & ~even;
    u32 next = sum_before(own, meet);
    for (int r = begin; r < end; ++r) {
        const u32 have = (place[r] + even) & ~even, odd = place[r] & even;
        bounds[r] = next | place[r] << 16;
        place[r] = next;
        next += have;
        if (odd) sorted[next - 1] = (u32)r << 16 | (u32)lane_rows;
    }
    if (threadIdx.x == THREADS - 1) edge[SHARES] = next;
    __syncthreads();
    const u32 total = edge[SHARES];

    each_entry(key, start + first, rows, part, edges, [&](u32 row, u32 i, u32 sign) {
        sorted[atomicAdd(place + row, 1u)] = sign | row << 16 | i;
    });
    __syncthreads();
    for (int r = threadIdx.x; r < wide; r += THREADS) {
        const u32 high = place[r], low = high - (bounds[r] >> 16);
        for (u32 p = low + 1; p < high; ++p) {
            const u32 entry = sorted[p];
            u32 q = p;
            for (; q > low && (sorted[q - 1] & 0xffffu) > (entry & 0xffffu); --q) sorted[q] = sorted[q - 1];
            sorted[q] = entry;
        }
        if (high > low) sorted[high - 1 + ((high - low) & even)] |= LAST;
    }
    __syncthreads();

    if (shares) {  // an even share, moved to the next end of a row of S, each by a lane of the first warp
        const int w = threadIdx.x;
        if (w < SHARES) {
            u32 p = total * w / SHARES;
            while (p > 0 && p < total && !(sorted[p - 1] & LAST)) ++p;
            edge[w] = p;
            const u32 after = __shfl_sync(EVERY_LANE, p, (w + 1) % SHARES);
            const u32 wants = ((w + 1 < SHARES ? after : total) - p + VECTOR - 1) / VECTOR * VECTOR;
            u32 at = wants;
            for (int apart = 1; apart < WARP; apart *= 2) {
                const u32 other = __shfl_sync(EVERY_LANE, at, (w - apart) & (WARP - 1));
                if (w >= apart) at += other;
            }
            begins[w] = shares[here * (SHARES + 1) + w] = at - wants;
            if (w == SHARES - 1) shares[here * (SHARES + 1) + SHARES] = at;
        }
        __syncthreads();
    }
    if (!shares) {
        for (u32 p = threadIdx.x; p < total; p += THREADS)
            list[p] = (sorted[p] & ~(LAST | 0xffffu)) | (sorted[p] & 0xffffu) << shift;
        return;
    }
    for (int r = threadIdx.x; r < wide; r += THREADS) {
        const u32 low = bounds[r] & 0xffffu;
        int w = 0;  // the last share that begins at it or before
        for (int step = SHARES / 2; step; step /= 2)
            if (edge[w + step] <= low) w += step;
        bounds[r] += begins[w] - edge[w];
    }
    const u32 filler = (u32)part.rows << 16 | (u32)lane_rows << shift;
    for (int w = threadIdx.x / WARP; w < SHARES; w += WARPS) {
        const u32 low = edge[w], high = edge[w + 1], at = begins[w];
        for (u32 p = threadIdx.x % WARP; p < (high - low + VECTOR - 1) / VECTOR * VECTOR; p += WARP) {
            const u32 entry = low + p < high ? sorted[low + p] : 0;
            list[at + p] = low + p < high ? (entry & ~(LAST | 0xffffu)) | (entry & 0xffffu) << shift : filler;
        }
    }
}
