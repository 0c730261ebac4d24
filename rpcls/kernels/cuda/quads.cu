// The entries of a sparse sign sketch for a sweep over panels of rows of A: the lists of panels.cu, where four rows of
// S go abreast and take an entry each at every step.
#include "entries.cuh"

#define QUAD 4
#define ROW_SHIFT 4  // an entry counts rows of a panel in units of this power of two

// The lists of all lanes, of fewer than 1024 rows of A: blocks are (lanes, parts), parts (parts, 4) are first_row,
// rows, first_z, blocks; capacity, width and quads hold for the largest part.
//
// Leaves list (parts, lanes, capacity): quad after quad, four words for each two steps of a quad, one for each of its
// rows of S. A word is a pair of entries of 16 bits: the sign at the outer end, bit 0 or 31, and from bit 4 or 20 on
// the row of A in a room where the panels of an even and of an odd lane lie one behind the other, and then a row of
// zeros, for rows of S with no entry left. starts (parts, lanes, quads + 1) say where each quad begins, and bounds
// (parts, lanes, width) where each row of S does, and from bit 16 on how many entries it has.
extern "C" __global__ void __launch_bounds__(THREADS)
    quads(u64 key, i64 start, i64 count, i64 d, i64 nnz, const i64* parts, i64 lane_rows, i64 capacity, i64 width,
          i64 quads, u32* list, u32* bounds, u32* starts) {
    const i64 lane = blockIdx.x, here = blockIdx.y * (i64)gridDim.x + lane, first = lane * lane_rows;
    const Part part = part_of(parts, blockIdx.y);
    const int rows = (int)smaller(lane_rows, count - first), wide = (int)width, all = (int)quads;
    list += here * capacity;
    bounds += here * width;
    starts += here * (quads + 1);

    SHARED(u32, room);
    u32* const place = room;                // (4 quads): how many, then where the next goes
    u32* const begins = place + QUAD * all;  // (quads + 1)
    u32* const meet = begins + all + 1;     // (WARPS)
    u32* const edges = meet + WARPS;        // (MOST_BLOCKS + 1)
    u16* const sorted = (u16*)(edges + MOST_BLOCKS + 1);  // (entries)
    clear(part, d, nnz, edges, place, QUAD * all);
    each_entry(key, start + first, rows, part, edges, [&](u32 row, u32, u32) { atomicAdd(place + row, 1u); });
    __syncthreads();

    const int each = (all + THREADS - 1) / THREADS, begin = (int)smaller(all, threadIdx.x * each);
    const int end = (int)smaller(all, begin + each);
    u32 own = 0;  // entries, and words in the upper half
    for (int q = begin; q < end; ++q) {
        u32 most = 0;
        for (int r = QUAD * q; r < QUAD * q + QUAD; ++r) {
            own += place[r];
            most = place[r] > most ? place[r] : most;
        }
        own += (most + 1) / 2 * QUAD << 16;
    }
    const u32 before = sum_before(own, meet);
    u32 next = before & 0xffffu, at = before >> 16;
    for (int q = begin; q < end; ++q) {
        u32 most = 0;
        begins[q] = at;
        for (int r = QUAD * q; r < QUAD * q + QUAD; ++r) {
            const u32 have = place[r];
            if (r < wide) bounds[r] = (at + r % QUAD) | have << 16;
            most = have > most ? have : most;
            place[r] = next;
            next += have;
        }
        at += (most + 1) / 2 * QUAD;
    }
    if (threadIdx.x == THREADS - 1) begins[all] = at;
    __syncthreads();
    each_entry(key, start + first, rows, part, edges, [&](u32 row, u32 i, u32 sign) {
        sorted[atomicAdd(place + row, 1u)] = (u16)(sign >> 16 | i);
    });
    __syncthreads();

    for (int q = threadIdx.x; q <= all; q += THREADS) starts[q] = begins[q];
    const u32 behind = (lane & 1) * (u32)lane_rows, zeros = 2 * (u32)lane_rows;
    for (int r = threadIdx.x; r < QUAD * all; r += THREADS) {
        const u32 low = r ? place[r - 1] : 0, have = place[r] - low;
        u16* const mine = sorted + low;
        sort(mine, have, 0x7fffu);
        u32 word = begins[r / QUAD] + r % QUAD;
        for (u32 p = 0; word < begins[r / QUAD + 1]; p += 2, word += QUAD) {
            u32 row[2], sign[2];
#pragma unroll
            for (u32 half = 0; half < 2; ++half) {
                const u32 entry = p + half < have ? mine[p + half] : 0;
                row[half] = p + half < have ? behind + (entry & 0x7fffu) : zeros;
                sign[half] = entry >> 15;
            }
            list[word] = sign[0] | row[0] << ROW_SHIFT | row[1] << (16 + ROW_SHIFT) | sign[1] << 31;
        }
    }
}
