// The sweep of a sparse sign sketch with several entries a column: rows of A are staged in shared memory, 256 bytes of
// a row at a time, and meet all their rows of S from there.
//
// A block keeps its columns of SA, of a part of the rows of S, in shared memory, too (512 rows are 128 KiB of the 227
// that a block may have on an H100 or H200). For each panel of rows its warps share out the list of entries, sorted by
// row of S, at rows of S: so no two of them ever meet in an entry of SA, and one adds up in registers what a row of S
// has in the panel. What a lane works on are 8 bytes: two floats, 32 columns apart, or a double.
#include "types.cuh"

#define THREADS 1024
#define WARPS (THREADS / WARP)
#define PER (8 / (int)sizeof(Real))  // columns of a lane
#define TILE (WARP * PER)
#ifndef PANEL
#define PANEL 256  // rows of A in shared memory
#endif
#define LOADS (PANEL / WARPS)  // rows of a panel that a warp brings
#define VECTOR 4               // entries of the list read at a time, see order.cu
#define LAST 0x40000000u

struct Lane {
    Real of[PER];
};

struct alignas(16) Entries {
    u32 of[VECTOR];
};

struct alignas(16) Scalars {
    double root, rhs;
};

// Blocks are (tiles of columns, parts, groups of lanes_each panels). parts (parts, 4), list (parts, lanes, capacity)
// and shares (parts, lanes, WARPS + 1) are those of order.cu with PANEL rows a lane, which count in bytes of a panel.
//
// Leaves out (groups, d, n) = SA and, from the first part, sums (groups, 3, n): 1'A, squared norms and A'b.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    panels(const Input* A, i64 row_stride, const Real* b, i64 b_stride, const double* weight, i64 count, i64 n,
           double scale_a, double scale_b, const i64* parts, const u32* list, const u32* shares, i64 lanes,
           i64 capacity, i64 lanes_each, i64 d, Real* out, double* sums) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const i64 column = (i64)blockIdx.x * TILE + lane, group = blockIdx.z;
    const i64 first_row = parts[4 * blockIdx.y], part_rows = parts[4 * blockIdx.y + 1];
    const bool summing = blockIdx.y == 0;
    list += blockIdx.y * lanes * capacity;
    shares += blockIdx.y * lanes * (WARPS + 1);

    SHARED(Scalars, room);
    Scalars* const scalars = room;                             // (PANEL)
    Entries* const entries = (Entries*)(scalars + PANEL);      // (capacity / VECTOR)
    Lane* const panel = (Lane*)(entries + capacity / VECTOR);  // (PANEL, WARP)
    Lane* const kept = panel + PANEL * WARP;                   // (part_rows, WARP)
    const Lane zero = {};
    for (i64 i = threadIdx.x; i < part_rows * WARP; i += THREADS) kept[i] = zero;

    const u32 lane_bytes = lane * (u32)sizeof(Lane);
    const i64 begin = group * lanes_each, end = smaller(lanes, begin + lanes_each);
    double sum[PER] = {}, square[PER] = {}, product[PER] = {};
    Lane held[LOADS];
    for (i64 l = begin - 1; l < end; ++l) {
        const bool more = l + 1 < end;
        const i64 next = (l + 1) * PANEL;
        Scalars own = {0.0, 0.0};
        if (more) {  // the next panel is on its way while this one is worked on
#pragma unroll
            for (int e = 0; e < LOADS; ++e) {
                const i64 row = next + warp + e * WARPS;
                const Input* const from = A + row * row_stride + column;
#pragma unroll
                for (int c = 0; c < PER; ++c)
                    held[e].of[c] = row < count && column + WARP * c < n ? widen(from[WARP * c]) : (Real)0;
            }
            const i64 row = next + threadIdx.x;
            if (threadIdx.x < PANEL && row < count) {
                own.root = weight ? sqrt(weight[row]) : 1.0;
                own.rhs = b ? (double)b[row * b_stride] * (own.root * scale_b) : 0.0;
            }
        }
        if (l >= begin) {
            const u32* const share = shares + l * (WARPS + 1) + warp;
            const u32 stop = share[1] / VECTOR;
            Lane run = zero;
            for (u32 p = share[0] / VECTOR; p < stop; ++p) {
                const Entries some = entries[p];
                Lane value[VECTOR];
#pragma unroll
                for (int r = 0; r < VECTOR; ++r)
                    value[r] = *(const Lane*)((const char*)panel + ((some.of[r] & 0xffffu) | lane_bytes));
#pragma unroll
                for (int r = 0; r < VECTOR; ++r) {
                    const u32 entry = some.of[r];
#pragma unroll
                    for (int c = 0; c < PER; ++c) run.of[c] += signed_by(value[r].of[c], entry);
                    if (entry & LAST) {
                        Lane* const target = kept + (entry >> 16 & 0x3fffu) * WARP + lane;
                        Lane before = *target;
#pragma unroll
                        for (int c = 0; c < PER; ++c) before.of[c] += run.of[c];
                        *target = before;
                        run = zero;
                    }
                }
            }
        }
        if (!more) break;
        if (threadIdx.x < PANEL) scalars[threadIdx.x] = own;
        __syncthreads();
        const u32 coming = shares[(l + 1) * (WARPS + 1) + WARPS] / VECTOR;
        const Entries* const from = (const Entries*)(list + (l + 1) * capacity);
        for (u32 p = threadIdx.x; p < coming; p += THREADS) entries[p] = from[p];
#pragma unroll
        for (int e = 0; e < LOADS; ++e) {
            const int i = warp + e * WARPS;
            const Scalars row = scalars[i];
            const Real factor = (Real)(row.root * scale_a);
            Lane value;
#pragma unroll
            for (int c = 0; c < PER; ++c) value.of[c] = held[e].of[c] * factor;
            panel[i * WARP + lane] = value;
            if (!summing) continue;
#pragma unroll
            for (int c = 0; c < PER; ++c) {
                const double a = (double)value.of[c];
                sum[c] = fma(a, row.root, sum[c]);
                square[c] = fma(a, a, square[c]);
                product[c] = fma(a, row.rhs, product[c]);
            }
        }
        __syncthreads();
    }

    __syncthreads();
    for (i64 r = warp; r < part_rows; r += WARPS)
#pragma unroll
        for (int c = 0; c < PER; ++c)
            if (column + WARP * c < n)
                out[(group * d + first_row + r) * n + column + WARP * c] = kept[r * WARP + lane].of[c];
    if (!summing) return;
    double* const meet = (double*)panel;  // (WARPS, WARP)
    for (int which = 0; which < 3; ++which)
#pragma unroll
        for (int c = 0; c < PER; ++c) {
            __syncthreads();
            meet[threadIdx.x] = which == 0 ? sum[c] : which == 1 ? square[c] : product[c];
            __syncthreads();
            if (warp || column + WARP * c >= n) continue;
            double total = 0.0;
            for (int w = 0; w < WARPS; ++w) total += meet[w * WARP + lane];
            sums[(group * 3 + which) * n + column + WARP * c] = total;
        }
}
