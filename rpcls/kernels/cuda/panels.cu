// The sweep of a sparse sign sketch with several entries a column: rows of A are staged in shared memory, 128 bytes of
// each at a time, and meet all their rows of S from there.
//
// SA stays in registers: a warp owns rows of S, four abreast, eight of its lanes with 16 bytes of each. At every step
// each of the four takes one entry, so one load brings 128 bytes of four rows of A, and a fused multiply by +-1 adds
// them. Where one of the four has no entry left it takes zeros; quads.cu says how many. Panels have all of the shared
// memory, and that memory is what this sweep waits for: a cycle for each 128 bytes.
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
#define ROW_BYTES 128                         // of a row of A, in a panel
#define TILE (ROW_BYTES / (int)sizeof(Real))  // columns of a block
#define LANES (WARP / QUAD)                   // that hold a row of S
#define HELD (TILE / LANES)                   // of its columns each
#define OWN (PANEL / WARPS)                   // rows of a panel that a warp brings
#define ABREAST (WARP / TILE)                 // at a time
#define EACH ((OWN / ABREAST + SLOTS - 1) / SLOTS)  // times, while a quad is worked on

struct alignas(16) Share {
    Real of[HELD];
};

// Blocks are (tiles of columns, parts, groups of stretches_each stretches). parts (parts, 4), list (parts, stretches,
// capacity) and starts (parts, stretches, panels_each * WARPS * SLOTS + 1) are those of quads.cu; lists are read up to
// 2 WARP words beyond their ends.
//
// Leaves out (groups, d, n) = SA and, from the first part, sums (groups, 3, n): 1'A, squared norms and A'b.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    panels(const Input* A, i64 row_stride, const Real* b, i64 b_stride, const double* weight, i64 count, i64 n,
           double scale_a, double scale_b, const i64* parts, const u32* list, const u32* starts, i64 stretches,
           i64 panels_each, i64 capacity, i64 stretches_each, i64 d, Real* out, double* sums) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, abreast = lane / TILE;
    const i64 column = (i64)blockIdx.x * TILE + lane % TILE, group = blockIdx.z;
    const bool there = column < n, summing = blockIdx.y == 0;

    SHARED(Share, room);
    Real* const panel = (Real*)room;  // (ROOMS * PANEL + 1, TILE), the last row zero
    if (threadIdx.x < TILE) panel[ROOMS * PANEL * TILE + threadIdx.x] = (Real)0;

    const u32 lane_bytes = lane % LANES * (u32)sizeof(Share);
    const i64 stretch = group * stretches_each, begin = stretch * panels_each;
    const i64 end = smaller((count + PANEL - 1) / PANEL, begin + stretches_each * panels_each);
    starts += (blockIdx.y * stretches + stretch) * (panels_each * WARPS * SLOTS + 1) + warp * SLOTS + lane;
    list += (blockIdx.y * stretches + stretch) * capacity + lane;
    int phase = 0, coming = (int)(begin % ROOMS);  // of the panel on its way: place in its stretch, and room
    Real total[SLOTS][HELD] = {};
    double sum = 0.0, square = 0.0, product = 0.0;
    u32 start = 0, word = 0;  // in the list: where quad `lane` of the warp begins; a pair of its entries
    for (i64 l = begin - 1; l < end; ++l) {
        const bool more = l + 1 < end, over = phase == panels_each;  // whether that panel begins another stretch
        const i64 next = (l + 1) * PANEL + warp * OWN;  // the first row that the warp brings
        const int have = more && there ? (int)smaller(OWN, count - next) - abreast : 0;
        const Input* from = A + (next + abreast) * row_stride + column;
        Real* const to = panel + (coming * PANEL + warp * OWN) * TILE + lane;
        u32 next_start = 0;
        Real own_rhs = (Real)0;
        double own_root = 0.0;
        if (more) {
            if (over) ++starts;
            if (lane <= SLOTS) next_start = *starts;
            starts += WARPS * SLOTS;
            if (lane < OWN && next + lane < count) {
                own_root = weight ? sqrt(weight[next + lane]) : 1.0;
                if (b) own_rhs = b[(next + lane) * b_stride];
            }
        }

        u32 at = __shfl_sync(EVERY_LANE, start, 0), chunk = at + WARP, source = (u32)(lane / LANES);
        u32 ahead = list[chunk];
#pragma unroll
        for (int q = 0; q < SLOTS; ++q) {
            Real held[EACH];
#pragma unroll
            for (int e = 0; e < EACH; ++e, from += ABREAST * row_stride)
                held[e] = (q * EACH + e) * ABREAST < have ? widen(*from) : (Real)0;

            const u32 stop = __shfl_sync(EVERY_LANE, start, q + 1);
            while (at < stop) {
                for (const u32 until = stop < chunk ? stop : chunk; at < until; at += QUAD, source += QUAD) {
                    const u32 pair = __shfl_sync(EVERY_LANE, word, (int)source);
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const u32 place = half ? pair >> 13 : pair << 3;
                        const Share row = *(const Share*)((const char*)room + ((place & 0x3ff80u) | lane_bytes));
                        const Real sign = signed_by((Real)1, half ? pair : pair << 31);
#pragma unroll
                        for (int c = 0; c < HELD; ++c) total[q][c] = fma(row.of[c], sign, total[q][c]);
                    }
                }
                if (at < chunk) break;
                word = ahead;
                chunk += WARP;
                ahead = list[chunk];
            }

            if (!more) continue;
#pragma unroll
            for (int e = 0; e < EACH; ++e) {
                const int i = (q * EACH + e) * ABREAST;
                if (i >= OWN) continue;
                const double root = PLAIN ? 1.0 : __shfl_sync(EVERY_LANE, own_root, i + abreast);
                double rhs = (double)__shfl_sync(EVERY_LANE, own_rhs, i + abreast);
                if (!PLAIN) rhs *= root * scale_b;
                const Real value = PLAIN ? held[e] : held[e] * (Real)(root * scale_a);
                to[i * TILE] = value;
                if (!summing) continue;
                const double a = (double)value;
                sum = PLAIN ? sum + a : fma(a, root, sum);
                square = fma(a, a, square);
                product = fma(a, rhs, product);
            }
        }
        if (!more) break;
        start = next_start;
        if (over) list += capacity;
        phase = over ? 1 : phase + 1;
        coming = coming + 1 < ROOMS ? coming + 1 : 0;
        word = list[__shfl_sync(EVERY_LANE, start, 0)];
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
    if (!summing) return;
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
