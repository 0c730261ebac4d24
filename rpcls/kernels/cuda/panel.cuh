// The part of a compress sweep that does not depend on S: rows of [A b 1] staged in shared memory, and their sums.
//
// A sweep sees one matrix of n + k + 1 columns: those of A, of b, and one of ones, each row multiplied by the square
// root of its weight, A and b also by scale_a and scale_b. So one kernel makes S[A b 1], and the sums, the squared
// norms and the products with b of those columns are all the exact sums that there are.
//
// A block walks the rows of its lane in panels of PANEL_ROWS x TILE entries. While one panel is worked on, the next is
// on its way into registers: 32 KiB in flight on a multiprocessor at any time.
#pragma once
#include "types.cuh"

#define TILE 32  // columns of a block: one for each lane of a warp
#define THREADS 1024
#define WARPS (THREADS / WARP)
#define PANEL_ROWS (1024 / (int)sizeof(Real))
#define LOADS (PANEL_ROWS * TILE / THREADS)  // entries of a panel that a thread brings
#define PITCH (TILE + 1)                     // of a row in shared memory: no bank conflict down a column
#define MOST_RHS 4                           // right-hand sides whose products one launch takes
#define NOT_HERE 0xffffffffu                 // the code of a row that this block has no use for

// Rows of [A b 1] in memory; strides count entries, and weight may be null, for ones.
struct Rows {
    const Input* A;
    i64 row_stride, column_stride;
    const Real* b;
    i64 b_row_stride, b_column_stride;
    const double* weight;
    i64 n, k;
    double scale_a, scale_b;

    __device__ __forceinline__ double root(i64 row) const { return weight ? sqrt(weight[row]) : 1.0; }

    __device__ __forceinline__ Real rhs(i64 row, i64 j) const { return b[row * b_row_stride + j * b_column_stride]; }

    __device__ __forceinline__ Real entry(i64 row, i64 column) const {
        if (column < n) return widen(A[row * row_stride + column * column_stride]);
        return column < n + k ? rhs(row, column - n) : column == n + k ? (Real)1 : (Real)0;
    }

    // What the root of a weight is multiplied by in a column.
    __device__ __forceinline__ double unit(i64 column) const {
        return column < n ? scale_a : column < n + k ? scale_b : 1.0;
    }
};

// Entries of the panel that begins at row `first` into registers; rows from `stop` on, and those whose code says so,
// are zero and not read. Neighbouring threads read along the shorter stride of A.
__device__ __forceinline__ void bring(const Rows& rows, i64 first, i64 stop, i64 column, const u32* code,
                                      Real (&held)[LOADS]) {
    const bool down = rows.row_stride < rows.column_stride;
#pragma unroll
    for (int e = 0; e < LOADS; ++e) {
        const int place = threadIdx.x + e * THREADS;
        const int row = down ? place % PANEL_ROWS : place / TILE, c = down ? place / PANEL_ROWS : place % TILE;
        const bool wanted = first + row < stop && (!code || code[row] != NOT_HERE);
        held[e] = wanted ? rows.entry(first + row, column + c) : (Real)0;
    }
}

// What `bring` holds into shared memory, weighted and scaled; root (PANEL_ROWS) has the roots of the weights.
__device__ __forceinline__ void put(const Rows& rows, i64 column, const double* root, const Real (&held)[LOADS],
                                    Real* panel) {
    const bool down = rows.row_stride < rows.column_stride;
#pragma unroll
    for (int e = 0; e < LOADS; ++e) {
        const int place = threadIdx.x + e * THREADS;
        const int row = down ? place % PANEL_ROWS : place / TILE, c = down ? place / PANEL_ROWS : place % TILE;
        panel[row * PITCH + c] = held[e] * (Real)(root[row] * rows.unit(column + c));
    }
}

// The scalars of a panel's rows: root (PANEL_ROWS), and right-hand sides first_rhs, ... as rhs (count, PANEL_ROWS).
__device__ __forceinline__ void put_scalars(const Rows& rows, i64 first, i64 stop, i64 first_rhs, int count,
                                            double* root, double* rhs) {
    for (int place = threadIdx.x; place < PANEL_ROWS * (count + 1); place += THREADS) {
        const int i = place % PANEL_ROWS, j = place / PANEL_ROWS;
        const double own = first + i < stop ? rows.root(first + i) : 0.0;
        if (j == count)
            root[i] = own;
        else
            rhs[j * PANEL_ROWS + i] =
                first + i < stop ? (double)rows.rhs(first + i, first_rhs + j) * (own * rows.scale_b) : 0.0;
    }
}

// The sums of one column over the rows that one warp takes of every panel: 1'A, the squared norm and A'b.
struct ColumnSums {
    double of[2 + MOST_RHS];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int q = 0; q < 2 + MOST_RHS; ++q) of[q] = 0.0;
    }

    // Rows warp, warp + WARPS, ... of a panel, but for those whose code says no. `side` counts columns from first_rhs
    // on; b and 1 are taken before they were rounded to the type of the panel, 1 being side `last`.
    __device__ __forceinline__ void add(const Real* panel, const double* root, const double* rhs, int count,
                                        const u32* code, i64 side, i64 last) {
        const int lane = threadIdx.x % WARP;
        const double* const exact = side >= 0 && side < count ? rhs + side * PANEL_ROWS : side == last ? root : 0;
        for (int i = threadIdx.x / WARP; i < PANEL_ROWS; i += WARPS) {
            if (code && code[i] == NOT_HERE) continue;
            const double a = exact ? exact[i] : (double)panel[i * PITCH + lane];
            of[0] = fma(a, root[i], of[0]);
            of[1] = fma(a, a, of[1]);
#pragma unroll
            for (int j = 0; j < MOST_RHS; ++j)
                if (j < count) of[2 + j] = fma(a, rhs[j * PANEL_ROWS + i], of[2 + j]);
        }
    }

    // The warps' sums, added in order, into out (columns, 2 + count); room (WARPS, WARP) is shared. All threads call
    // it.
    __device__ __forceinline__ void add_up(double* room, i64 column, i64 columns, int count, double* out) {
        const int lane = threadIdx.x % WARP;
#pragma unroll
        for (int q = 0; q < 2 + MOST_RHS; ++q) {
            if (q >= 2 + count) break;
            __syncthreads();
            room[threadIdx.x] = of[q];
            __syncthreads();
            if (threadIdx.x < WARP && column + lane < columns) {
                double total = 0.0;
                for (int warp = 0; warp < WARPS; ++warp) total += room[warp * WARP + lane];
                out[(column + lane) * (2 + count) + q] = total;
            }
        }
    }
};
