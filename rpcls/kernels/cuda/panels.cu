// The sweep of a sparse sign sketch with several entries a column: rows of A are staged in shared memory, a tile of 32
// columns at a time, and meet all their rows of S from there.
//
// A block keeps its tile of SA, of a part of the rows of S, in shared memory, too (1024 x 32 floats are 128 KiB of the
// 227 that a block may have on an H100 or H200). For each panel of rows its warps share out the list of entries, sorted
// by row of S, at rows of S: so no two of them ever meet in an entry of SA. Entries come in pairs of one row of S,
// which costs a few zeros and spares every branch: instructions, not bytes, are what this sweep waits for.
#include "types.cuh"

#define THREADS 1024
#define WARPS (THREADS / WARP)
#define TILE WARP  // columns of a block: one for each lane of a warp
#ifndef PANEL
#define PANEL 256  // rows of A in shared memory
#endif
#define LOADS (PANEL / WARPS)  // rows of a panel that a warp brings
#define VECTOR 4               // entries of the list read at a time, see order.cu
#define ROW_BYTES (TILE * (u32)sizeof(Real))

struct alignas(16) Entries {
    u32 of[VECTOR];
};

// 16 bytes into shared memory, where a card can do that by itself; `arrived` waits for this thread's.
__device__ __forceinline__ void send(uint4* to, const uint4* from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from));
#else
    *to = *from;
#endif
}

__device__ __forceinline__ void arrived() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

struct alignas(16) Scalars {  // of a row: the root of its weight, and that times b
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
    const bool there = column < n, plain = !weight && scale_a == 1.0;
    const i64 first_row = parts[4 * blockIdx.y], part_rows = parts[4 * blockIdx.y + 1];
    const bool summing = blockIdx.y == 0;
    list += blockIdx.y * lanes * capacity;
    shares += blockIdx.y * lanes * (WARPS + 1);

    SHARED(Scalars, room);
    Scalars* const scalars = room;                                 // (PANEL)
    Entries* const entries = (Entries*)(scalars + PANEL);          // (2, capacity / VECTOR)
    Real* const panel = (Real*)(entries + 2 * capacity / VECTOR);  // (PANEL + 1, TILE), the last row zero
    Real* const kept = panel + (PANEL + 1) * TILE;                 // (part_rows + 1, TILE), the last row nobody's
    for (i64 i = threadIdx.x; i < (part_rows + 1) * TILE; i += THREADS) kept[i] = (Real)0;
    if (warp == 0) panel[PANEL * TILE + lane] = (Real)0;

    const u32 lane_bytes = lane * (u32)sizeof(Real);
    const i64 begin = group * lanes_each, end = smaller(lanes, begin + lanes_each);
    double sum = 0.0, square = 0.0, product = 0.0;
    Real held[LOADS] = {};
    u32 from = 0, to = 0, next_from = 0, next_to = 0;  // this warp's share of the list
    for (i64 l = begin - 1; l < end; ++l) {
        const bool more = l + 1 < end;
        const i64 next = (l + 1) * PANEL;
        const Entries* const listed = entries + ((l - begin) & 1) * (capacity / VECTOR);
        Real own_rhs = (Real)0;
        double own_weight = 0.0;
        if (more) {  // the next panel is on its way, and nothing waits for it, while this one is worked on
            const u32* const share = shares + (l + 1) * (WARPS + 1);
            const u32 coming = share[WARPS] / 4;
            uint4* const to_there = (uint4*)(entries + ((l + 1 - begin) & 1) * (capacity / VECTOR));
            for (u32 p = threadIdx.x; p < coming; p += THREADS)
                send(to_there + p, (const uint4*)(list + (l + 1) * capacity) + p);
            const Input* from_there = A + (next + warp) * row_stride + column;
            const int have = there ? (int)smaller(PANEL, count - next) - warp : 0;
#pragma unroll
            for (int e = 0; e < LOADS; ++e, from_there += WARPS * row_stride)
                held[e] = e * WARPS < have ? widen(*from_there) : (Real)0;
            const i64 row = next + threadIdx.x;
            if (threadIdx.x < PANEL && row < count) {
                own_weight = weight ? weight[row] : 1.0;
                if (b) own_rhs = b[row * b_stride];
            }
            next_from = share[warp];
            next_to = share[warp + 1];
        }
        for (u32 p = from; p < to; ++p) {
            const Entries some = listed[p];
            Real value[VECTOR];
#pragma unroll
            for (int r = 0; r < VECTOR; ++r)
                value[r] = *(const Real*)((const char*)panel + ((some.of[r] & 0xffffu) | lane_bytes));
#pragma unroll
            for (int r = 0; r < VECTOR; r += 2) {
                const u32 target = (some.of[r] >> 16 & 0x3fffu) * ROW_BYTES;
                *(Real*)((char*)kept + (target | lane_bytes)) +=
                    signed_by(value[r], some.of[r]) + signed_by(value[r + 1], some.of[r + 1]);
            }
        }
        if (!more) break;
        if (threadIdx.x < PANEL) {
            const double root = weight ? sqrt(own_weight) : own_weight;
            scalars[threadIdx.x] = Scalars{root, (double)own_rhs * (root * scale_b)};
        }
        from = next_from / VECTOR;
        to = next_to / VECTOR;
        arrived();
        __syncthreads();
#pragma unroll
        for (int e = 0; e < LOADS; ++e) {
            const int i = warp + e * WARPS;
            const Scalars row = scalars[i];
            const Real value = plain ? held[e] : held[e] * (Real)(row.root * scale_a);
            panel[i * TILE + lane] = value;
            if (!summing) continue;
            const double a = (double)value;
            sum = fma(a, row.root, sum);
            square = fma(a, a, square);
            product = fma(a, row.rhs, product);
        }
        __syncthreads();
    }

    __syncthreads();
    for (i64 r = warp; r < part_rows; r += WARPS)
        if (there) out[(group * d + first_row + r) * n + column] = kept[r * TILE + lane];
    if (!summing) return;
    double* const meet = (double*)panel;  // (WARPS, WARP)
    for (int which = 0; which < 3; ++which) {
        __syncthreads();
        meet[threadIdx.x] = which == 0 ? sum : which == 1 ? square : product;
        __syncthreads();
        if (warp || !there) continue;
        double total = 0.0;
        for (int w = 0; w < WARPS; ++w) total += meet[w * WARP + lane];
        sums[(group * 3 + which) * n + column] = total;
    }
}
