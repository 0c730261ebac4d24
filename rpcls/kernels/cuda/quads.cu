// The entries of a sparse sign sketch for a sweep over panels of rows of A: the lists of panels.cu, where four rows of
// S, a quad, go abreast and take an entry each at every step.
//
// A quad takes as many steps as the row of S that wants most of them, so its rows should want as many. They want
// different numbers in one panel; but a panel stays in shared memory for two phases, its own and the next, so rows that
// fall behind may catch up. That takes the steps from 1.6 to 1.22 times the entries, at 1024 rows of S and 8 entries a
// column.
#define THREADS 1024
#include "entries.cuh"
#include "quads.cuh"
#include "sides.cuh"

#define FEW 16  // entries that are sorted in registers

// Sort two lists side by side, one in each half of a word: by Batcher's network, so that all lanes take the same steps.
__device__ __forceinline__ void sort_two(u16* one, u32 count, u16* other, u32 other_count) {
    if (count > FEW || other_count > FEW) {
        sort(one, count);
        sort(other, other_count);
        return;
    }
    u32 both[FEW];
#pragma unroll
    for (u32 i = 0; i < FEW; ++i)
        both[i] = (i < count ? one[i] : 0xffffu) | (i < other_count ? other[i] : 0xffffu) << 16;
#pragma unroll
    for (int runs = 0; 1 << runs < FEW; ++runs)
#pragma unroll
        for (int step = runs; step >= 0; --step)
#pragma unroll
            for (int i = 0; i < FEW; ++i) {
                const int run = 1 << runs, apart = 1 << step, from = i - apart % run;
                if (from < 0 || from / apart % 2 || i + apart >= FEW) continue;
                if (i / (2 * run) != (i + apart) / (2 * run)) continue;
                const u32 a = both[i], b = both[i + apart];
                both[i] = __vminu2(a, b);
                both[i + apart] = __vmaxu2(a, b);
            }
#pragma unroll
    for (u32 i = 0; i < FEW; ++i) {
        if (i < count) one[i] = (u16)both[i];
        if (i < other_count) other[i] = (u16)(both[i] >> 16);
    }
}

__device__ __forceinline__ u32 even(u32 steps) { return (steps + 1) & ~1u; }

// The lists of all stretches of `panels` panels of panel_rows rows of A, fewer than 2^15 in all: blocks are (stretches,
// parts), parts (parts, 4) are first_row, rows, first_z, blocks; capacity and quads hold for the largest part.
//
// Leaves list (parts, stretches, capacity): phase after phase, quad after quad, four words for each two steps, one for
// each row of S. A word is a pair of entries: the sign at the outer end, bit 0 or 31, and from bit LOW_ROW or HIGH_ROW
// on the row of A, counted through the rooms of panels: panel i is in room i % 3, and behind the last room is a row of
// zeros, for rows of S with no entry left. starts (parts, stretches, panels * quads + 1) say where the quads of each
// phase begin. sides (stretches, d, k + 1) = S[b 1], stretch by stretch.
extern "C" __global__ void __launch_bounds__(THREADS)
    quads(u64 key, i64 start, i64 count, i64 d, i64 nnz, const i64* parts, i64 panel_rows, i64 panels, i64 capacity,
          i64 quads, const Real* b, i64 b_row_stride, i64 b_column_stride, const double* weight, i64 k, double scale_b,
          u32* list, u32* starts, double* sides) {
    const i64 stretch = blockIdx.x, here = blockIdx.y * (i64)gridDim.x + stretch, first = stretch * panels * panel_rows;
    const Part part = part_of(parts, blockIdx.y);
    const int rows = (int)smaller(panels * panel_rows, count - first), all = (int)quads, whole = (int)(panels * quads);
    const u32 room_rows = (u32)panel_rows, phases = ((u32)rows + room_rows - 1) / room_rows, wide = (u32)panels;
    list += here * capacity;
    starts += here * (whole + 1);

    // How many entries a row of S has in each panel, then where the next goes, and so in the end behind its entries
    // there, and before those of the next panel, or of the next row of S.
    SHARED(u32, room);
    u32* const place = room;                              // (4 quads, panels)
    u32* const begins = place + QUAD * whole;             // (panels * quads + 1): steps, then where they begin
    u32* const meet = begins + whole + 1;                 // (WARPS)
    u32* const edges = meet + WARPS;                      // (MOST_BLOCKS + 1)
    u16* const sorted = (u16*)(edges + MOST_BLOCKS + 1);  // (entries): the row of A, and the sign below
    clear(part, d, nnz, edges, place, QUAD * whole);
    each_entry(key, start + first, rows, part, edges,
               [&](u32 row, u32 i, u32) { atomicAdd(place + row * wide + i / room_rows, 1u); });
    __syncthreads();
    add_up(place, QUAD * whole, meet);
    each_entry(key, start + first, rows, part, edges, [&](u32 row, u32 i, u32 sign) {
        sorted[atomicAdd(place + row * wide + i / room_rows, 1u)] = (u16)(i << 1 | sign >> 31);
    });
    __syncthreads();
    for (int r = 2 * threadIdx.x; r < QUAD * whole; r += 2 * THREADS) {
        const u32 low = r ? place[r - 1] : 0, middle = place[r];
        sort_two(sorted + low, middle - low, sorted + middle, place[r + 1] - middle);
    }
    __syncthreads();

    for (i64 r = threadIdx.x; r < part.rows; r += THREADS)
        for (i64 j = 0; j == 0 || j < k; ++j) {
            Sides own = {j < k ? b + j * b_column_stride : nullptr, b_row_stride, weight, scale_b, 0.0, 0.0};
            for (u32 p = r ? place[r * wide - 1] : 0; p < place[r * wide + wide - 1]; ++p)
                own.add(first + (sorted[p] >> 1), sorted[p] & 1u);
            own.keep(j, k, sides + (stretch * d + part.first_row + r) * (k + 1));
        }

    // A phase takes at least what leaves shared memory after it, and else an even share of what the longest row wants.
    for (int q = threadIdx.x; q < all; q += THREADS) {
        const u32* const own = place + QUAD * q * wide;
        u32 done[QUAD], longest = 0, taken = 0;
#pragma unroll
        for (u32 r = 0; r < QUAD; ++r) {
            done[r] = q + r ? own[(int)(r * wide) - 1] : 0;
            longest = max(longest, own[(r + 1) * wide - 1] - done[r]);
        }
        for (u32 phase = 0; phase < wide; ++phase) {
            u32 least = 0, most = 0;
#pragma unroll
            for (u32 r = 0; r < QUAD; ++r) {
                const u32 ready = own[r * wide + phase];
                const u32 before = phase && phase < phases ? own[r * wide + phase - 1] : 0;
                const u32 leaving = phase + 1 == phases ? ready : before;
                least = max(least, leaving - min(leaving, done[r]));
                most = max(most, ready - done[r]);
            }
            const u32 share = longest * (2 * phase + 1) / (2 * phases - 1);
            const u32 wanted = min(even(most), (share - min(share, taken)) & ~1u);
            const u32 steps = max(even(least), wanted);
#pragma unroll
            for (u32 r = 0; r < QUAD; ++r) done[r] = min(own[r * wide + phase], done[r] + steps);
            taken += steps;
            begins[phase * all + q] = steps / 2 * QUAD;
        }
    }
    if (threadIdx.x == 0) begins[whole] = 0;
    __syncthreads();
    add_up(begins, whole + 1, meet);
    for (int i = threadIdx.x; i <= whole; i += THREADS) starts[i] = begins[i];

    for (int r = threadIdx.x; r < QUAD * all; r += THREADS) {
        u32 p = r ? place[r * wide - 1] : 0;               // of the entry that is next
        u32 next = (u32)(stretch * panels % ROOMS);        // the room of the panel
        for (u32 phase = 0; phase < phases; ++phase) {
            const u32 from = begins[phase * all + r / QUAD], to = begins[phase * all + r / QUAD + 1];
            const u32 limit = phase * room_rows, now = next * room_rows;
            const u32 last = (next ? next - 1 : ROOMS - 1) * room_rows + room_rows;
            const u32 ready = place[r * wide + phase], stop = min(ready, p + (to - from) / QUAD * 2);
            next = next + 1 < ROOMS ? next + 1 : 0;
            for (u32 word = from + r % QUAD; word < to; word += QUAD) {
                u32 row[2], sign[2];
#pragma unroll
                for (int half = 0; half < 2; ++half, ++p) {
                    const u32 entry = p < stop ? sorted[p] : 0, i = (entry >> 1) - limit;
                    row[half] = p >= stop ? ROOMS * room_rows : i < room_rows ? now + i : last + i;
                    sign[half] = entry & 1u;
                }
                list[word] = sign[0] | row[0] << LOW_ROW | row[1] << HIGH_ROW | sign[1] << 31;
            }
            p = min(p, stop);
        }
    }
}
