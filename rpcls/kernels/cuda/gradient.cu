// One read of A for A'(b - AX): rows meet X and their own residuals while they are in shared memory.
//
// A block walks its lane of rows a panel at a time: it stages them, its warps take four rows each for the products with
// X, then its threads a column each for the products with the residuals. Every entry of A is read from memory once and
// from shared memory twice; all sums are double, and each has one owner that adds in the order of the rows. Several
// blocks share a multiprocessor, so that some load while others compute.
#include "types.cuh"

#define THREADS 256
#define WARPS (THREADS / WARP)
#define FEW 2  // right-hand sides worked on at a time
#define RUN 4  // rows that share a read of X

// A sum over the lanes of a warp, in a fixed order, on each of them.
__device__ __forceinline__ double warp_sum(double value) {
    for (int apart = WARP / 2; apart; apart /= 2) value += __shfl_xor_sync(EVERY_LANE, value, apart);
    return value;
}

// A panel of rows, staged in shared memory or not, less the means of its columns if there are any.
struct Panel {
    const Input* A;
    i64 row_stride, column_stride;
    const Real* staged;  // rows are `pitch` apart; null if the rows stay where they are
    i64 pitch;
    const double* mean;

    __device__ __forceinline__ double at(i64 i, i64 c) const {
        const double a = staged ? (double)staged[i * pitch + c] : (double)widen(A[i * row_stride + c * column_stride]);
        return mean ? a - mean[c] : a;
    }
};

// `rows` rows of n columns into shared memory, rows `pitch` apart.
__device__ __forceinline__ void stage(const Input* A, i64 row_stride, i64 column_stride, int rows, int n, int pitch,
                                      Real* staged) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (column_stride == 1 && row_stride == n && pitch == n) {
#pragma unroll 8
        for (int place = threadIdx.x; place < rows * n; place += THREADS) staged[place] = widen(A[place]);
    } else if (row_stride < column_stride) {
        for (int c = warp; c < n; c += WARPS)
#pragma unroll 8
            for (int i = lane; i < rows; i += WARP)
                staged[i * pitch + c] = widen(A[i * row_stride + c * column_stride]);
    } else {
        for (int i = warp; i < rows; i += WARPS)
#pragma unroll 8
            for (int c = lane; c < n; c += WARP)
                staged[i * pitch + c] = widen(A[i * row_stride + c * column_stride]);
    }
}

// One gradient sweep over `count` rows; a block takes a lane of lane_rows rows, `step` of them at a time.
//
// out (lanes, k, n) = (A'Wr)' and squares (lanes, k) = r'Wr with r = b - AX', X (k, n). A null weight means W = I, a
// null b zeros. A and b are less a_mean (n,) and b_mean (k,), unless those are null. Where keep_rows is 0 shared memory
// is too small for a row, and where keep_sums is 0 for the sums: then they stay in global memory.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
    gradient(const Input* A, i64 row_stride, i64 column_stride, const Real* b, i64 b_row_stride, i64 b_column_stride,
             const double* weight, const double* a_mean, const double* b_mean, const double* X, i64 count, i64 n, i64 k,
             i64 lane_rows, i64 step, i64 keep_rows, i64 keep_sums, double* out, double* squares) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const i64 begin = blockIdx.x * lane_rows, stop = smaller(count, begin + lane_rows);
    const bool down = row_stride < column_stride;
    // where columns are few, groups of threads share the rows
    const i64 groups = keep_sums && n < THREADS ? THREADS / n : 1;
    out += blockIdx.x * k * n;

    SHARED(double, room);
    double* const residual = room;                              // (k, step), times the weights
    double* const square = residual + k * step;                 // (WARPS, k)
    double* const sums = keep_sums ? square + WARPS * k : out;  // (groups, k, n)
    Real* const staged = (Real*)(square + WARPS * k + (keep_sums ? groups * k * n : 0));  // (step, n | 1)
    for (i64 i = threadIdx.x; i < WARPS * k; i += THREADS) square[i] = 0.0;
    for (i64 i = threadIdx.x; i < groups * k * n; i += THREADS) sums[i] = 0.0;

    for (i64 first = begin; first < stop; first += step) {
        const i64 rows = smaller(step, stop - first), pitch = down ? n | 1 : n;
        const Panel panel = {A + first * row_stride, row_stride, column_stride, keep_rows ? staged : 0, pitch, a_mean};
        __syncthreads();
        if (keep_rows) stage(panel.A, row_stride, column_stride, (int)rows, (int)n, (int)pitch, staged);
        __syncthreads();
        for (i64 i = RUN * warp; i < rows; i += RUN * WARPS)
            for (i64 j = 0; j < k; j += FEW) {
                double dot[RUN][FEW] = {{0.0}};
                for (i64 c = lane; c < n; c += WARP) {
                    double a[RUN];
#pragma unroll
                    for (int r = 0; r < RUN; ++r) a[r] = i + r < rows ? panel.at(i + r, c) : 0.0;
#pragma unroll
                    for (int f = 0; f < FEW; ++f) {
                        if (j + f >= k) break;
                        const double x = X[(j + f) * n + c];
#pragma unroll
                        for (int r = 0; r < RUN; ++r) dot[r][f] = fma(a[r], x, dot[r][f]);
                    }
                }
#pragma unroll
                for (int f = 0; f < FEW; ++f)
#pragma unroll
                    for (int r = 0; r < RUN; ++r) {
                        if (j + f >= k || i + r >= rows) continue;
                        const double product = warp_sum(dot[r][f]);
                        if (lane) continue;
                        const i64 row = first + i + r;
                        double right = b ? (double)b[row * b_row_stride + (j + f) * b_column_stride] : 0.0;
                        right = (b_mean ? right - b_mean[j + f] : right) - product;
                        const double weighted = weight ? right * weight[row] : right;
                        residual[(j + f) * step + i + r] = weighted;
                        square[warp * k + j + f] = fma(right, weighted, square[warp * k + j + f]);
                    }
            }
        __syncthreads();
        const i64 group = groups > 1 ? threadIdx.x / n : 0;
        if (group == groups) continue;  // threads left over
        for (i64 c = groups > 1 ? threadIdx.x % n : threadIdx.x; c < n; c += THREADS)
            for (i64 j = 0; j < k; j += FEW) {
                double total[FEW] = {0.0};
#pragma unroll 4
                for (i64 i = group; i < rows; i += groups) {
                    const double a = panel.at(i, c);
#pragma unroll
                    for (int f = 0; f < FEW; ++f)
                        if (j + f < k) total[f] = fma(a, residual[(j + f) * step + i], total[f]);
                }
#pragma unroll
                for (int f = 0; f < FEW; ++f)
                    if (j + f < k) sums[(group * k + j + f) * n + c] += total[f];
            }
    }
    __syncthreads();
    if (keep_sums)
        for (i64 i = threadIdx.x; i < k * n; i += THREADS) {
            double total = 0.0;
            for (i64 group = 0; group < groups; ++group) total += sums[group * k * n + i];
            out[i] = total;
        }
    for (i64 j = threadIdx.x; j < k; j += THREADS) {
        double total = 0.0;
        for (int w = 0; w < WARPS; ++w) total += square[w * k + j];
        squares[blockIdx.x * k + j] = total;
    }
}
