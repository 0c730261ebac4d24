// The sweep of a sparse sign sketch with several entries a column: rows of A are staged in shared memory, a tile of 32
// columns at a time, and meet all their rows of S from there.
//
// A block keeps its tile of SA, of a part of the rows of S, in shared memory, too (1024 x 32 floats are 128 KiB of the
// 227 that a block may have on an H100 or H200). For each panel of rows its warps share out the list of entries, sorted
// by row of S, at the ends of rows of S: so no two of them ever meet in an entry of SA, and one adds up in a register
// what a row of S has in the panel.
#include "types.cuh"

#define TILE 32  // columns of a block: one for each lane of a warp
#define THREADS 1024
#define WARPS (THREADS / WARP)
#ifndef PANEL
#define PANEL 256  // rows of A in shared memory
#endif
#define LOADS (PANEL * TILE / THREADS)  // entries of a panel that a thread brings
#define AHEAD 4                         // entries of the list on their way at once
#define ROW_BITS 13                     // of an entry of a list, see order.cu
#define LAST 0x40000000u
#define MINUS 0x80000000u

// Where the share of a warp of a sorted list begins: its even share, moved to the next end of a row of S.
__device__ __forceinline__ u32 share(const u32* list, u32 total, int warp) {
    u32 p = (u32)((u64)total * warp / WARPS);
    if (p == 0) return 0;
    for (;; p += WARP) {
        const u32 at = p + threadIdx.x % WARP;  // is the entry before it the last of its row of S?
        const u32 ends = __ballot_sync(EVERY_LANE, at >= total || (list[at - 1] & LAST) != 0);
        if (ends) return (u32)smaller(total, p + __ffs(ends) - 1);
    }
}

// Blocks are (tiles of columns, parts, groups of lanes_each panels). parts (parts, 4), list (parts, lanes, capacity)
// and bounds (parts, lanes, width + 1) are those of order.cu with PANEL rows a lane.
//
// Leaves out (groups, d, n) = SA and, from the first part, sums (groups, 3, n): 1'A, squared norms and A'b.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    panels(const Input* A, i64 row_stride, const Real* b, i64 b_stride, const double* weight, i64 count, i64 n,
           double scale_a, double scale_b, const i64* parts, const u32* list, const u32* bounds, i64 lanes,
           i64 capacity, i64 width, i64 lanes_each, i64 d, Real* out, double* sums) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const i64 column = (i64)blockIdx.x * TILE, group = blockIdx.z;
    const i64 first_row = parts[4 * blockIdx.y], part_rows = parts[4 * blockIdx.y + 1];
    const bool summing = blockIdx.y == 0, there = column + lane < n;
    list += blockIdx.y * lanes * capacity;
    bounds += blockIdx.y * lanes * (width + 1);

    SHARED(double, room);
    double* const root = room;                             // (PANEL)
    double* const rhs = root + PANEL;                      // (PANEL)
    Real* const panel = (Real*)(rhs + PANEL);              // (PANEL, TILE)
    Real* const kept = panel + PANEL * TILE;               // (part_rows, TILE)
    u32* const entries = (u32*)(kept + part_rows * TILE);  // (capacity)
    for (i64 i = threadIdx.x; i < part_rows * TILE; i += THREADS) kept[i] = (Real)0;

    const i64 last = smaller(lanes, (group + 1) * lanes_each);
    double sum = 0.0, square = 0.0, product = 0.0;
    Real held[LOADS];
    for (i64 l = group * lanes_each - 1; l < last; ++l) {
        const i64 next = (l + 1) * PANEL;
        if (l + 1 < last)  // the next panel is on its way while this one is worked on
#pragma unroll
            for (int e = 0; e < LOADS; ++e) {
                const i64 row = next + warp + e * WARPS;
                held[e] = row < count && there ? widen(A[row * row_stride + column + lane]) : (Real)0;
            }
        if (l >= group * lanes_each) {
            if (summing)
#pragma unroll
                for (int e = 0; e < LOADS; ++e) {
                    const int i = warp + e * WARPS;
                    const double a = (double)panel[i * TILE + lane];
                    sum = fma(a, root[i], sum);
                    square = fma(a, a, square);
                    product = fma(a, rhs[i], product);
                }
            const u32 total = bounds[l * (width + 1) + part_rows];
            const u32 begin = share(entries, total, warp);
            const u32 end = warp + 1 < WARPS ? share(entries, total, warp + 1) : total;
            Real run = (Real)0;
            for (u32 p = begin; p < end; p += WARP) {
                const int have = (int)smaller(WARP, end - p);
                const u32 own = lane < have ? entries[p + lane] : 0;
                for (int i = 0; i < have; i += AHEAD) {
                    u32 entry[AHEAD];
                    Real value[AHEAD];
#pragma unroll
                    for (int r = 0; r < AHEAD; ++r) {
                        entry[r] = __shfl_sync(EVERY_LANE, own, i + r);
                        value[r] = panel[(entry[r] & ((1u << ROW_BITS) - 1)) * TILE + lane];
                    }
#pragma unroll
                    for (int r = 0; r < AHEAD; ++r) {
                        if (i + r >= have) break;
                        run = entry[r] & MINUS ? run - value[r] : run + value[r];
                        if (entry[r] & LAST) {
                            kept[((entry[r] & ~(LAST | MINUS)) >> ROW_BITS) * TILE + lane] += run;
                            run = (Real)0;
                        }
                    }
                }
            }
        }
        if (l + 1 >= last) break;
        __syncthreads();
        for (int i = threadIdx.x; i < PANEL; i += THREADS) {
            const i64 row = next + i;
            root[i] = row >= count ? 0.0 : weight ? sqrt(weight[row]) : 1.0;
            rhs[i] = row < count && b ? (double)b[row * b_stride] * (root[i] * scale_b) : 0.0;
        }
        const u32 coming = bounds[(l + 1) * (width + 1) + part_rows];
        for (u32 p = threadIdx.x; p < coming; p += THREADS) entries[p] = list[(l + 1) * capacity + p];
        if (weight) __syncthreads();
#pragma unroll
        for (int e = 0; e < LOADS; ++e) {
            const int i = warp + e * WARPS;
            panel[i * TILE + lane] = held[e] * (Real)(weight ? root[i] * scale_a : scale_a);
        }
        __syncthreads();
    }

    __syncthreads();
    for (i64 r = warp; r < part_rows; r += WARPS)
        if (there) out[(group * d + first_row + r) * n + column + lane] = kept[r * TILE + lane];
    if (!summing) return;
    double* const meet = (double*)panel;  // (WARPS, WARP)
    for (int which = 0; which < 3; ++which) {
        __syncthreads();
        meet[threadIdx.x] = which == 0 ? sum : which == 1 ? square : product;
        __syncthreads();
        if (warp || !there) continue;
        double total = 0.0;
        for (int w = 0; w < WARPS; ++w) total += meet[w * WARP + lane];
        sums[(group * 3 + which) * n + column + lane] = total;
    }
}
