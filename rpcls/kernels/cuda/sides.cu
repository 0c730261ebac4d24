// What a sweep makes of the right-hand sides and of the column of ones: under a sparse sign sketch, and summed.
#include "quads.cuh"

#define THREADS 256

// What a row of S meets: one column of b, and ones.
struct Sides {
    const Real* b;  // null for none
    i64 b_stride;
    const double* weight;
    double scale_b, total, ones;

    __device__ __forceinline__ void add(i64 row, u32 sign) {
        const double root = weight ? sqrt(weight[row]) : 1.0;
        if (b) {
            const double value = (double)b[row * b_stride] * (root * scale_b);
            total += sign ? -value : value;
        }
        ones += sign ? -root : root;
    }

    // Into out (k + 1,).
    __device__ __forceinline__ void keep(i64 j, i64 k, double* out) const {
        if (j < k) out[j] = total;
        if (j == 0) out[k] = ones;
    }
};

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

// The same for groups of stretches_each stretches, with the lists of quads.cu.
extern "C" __global__ void quad_sides(const Real* b, i64 b_row_stride, i64 b_column_stride, const double* weight,
                                      i64 k, double scale_b, i64 d, const i64* parts, const u32* list,
                                      const u32* starts, i64 stretches, i64 panel_rows, i64 panels, i64 capacity,
                                      i64 quads, i64 stretches_each, double* out) {
    const i64* const part = parts + 4 * blockIdx.y;
    const i64 r = (i64)blockIdx.x * blockDim.x + threadIdx.x, group = blockIdx.z;
    const u32 rows = (u32)panel_rows;
    if (r >= part[1]) return;
    for (i64 j = 0; j == 0 || j < k; ++j) {
        Sides own = {j < k ? b + j * b_column_stride : nullptr, b_row_stride, weight, scale_b, 0.0, 0.0};
        for (i64 stretch = group * stretches_each; stretch < smaller(stretches, (group + 1) * stretches_each);
             ++stretch) {
            const i64 which = blockIdx.y * stretches + stretch;
            const u32* start = starts + which * (panels * quads + 1) + r / QUAD;
            for (i64 panel = stretch * panels; panel < (stretch + 1) * panels; ++panel, start += quads) {
                const u32 room = (u32)(panel % ROOMS), last = room ? room - 1 : ROOMS - 1;
                const i64 here = (panel - room) * rows, before = (panel - 1 - last) * rows;  // from places to rows
                for (u32 at = start[0] + r % QUAD; at < start[1]; at += QUAD) {
                    const u32 pair = list[which * capacity + at];
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const u32 place = pair >> (half ? HIGH_ROW : LOW_ROW) & ROW_BITS;
                        if (place == ROOMS * rows) continue;  // no entry
                        own.add(place + (place - room * rows < rows ? here : before), half ? pair >> 31 : pair & 1u);
                    }
                }
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
