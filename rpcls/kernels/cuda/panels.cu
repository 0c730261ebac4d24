// The sweep of a sparse sign sketch with several entries a column: rows of A are staged in shared memory, 128 bytes of
// each at a time, and meet all their rows of S from there.
//
// SA stays in registers: a warp owns rows of S, four abreast, eight of its lanes with 16 bytes of each. At every step
// each of the four takes one entry, so one load brings 128 bytes of four rows of A, and a fused multiply by +-1 adds
// them. Where one of the four has no entry left it takes zeros; quads.cu says how many. Panels have all of the shared
// memory, and that memory is what this sweep waits for: a cycle for each 128 bytes.
//
// While a panel is worked on, every warp has its rows of the next copied, past its registers, and adds up those that it
// brought before: both fill the time that others wait. Words of the lists are fetched one quad ahead.
#include "quads.cuh"

#define THREADS 1024
#define WARPS (THREADS / WARP)
#ifndef SLOTS
#define SLOTS 8  // quads of a warp, one after the other
#endif
#ifndef PANEL
#define PANEL 576  // rows of A in each of the panels in shared memory
#endif
#ifndef PLAIN
#define PLAIN 1  // no weights, and no other units
#endif
#define ROW_BYTES 128                               // of a row of A, in a panel
#define TILE (ROW_BYTES / (int)sizeof(Real))        // columns of a block
#define LANES (WARP / QUAD)                         // that hold a row of S
#define HELD (TILE / LANES)                         // of its columns each
#define OWN (PANEL / WARPS)                         // rows of a panel that a warp brings
#define ABREAST (WARP / TILE)                       // that it sums at a time
#define EACH ((OWN / ABREAST + SLOTS - 1) / SLOTS)  // times, while a quad is worked on
#define DIRECT (sizeof(Input) == sizeof(Real))      // rows are copied as they are

struct alignas(16) Share {
    Real of[HELD];
};

__device__ __forceinline__ void add(Real (&total)[HELD], const char* row, Real sign) {
    const Share here = *(const Share*)row;
#pragma unroll
    for (int c = 0; c < HELD; ++c) total[c] = fma(here.of[c], sign, total[c]);
}

// Start copying `have` of a warp's rows from `first` on, and zeros for the others, a Chunk by each lane. Columns beyond
// the last are copies of others, and are left out in the end.
template <typename Chunk>
__device__ __forceinline__ void copy_rows(const Input* A, i64 row_stride, int n, u32 first, int have, Real* to) {
    const int wide = sizeof(Chunk) / sizeof(Real), lanes = TILE / wide, abreast = WARP / lanes;
    const int lane = threadIdx.x % WARP, row = lane / lanes;
    const Input* from = A + (first + row) * row_stride + min(blockIdx.x * TILE + lane % lanes * wide, (u32)n - wide);
    Chunk* const there = (Chunk*)to + lane;
#pragma unroll
    for (int i = 0; i < OWN; i += abreast, from += abreast * row_stride)
        if (row < OWN - i) copy_async(there + i * lanes, (const Chunk*)from, row < have - i);
}

// Blocks are (tiles of columns, parts, groups: even shares of the stretches). parts (parts, 4), list (parts, stretches,
// capacity) and starts (parts, stretches, panels_each * WARPS * SLOTS + 1) are those of quads.cu; lists are read up to
// WARP words beyond their ends.
//
// Leaves out (groups, d, n) = SA and, from the first part, sums (groups, 3, n): 1'A, squared norms and A'b.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    panels(const Input* A, i64 row_stride, const Real* b, i64 b_stride, const double* weight, i64 count, i64 n,
           double scale_a, double scale_b, const i64* parts, const u32* list, const u32* starts, i64 stretches,
           i64 panels_each, i64 capacity, i64 d, Real* out, double* sums) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, abreast = lane / TILE;
    const i64 column = (i64)blockIdx.x * TILE + lane % TILE, group = blockIdx.z;
    const bool there = column < n;
    const bool wide = ((u64)A | (row_stride | n) * sizeof(Input)) % sizeof(Share) == 0;

    SHARED(Share, room);
    Real* const panel = (Real*)room;  // (ROOMS * PANEL + 1, TILE), the last row zero
    double* const side = (double*)(panel + (ROOMS * PANEL + 1) * TILE) + warp * OWN;  // b, for the rows that are summed
    if (threadIdx.x < TILE) panel[ROOMS * PANEL * TILE + threadIdx.x] = (Real)0;

    // Constants by way of shuffles: what comes out the compiler keeps, and does not make anew for every entry.
    const u32 lane_bytes = __shfl_sync(EVERY_LANE, lane % LANES * (u32)sizeof(Share), lane);
    const u32 minus = __shfl_sync(EVERY_LANE, (u32)lane << 31, lane | 1);
    const i64 stretch = group * stretches / gridDim.z, begin = stretch * panels_each;
    const i64 end = smaller((count + PANEL - 1) / PANEL, (group + 1) * stretches / gridDim.z * panels_each);
    starts += (blockIdx.y * stretches + stretch) * (panels_each * WARPS * SLOTS + 1);
    list += (blockIdx.y * stretches + stretch) * capacity + lane % LANES * QUAD + lane / LANES;
    const i64 all = smaller(count, end * PANEL);  // rows of this group and those before
    const u32 next = (u32)(warp * OWN);           // of a panel: where the rows of the warp begin
    A += begin * PANEL * row_stride;
    int phase = 0, coming = (int)(begin % ROOMS);  // of the panel on its way: place in its stretch, and room
    int own = (((coming + ROOMS - 1) % ROOMS * PANEL + (int)next) * TILE + lane) * (int)sizeof(Real);
    bool summing = false;  // what the warp brought before; the lane's share of it is at byte `own`
    Real total[SLOTS][HELD] = {};
    double sum = 0.0, square = 0.0, product = 0.0, root = 1.0;
    u32 start = 0, at = 0, word = 0;  // of the list: where quad `lane` of the warp begins, the next words, one of them
    for (int left = (int)(all - begin * PANEL);; left -= PANEL) {  // rows, from the panel on its way on
        const bool more = left > 0, over = more && phase == (int)panels_each;  // whether it begins another stretch
        const int have = left - (int)next, step = (coming ? PANEL : (1 - ROOMS) * PANEL) * ROW_BYTES;
        const Input* from = A + (next + abreast) * row_stride + smaller(column, n - 1);
        u32 next_start = 0;
        Real own_rhs = (Real)0;
        double own_weight = 1.0;
        if (more) {
            Real* const to = (Real*)((char*)room + own + step) - lane;
            if (DIRECT && wide) copy_rows<Share>(A, row_stride, (int)n, next, have, to);
            if (DIRECT && !wide) copy_rows<Real>(A, row_stride, (int)n, next, have, to);
            if (over) ++starts;
            if (lane <= SLOTS) next_start = starts[warp * SLOTS + lane];
            if (lane < OWN && lane < have) {
                const i64 row = all - left + next + lane;
                if (!PLAIN && weight) own_weight = weight[row];
                if (b) own_rhs = b[row * b_stride];
            }
            A += PANEL * row_stride;
            starts += WARPS * SLOTS;
        }

#pragma unroll
        for (int q = 0; q < SLOTS; ++q) {
            Input held[EACH];
#pragma unroll
            for (int e = 0; e < EACH && !DIRECT; ++e, from += ABREAST * row_stride)
                held[e] = (q * EACH + e) * ABREAST + abreast < have ? *from : (Input)0;

            const auto pair_of = [&](int p) { return __shfl_sync(EVERY_LANE, word, p, LANES); };
            const auto take = [&](u32 pair) {  // of the words at hand, for each row of S
                const u32 low = (pair & ROW_BITS << LOW_ROW) | lane_bytes;
                const u32 high = (pair >> (HIGH_ROW - LOW_ROW) & ROW_BITS << LOW_ROW) | lane_bytes;
                add(total[q], (const char*)room + low, signed_by((Real)1, pair << 31));
                add(total[q], (const char*)room + high, signed_by((Real)1, pair & minus));
            };
            const u32 stop = __shfl_sync(EVERY_LANE, start, q + 1);
            for (; stop - at > WARP; at += WARP) {
                const u32 ahead = list[at + WARP];
#pragma unroll 1
                for (int p = 0; p < LANES; ++p) take(pair_of(p));
                word = ahead;
            }
            const bool last = q + 1 == SLOTS;  // whose words are followed by those of the next phase
            if (last && over) list += capacity;
            const u32 words = stop - at;
            at = last ? __shfl_sync(EVERY_LANE, next_start, 0) : stop;
            const u32 ahead = list[at];
            u32 pair = pair_of(0);
#pragma unroll
            for (int p = 0; p < LANES && (u32)(QUAD * p) < words; ++p) {
                const u32 now = pair;
                pair = pair_of((p + 1) % LANES);  // before it is needed: it takes as long as what it leads to
                take(now);
            }
            word = ahead;

#pragma unroll
            for (int e = 0; e < EACH; ++e) {
                const int i = (q * EACH + e) * ABREAST;
                if (i >= OWN) continue;
                if (!DIRECT && more) ((Real*)((char*)room + own + step))[i * TILE] = widen(held[e]);
                if (!summing) continue;
                const double a = (double)((const Real*)((const char*)room + own))[i * TILE], rhs = side[i + abreast];
                sum = PLAIN ? sum + a : fma(a, __shfl_sync(EVERY_LANE, root, i + abreast), sum);
                square = fma(a, a, square);
                product = fma(a, rhs, product);
            }
        }
        if (!more) break;
        start = next_start;
        phase = over ? 1 : phase + 1;
        coming = coming + 1 < ROOMS ? coming + 1 : 0;
        own += step;
        summing = blockIdx.y == 0;
        if (!PLAIN) root = sqrt(own_weight);
        __syncwarp();
        if (lane < OWN) side[lane] = PLAIN ? (double)own_rhs : (double)own_rhs * (root * scale_b);
        copies_arrived();
        if (!PLAIN) {
            const Real factor = (Real)(root * scale_a);
            __syncwarp();
#pragma unroll
            for (int i = 0; i < OWN; i += ABREAST)
                ((Real*)((char*)room + own))[i * TILE] *= __shfl_sync(EVERY_LANE, factor, i + abreast);
        }
        __syncthreads();
    }

    const i64 first_row = parts[4 * blockIdx.y], rows = parts[4 * blockIdx.y + 1];
    const i64 first = (i64)blockIdx.x * TILE + lane % LANES * HELD;
#pragma unroll
    for (int q = 0; q < SLOTS; ++q) {
        const i64 row = QUAD * (warp * SLOTS + q) + lane / LANES;
        if (row >= rows) continue;
#pragma unroll
        for (int c = 0; c < HELD; ++c)
            if (first + c < n) out[(group * d + first_row + row) * n + first + c] = total[q][c];
    }
    if (blockIdx.y > 0) return;
    double* const meet = (double*)room;  // (THREADS)
    for (int which = 0; which < 3; ++which) {
        __syncthreads();
        meet[threadIdx.x] = which == 0 ? sum : which == 1 ? square : product;
        __syncthreads();
        if (threadIdx.x >= TILE || !there) continue;
        double all = 0.0;
        for (int i = lane; i < THREADS; i += TILE) all += meet[i];
        sums[(group * 3 + which) * n + column] = all;
    }
}
