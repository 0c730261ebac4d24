// One read of A for A'(b - AX): rows meet X and their own residuals while they are in registers.
//
// A team of WARPS warps takes RUN rows at a time, SPAN columns a lane, 32 apart; the next rows are on their way while
// these are worked on. Of a product with X a warp has its own part by shuffles; the parts of a team meet in shared
// memory. All sums are double and in the order of the rows. Rows of A are contiguous.
#include "types.cuh"

#ifndef SPAN
#define SPAN 8
#endif
#ifndef WARPS
#define WARPS 1  // of a team; several teams of one warp share a block
#endif
#ifndef RHS
#define RHS 1
#endif
#define THREADS (WARPS == 1 ? 256 : WARP * WARPS)
#define RESIDENT (THREADS > 256 ? 1 : 512 / THREADS)  // blocks that a multiprocessor must have room for
#define RUN (SPAN > 4 ? 2 : SPAN > 2 ? 4 : 8)

// Rows first, first + 1, ... up to `stop`, zero beyond it and beyond the last column.
__device__ __forceinline__ void bring(const Input* A, i64 row_stride, i64 first, i64 stop, i64 column, i64 n,
                                      Real (&held)[RUN][SPAN]) {
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
        const Input* const from = A + (first + r) * row_stride + column;
#pragma unroll
        for (int s = 0; s < SPAN; ++s)
            held[r][s] = first + r < stop && column + WARP * s < n ? widen(from[WARP * s]) : (Real)0;
    }
}

// One gradient sweep over `count` rows, lane_rows of them a team.
//
// out (teams, RHS, n) = (A'Wr)' and squares (teams, RHS) = r'Wr with r = b - AX, X (RHS, n). A null weight means W = I,
// a null b zeros. A and b are less a_mean (n,) and b_mean (RHS,), unless those are null.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    gradient(const Input* A, i64 row_stride, const Real* b, i64 b_row_stride, i64 b_column_stride,
             const double* weight, const double* a_mean, const double* b_mean, const double* X, i64 count, i64 n,
             i64 teams, i64 lane_rows, double* out, double* squares) {
    const int warp = threadIdx.x / WARP % WARPS, lane = threadIdx.x % WARP;
    const i64 team = WARPS == 1 ? (i64)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP : blockIdx.x;
    if (team >= teams) return;
    const i64 begin = team * lane_rows, stop = smaller(count, begin + lane_rows), column = warp * WARP * SPAN + lane;
    SHARED(double, room);  // (2, RUN * RHS, WARPS) for a team of several warps

    double x[RHS][SPAN], total[RHS][SPAN], square[RHS];
#pragma unroll
    for (int j = 0; j < RHS; ++j) {
        square[j] = 0.0;
#pragma unroll
        for (int s = 0; s < SPAN; ++s) {
            x[j][s] = column + WARP * s < n ? X[j * n + column + WARP * s] : 0.0;
            total[j][s] = 0.0;
        }
    }
    Real coming[RUN][SPAN];
    bring(A, row_stride, begin, stop, column, n, coming);
    // lane r * RHS + j brings right-hand side j and the weight of row r
    const int own_row = lane / RHS, own_rhs = lane % RHS;
    double coming_b = 0.0, coming_weight = 1.0;
    const bool bringing = own_row < RUN;
    if (bringing && begin + own_row < stop) {
        if (b) coming_b = (double)b[(begin + own_row) * b_row_stride + own_rhs * b_column_stride];
        if (weight) coming_weight = weight[begin + own_row];
    }
    const double shift = b_mean ? b_mean[own_rhs] : 0.0;
    for (i64 first = begin; first < stop; first += RUN) {
        const double own_b = coming_b - shift, own_weight = coming_weight;
        if (bringing && first + RUN + own_row < stop) {
            if (b) coming_b = (double)b[(first + RUN + own_row) * b_row_stride + own_rhs * b_column_stride];
            if (weight) coming_weight = weight[first + RUN + own_row];
        }
        double a[RUN][SPAN];
#pragma unroll
        for (int r = 0; r < RUN; ++r)
#pragma unroll
            for (int s = 0; s < SPAN; ++s) a[r][s] = (double)coming[r][s];
        bring(A, row_stride, first + RUN, stop, column, n, coming);
        if (a_mean)
#pragma unroll
            for (int s = 0; s < SPAN; ++s) {
                const double mean = column + WARP * s < n ? a_mean[column + WARP * s] : 0.0;
#pragma unroll
                for (int r = 0; r < RUN; ++r) a[r][s] -= first + r < stop ? mean : 0.0;
            }
        double product[RUN][RHS];
        double* const meet = room + ((first - begin) / RUN % 2) * RUN * RHS * WARPS;
#pragma unroll
        for (int r = 0; r < RUN; ++r)
#pragma unroll
            for (int j = 0; j < RHS; ++j) {
                double dot = 0.0;
#pragma unroll
                for (int s = 0; s < SPAN; ++s) dot = fma(a[r][s], x[j][s], dot);
                product[r][j] = warp_sum(dot);
                if (WARPS > 1 && lane == 0) meet[(r * RHS + j) * WARPS + warp] = product[r][j];
            }
        if (WARPS > 1) {
            __syncthreads();
#pragma unroll
            for (int r = 0; r < RUN; ++r)
#pragma unroll
                for (int j = 0; j < RHS; ++j) {
                    double sum = 0.0;
#pragma unroll
                    for (int w = 0; w < WARPS; ++w) sum += meet[(r * RHS + j) * WARPS + w];
                    product[r][j] = sum;
                }
        }
#pragma unroll
        for (int r = 0; r < RUN; ++r)
#pragma unroll
            for (int j = 0; j < RHS; ++j) {
                const double right = __shfl_sync(EVERY_LANE, own_b, r * RHS + j) - product[r][j];
                const double weighted = __shfl_sync(EVERY_LANE, own_weight, r * RHS + j) * right;
                if (first + r >= stop) continue;
                square[j] = fma(right, weighted, square[j]);
#pragma unroll
                for (int s = 0; s < SPAN; ++s) total[j][s] = fma(a[r][s], weighted, total[j][s]);
            }
    }
#pragma unroll
    for (int j = 0; j < RHS; ++j) {
#pragma unroll
        for (int s = 0; s < SPAN; ++s)
            if (column + WARP * s < n) out[(team * RHS + j) * n + column + WARP * s] = total[j][s];
        if (warp == 0 && lane == 0) squares[team * RHS + j] = square[j];
    }
}
