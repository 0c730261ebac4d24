// Subsampled Walsh-Hadamard transforms of blocks of q = 2^p rows; the mathematics is in rpcls/kernels/cpu/hadamard.py.
//
// Some blocks at a time, of a size that the L2 cache holds, go through three steps: `place` copies their rows of [A b
// 1] into a panel, signed, `transform` makes four levels of butterflies a pass, `add_rows` adds the sampled rows to SA.
// A is read from memory once; everything else stays in the cache, whatever q is.
#include "philox.cuh"

#define TAG 4  // rpcls.random.STREAM_TAGS["hadamard"]
#define LEVELS 4

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

    __device__ __forceinline__ Real entry(i64 row, i64 column) const {
        if (column < n) return widen(A[row * row_stride + column * column_stride]);
        return column < n + k ? b[row * b_row_stride + (column - n) * b_column_stride] : (Real)1;
    }

    // What the root of a weight is multiplied by in a column.
    __device__ __forceinline__ double unit(i64 column) const {
        return column < n ? scale_a : column < n + k ? scale_b : 1.0;
    }
};

// -1 or 1: the sign of column i of S.
__device__ __forceinline__ int sign_of(u64 key, i64 i) { return 1 - 2 * (int)(philox(key, (u64)i, 0, TAG).w[0] & 1u); }

// -1 or 1: the sign of row r of S in a block of columns.
__device__ __forceinline__ int block_sign(u64 key, i64 block, i64 r, const i64* high, i64 shared) {
    if (shared) return 1 - 2 * (__popcll((u64)high[r] & (u64)block) & 1);
    const u32 word = word_of(philox(key, (u64)block, (u32)(1 + r / 128), TAG), (int)(r % 128 / 32));
    return 1 - 2 * (int)((word >> (r % 32)) & 1u);
}

// The signs of columns start, start + 1, ... into out (count). One thread a column.
extern "C" __global__ void signs(u64 key, i64 start, i64 count, signed char* out) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = (signed char)sign_of(key, start + i);
}

// The signs of the d rows of S in blocks first_block, ... into out (blocks, d). One thread each.
extern "C" __global__ void block_signs(u64 key, i64 first_block, i64 blocks, const i64* high, i64 shared, i64 d,
                                       signed char* out) {
    const i64 place = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (place < blocks * d) out[place] = (signed char)block_sign(key, first_block + place / d, place % d, high, shared);
}

// Columns start, start + 1, ... of sqrt(d) S, into the rows of out (count, d). One thread an entry.
extern "C" __global__ void columns(u64 key, i64 start, i64 q, const i64* low, const i64* high, i64 shared, i64 count,
                                   i64 d, Real* out) {
    const i64 place = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= count * d) return;
    const i64 index = start + place / d, r = place % d;
    const int within = 1 - 2 * (__popcll((u64)low[r] & (u64)(index % q)) & 1);
    out[place] = (Real)(sign_of(key, index) * block_sign(key, index / q, r, high, shared) * within);
}

// Columns first_column, ... of the problem into panel (size, n + k + 1): row 0 of A is column `start` of S, so place i
// is row first_column + i - start; zero where there is none. sign (size) are those of the columns. One thread an entry.
extern "C" __global__ void place(const Input* A, i64 row_stride, i64 column_stride, const Real* b, i64 b_row_stride,
                                 i64 b_column_stride, const double* weight, i64 count, i64 n, i64 k, i64 start,
                                 double scale_a, double scale_b, i64 first_column, i64 size, const signed char* sign,
                                 Real* panel) {
    const Rows rows = {A, row_stride, column_stride, b, b_row_stride, b_column_stride, weight, n, k, scale_a, scale_b};
    const i64 columns = n + k + 1, at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size * columns) return;
    const bool down = row_stride < column_stride;
    const i64 i = down ? at % size : at / columns, c = down ? at / size : at % columns, row = first_column + i - start;
    const bool there = row >= 0 && row < count;
    panel[i * columns + c] =
        there ? (Real)sign[i] * rows.entry(row, c) * (Real)(rows.root(row) * rows.unit(c)) : (Real)0;
}

// Butterflies between rows 2^level, ..., 2^(level + levels - 1) apart of panel (size, columns), in place; levels at
// most LEVELS. One thread for 2^levels rows of one column.
extern "C" __global__ void transform(Real* panel, i64 size, i64 columns, i64 level, i64 levels) {
    const i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x, apart = (i64)1 << level;
    if (at >= (size >> levels) * columns) return;
    const i64 c = at % columns, run = at / columns;
    Real* const first = panel + ((run / apart << levels) * apart + run % apart) * columns + c;
    const i64 pitch = apart * columns;
    Real held[1 << LEVELS];
#pragma unroll
    for (int i = 0; i < 1 << LEVELS; ++i) held[i] = i >> levels ? (Real)0 : first[i * pitch];
#pragma unroll
    for (int half = 1; half < 1 << LEVELS; half *= 2) {
        if (half >> levels) break;
#pragma unroll
        for (int i = 0; i < 1 << LEVELS; ++i) {
            if (i & half) continue;
            const Real a = held[i], b = held[i + half];
            held[i] = a + b;
            held[i + half] = a - b;
        }
    }
#pragma unroll
    for (int i = 0; i < 1 << LEVELS; ++i)
        if (!(i >> levels)) first[i * pitch] = held[i];
}

// out (d, columns) += the sampled rows of each block of panel (blocks, q, columns), signed, in the order of the blocks;
// sign is (blocks, d). One thread an entry.
extern "C" __global__ void add_rows(const Real* panel, i64 blocks, i64 q, i64 columns, i64 d, const i64* low,
                                    const signed char* sign, Real* out) {
    const i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= d * columns) return;
    const i64 r = at / columns, c = at % columns;
    Real total = out[at];
    for (i64 block = 0; block < blocks; ++block)
        total += (Real)sign[block * d + r] * panel[(block * q + low[r]) * columns + c];
    out[at] = total;
}
