// The entries of a sparse sign sketch for a sweep that gathers rows of A: the lists of gather.cu, and S itself.
#include "entries.cuh"

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

// The lists of all lanes: blocks are (lanes, parts), parts (parts, 4) are first_row, rows, first_z, blocks; capacity
// and width hold for the largest part.
//
// Leaves list (parts, lanes, capacity) of entries: the row of A in its lane in 16 bits, the row of S in its part from
// there on, and the sign on top. bounds (parts, lanes, width) say where each row of S begins, and from bit 16 on how
// many entries it has.
extern "C" __global__ void __launch_bounds__(THREADS)
    order(u64 key, i64 start, i64 count, i64 d, i64 nnz, const i64* parts, i64 lane_rows, i64 capacity, i64 width,
          u32* list, u32* bounds) {
    const i64 lane = blockIdx.x, here = blockIdx.y * (i64)gridDim.x + lane, first = lane * lane_rows;
    const Part part = part_of(parts, blockIdx.y);
    const int rows = (int)smaller(lane_rows, count - first), wide = (int)width;
    list += here * capacity;
    bounds += here * width;

    SHARED(u32, room);
    u32* const place = room;                      // (width): how many entries, then where the next goes
    u32* const meet = place + wide;               // (WARPS)
    u32* const edges = meet + WARPS;              // (MOST_BLOCKS + 1)
    u32* const sorted = edges + MOST_BLOCKS + 1;  // (capacity)
    clear(part, d, nnz, edges, place, wide);
    each_entry(key, start + first, rows, part, edges, [&](u32 row, u32, u32) { atomicAdd(place + row, 1u); });
    __syncthreads();

    add_up(place, wide, meet);
    each_entry(key, start + first, rows, part, edges, [&](u32 row, u32 i, u32 sign) {
        sorted[atomicAdd(place + row, 1u)] = sign | row << 16 | i;
    });
    __syncthreads();
    for (int r = threadIdx.x; r < wide; r += THREADS) {
        const u32 low = r ? place[r - 1] : 0, have = place[r] - low;
        bounds[r] = low | have << 16;
        sort(sorted + low, have);
    }
    __syncthreads();
    const u32 total = place[wide - 1];
    for (u32 p = threadIdx.x; p < total; p += THREADS) list[p] = sorted[p];
}
