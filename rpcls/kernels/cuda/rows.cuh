// Rows of A with a right-hand side and weights, as the sweeps of sparse sketches meet them.
//
// A warp takes a row at a time: SPAN columns a lane, 32 apart, so that every load of a warp is of neighbours. RUN rows
// are on their way at once. Rows of A are contiguous.
#pragma once
#include "types.cuh"

#ifndef SPAN
#define SPAN 8
#endif
#define TILE (WARP * SPAN)
#define RUN (SPAN * (int)sizeof(Real) > 32 ? 2 : SPAN * (int)sizeof(Real) > 16 ? 4 : 8)

// Rows of A times scale_a, and b times scale_b, both times the roots of the weights; weight may be null, for ones.
struct Rows {
    const Input* A;
    i64 row_stride;
    const Real* b;
    i64 b_stride;
    const double* weight;
    i64 count, n;
    double scale_a, scale_b;

    __device__ __forceinline__ double root(i64 row) const { return weight ? sqrt(weight[row]) : 1.0; }

    __device__ __forceinline__ double rhs(i64 row, double root) const {
        return b ? (double)b[row * b_stride] * (root * scale_b) : 0.0;
    }

    // Entries first, first + 32, ... of a row, zero beyond the last column.
    __device__ __forceinline__ void bring(i64 row, i64 first, Real (&held)[SPAN]) const {
        const Input* const from = A + row * row_stride + first;
#pragma unroll
        for (int s = 0; s < SPAN; ++s) held[s] = first + WARP * s < n ? widen(from[WARP * s]) : (Real)0;
    }
};

// The exact sums of a lane's columns over the rows of a warp: 1'A, squared norms and A'b.
struct Columns {
    double sum[SPAN], square[SPAN], product[SPAN];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int s = 0; s < SPAN; ++s) sum[s] = square[s] = product[s] = 0.0;
    }

    __device__ __forceinline__ void add(int s, Real value, double root, double rhs) {
        const double a = (double)value;
        sum[s] = fma(a, root, sum[s]);
        square[s] = fma(a, a, square[s]);
        product[s] = fma(a, rhs, product[s]);
    }

    // The sums of `warps` warps, added in their order, into out (3, n) from column `first` of the tile on; room (warps,
    // WARP) is shared. All threads of the block call it.
    __device__ __forceinline__ void add_up(double* room, int warps, i64 column, i64 n, double* out) const {
        const int lane = threadIdx.x % WARP;
#pragma unroll
        for (int which = 0; which < 3; ++which)
#pragma unroll
            for (int s = 0; s < SPAN; ++s) {
                __syncthreads();
                room[threadIdx.x] = which == 0 ? sum[s] : which == 1 ? square[s] : product[s];
                __syncthreads();
                const i64 c = column + WARP * s + lane;
                if (threadIdx.x >= WARP || c >= n) continue;
                double total = 0.0;
                for (int warp = 0; warp < warps; ++warp) total += room[warp * WARP + lane];
                out[which * n + c] = total;
            }
    }
};
