// Sweeps over rows in compressed sparse row form: the work is proportional to the stored entries, nothing is densified,
// and the columns of a row are distinct. INDEX is the type of the indices: -DINDEX=32 (the default) or 64.
//
// Without atomics, twice over: rows of S gather the rows of A that meet them, from a list sorted by row of S, a warp
// each; sums by column of A go to accumulators that a warp has for itself, added up afterwards. A warp takes one row of
// A after the other, a lane an entry, so the order never changes.
#include "types.cuh"

#if INDEX == 64
typedef i64 Index;
#else
typedef int Index;
#endif

// S[A b 1] for one block z of a sparse sign sketch. order (bounds[width]) lists the rows of A by the row of S that they
// meet, row r of the block those from bounds[r] to bounds[r + 1]; code (count) are theirs, by row of A. Adds to out
// (width, n) and side (width, k + 1). One warp a row of S.
extern "C" __global__ void gather(const Input* data, const Index* indices, const Index* indptr, const Real* b,
                                  i64 b_row_stride, i64 b_column_stride, const double* weight, i64 n, i64 k,
                                  double scale_a, double scale_b, const u32* code, const i64* order, const i64* bounds,
                                  i64 width, Real* out, double* side) {
    const i64 target = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    const int lane = threadIdx.x % WARP;
    if (target >= width) return;
    out += target * n;
    side += target * (k + 1);
    for (i64 place = bounds[target]; place < bounds[target + 1]; ++place) {
        const i64 row = order[place];
        const double root = weight ? sqrt(weight[row]) : 1.0, sign = code[row] & 1u ? -1.0 : 1.0;
        for (i64 p = indptr[row] + lane; p < indptr[row + 1]; p += WARP)
            out[indices[p]] += (Real)((double)widen(data[p]) * (sign * root * scale_a));
        for (i64 j = lane; j <= k; j += WARP) {
            const double right = j < k ? (double)b[row * b_row_stride + j * b_column_stride] * scale_b : 1.0;
            side[j] += sign * root * right;
        }
        __syncwarp();
    }
}

// The exact sums of the rows: a warp takes a lane of lane_rows rows. Adds to sums (lanes, n, 2 + k) = 1'A, squared
// norms and A'b, and totals (lanes, 2k + 1) = b'1, b'b and 1'1.
extern "C" __global__ void column_sums(const Input* data, const Index* indices, const Index* indptr, const Real* b,
                                i64 b_row_stride, i64 b_column_stride, const double* weight, i64 count, i64 n, i64 k,
                                double scale_a, double scale_b, i64 lane_rows, double* sums, double* totals) {
    const i64 mine = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    const int lane = threadIdx.x % WARP;
    const i64 first = mine * lane_rows, stop = smaller(count, first + lane_rows);
    if (first >= stop) return;
    sums += mine * n * (2 + k);
    totals += mine * (2 * k + 1);
    for (i64 row = first; row < stop; ++row) {
        const double root = weight ? sqrt(weight[row]) : 1.0;
        for (i64 p = indptr[row] + lane; p < indptr[row + 1]; p += WARP) {
            const double a = (double)widen(data[p]) * (root * scale_a);
            double* const column = sums + indices[p] * (2 + k);
            column[0] = fma(a, root, column[0]);
            column[1] = fma(a, a, column[1]);
            for (i64 j = 0; j < k; ++j) {
                const double right = (double)b[row * b_row_stride + j * b_column_stride] * (root * scale_b);
                column[2 + j] = fma(a, right, column[2 + j]);
            }
        }
        for (i64 j = lane; j <= k; j += WARP) {
            if (j == k) {
                totals[2 * k] = fma(root, root, totals[2 * k]);
                continue;
            }
            const double right = (double)b[row * b_row_stride + j * b_column_stride] * (root * scale_b);
            totals[j] = fma(right, root, totals[j]);
            totals[k + j] = fma(right, right, totals[k + j]);
        }
        __syncwarp();
    }
}

// out (lanes, k, n) += (A'Wr)', squares (lanes, k) += r'Wr and totals (lanes, k) += 1'Wr with r = b - shift - AX': a
// warp takes a lane of lane_rows rows. X is (k, n), shift (k,); a null weight means W = I, a null b zeros.
extern "C" __global__ void gradient(const Input* data, const Index* indices, const Index* indptr, const Real* b,
                                    i64 b_row_stride, i64 b_column_stride, const double* weight, const double* X,
                                    const double* shift, i64 count, i64 n, i64 k, i64 lane_rows, double* out,
                                    double* squares, double* totals) {
    const i64 mine = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    const int lane = threadIdx.x % WARP;
    const i64 first = mine * lane_rows, stop = smaller(count, first + lane_rows);
    if (first >= stop) return;
    out += mine * k * n;
    for (i64 row = first; row < stop; ++row) {
        const double w = weight ? weight[row] : 1.0;
        const i64 begin = indptr[row], end = indptr[row + 1];
        for (i64 j = 0; j < k; ++j) {
            double dot = 0.0;
            for (i64 p = begin + lane; p < end; p += WARP)
                dot = fma((double)widen(data[p]), X[j * n + indices[p]], dot);
            const double right = b ? (double)b[row * b_row_stride + j * b_column_stride] : 0.0;
            const double r = right - shift[j] - warp_sum(dot), weighted = w * r;
            for (i64 p = begin + lane; p < end; p += WARP) {
                double* const target = out + j * n + indices[p];
                *target = fma((double)widen(data[p]), weighted, *target);
            }
            if (lane == 0) {
                squares[mine * k + j] = fma(r, weighted, squares[mine * k + j]);
                totals[mine * k + j] += weighted;
            }
        }
        __syncwarp();
    }
}
