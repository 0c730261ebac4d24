// What a sweep makes of the right-hand sides and of the column of ones: under a sparse sign sketch, and summed.
#include "sides.cuh"

#define THREADS 256

// S[b 1]: blocks are (threads of rows of S, parts, groups of lanes_each lanes), lists those of order.cu. Leaves out
// (groups, d, k + 1).
extern "C" __global__ void sides(const Real* b, i64 b_row_stride, i64 b_column_stride, const double* weight, i64 k,
                                 double scale_b, i64 d, const i64* parts, const u32* list, const u32* bounds, i64 lanes,
                                 i64 lane_rows, i64 capacity, i64 width, i64 lanes_each, double* out) {
    const i64* const part = parts + 4 * blockIdx.y;
    const i64 r = (i64)blockIdx.x * blockDim.x + threadIdx.x, group = blockIdx.z;
    if (r >= part[1]) return;
    for (i64 j = 0; j == 0 || j < k; ++j) {
        Sides own = {j < k ? b + j * b_column_stride : nullptr, b_row_stride, weight, scale_b, 0.0, 0.0};
        for (i64 lane = group * lanes_each; lane < smaller(lanes, (group + 1) * lanes_each); ++lane) {
            const i64 here = blockIdx.y * lanes + lane;
            const u32 bound = bounds[here * width + r], first = bound & 0xffffu, all = bound >> 16;
            for (u32 p = 0; p < all; ++p) {
                const u32 entry = list[here * capacity + first + p];
                own.add(lane * lane_rows + (entry & 0xffffu), entry >> 31);
            }
        }
        own.keep(j, k, out + (group * d + part[0] + r) * (k + 1));
    }
}

// Sums over the rows of each block's lane of lane_rows: out (lanes, 2k + 1) = 1'Wb, b'Wb and 1'W1.
extern "C" __global__ void __launch_bounds__(THREADS)
    totals(const Real* b, i64 b_row_stride, i64 b_column_stride, const double* weight, i64 count, i64 k, double scale_b,
           i64 lane_rows, double* out) {
    SHARED(double, room);  // (3, THREADS / WARP)
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const i64 begin = blockIdx.x * lane_rows, stop = smaller(count, begin + lane_rows);
    for (i64 j = 0; j < k; ++j) {
        double sum = 0.0, square = 0.0, mass = 0.0;
        for (i64 row = begin + threadIdx.x; row < stop; row += THREADS) {
            const double w = weight ? weight[row] : 1.0, root = weight ? sqrt(w) : 1.0;
            const double value = (double)b[row * b_row_stride + j * b_column_stride] * (root * scale_b);
            sum = fma(value, root, sum);
            square = fma(value, value, square);
            mass += w;
        }
        const double of[3] = {warp_sum(sum), warp_sum(square), warp_sum(mass)};
        __syncthreads();
#pragma unroll
        for (int which = 0; which < 3; ++which)
            if (lane == 0) room[which * (THREADS / WARP) + warp] = of[which];
        __syncthreads();
        if (threadIdx.x < 3) {
            double total = 0.0;
            for (int w = 0; w < THREADS / WARP; ++w) total += room[threadIdx.x * (THREADS / WARP) + w];
            out[blockIdx.x * (2 * k + 1) + (threadIdx.x < 2 ? threadIdx.x * k + j : 2 * k)] = total;
        }
    }
}
