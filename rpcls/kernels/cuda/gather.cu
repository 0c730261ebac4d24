// The sweep of a sparse sign sketch with one entry a column: a warp owns a row of S and gathers the rows of A that meet
// it, adding up in registers. Nothing is staged; a row of A goes from memory to the one warp that wants it, and the
// exact sums of its columns are made on the way.
#include "rows.cuh"

#define WARPS 8
#ifndef EXACT
#define EXACT 1  // whether the sums are made, too
#endif

// Blocks are (tiles of columns, WARPS * rows_each rows of the part, groups of lanes_each lanes). list (lanes, capacity)
// and bounds (lanes, width) are those of one part, whose first row of S is first_row.
//
// Leaves out (groups, d, n) = SA in the rows of the part, and sums (groups * blocks of rows, 3, n): 1'A, squared norms
// and A'b over the rows of A that meet the part.
extern "C" __global__ void __launch_bounds__(WARPS * WARP, 2)
    gather(const Input* A, i64 row_stride, const Real* b, i64 b_stride, const double* weight, i64 count, i64 n,
           double scale_a, double scale_b, const u32* list, const u32* bounds, i64 lanes, i64 lane_rows, i64 capacity,
           i64 width, i64 lanes_each, i64 rows_each, i64 first_row, i64 part_rows, i64 d, Real* out, double* sums) {
    const Rows rows = {A, row_stride, b, b_stride, weight, count, n, scale_a, scale_b};
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const i64 column = (i64)blockIdx.x * TILE, group = blockIdx.z;
    const i64 first_lane = group * lanes_each, last_lane = smaller(lanes, first_lane + lanes_each);
    Columns exact;
    exact.clear();
    for (i64 each = 0; each < rows_each; ++each) {
        const i64 target = ((i64)blockIdx.y * rows_each + each) * WARPS + warp;
        if (target >= part_rows) break;
        Real total[SPAN];
#pragma unroll
        for (int s = 0; s < SPAN; ++s) total[s] = (Real)0;
        for (i64 l = first_lane; l < last_lane; ++l) {
            const u32 own = bounds[l * width + target], first = own & 0xffffu, all = own >> 16;
            for (u32 done = 0; done < all; done += WARP) {
                const int have = (int)smaller(WARP, all - done);
                const u32 entry = lane < have ? list[l * capacity + first + done + lane] : 0;
                const i64 mine = l * lane_rows + (entry & 0xffffu);
                const double root = lane < have ? rows.root(mine) : 0.0, rhs = lane < have ? rows.rhs(mine, root) : 0.0;
                for (int i = 0; i < have; i += RUN) {
                    Real held[RUN][SPAN];
#pragma unroll
                    for (int r = 0; r < RUN; ++r) {
                        const i64 row = __shfl_sync(EVERY_LANE, mine, (i + r) % WARP);
                        if (i + r < have) rows.bring(row, column + lane, held[r]);
                    }
#pragma unroll
                    for (int r = 0; r < RUN; ++r) {
                        const u32 of_entry = __shfl_sync(EVERY_LANE, entry, (i + r) % WARP);
                        const double of_root = __shfl_sync(EVERY_LANE, root, (i + r) % WARP);
                        const double of_rhs = __shfl_sync(EVERY_LANE, rhs, (i + r) % WARP);
                        if (i + r >= have) continue;
                        const Real factor = (Real)(of_root * scale_a);
#pragma unroll
                        for (int s = 0; s < SPAN; ++s) {
                            const Real value = held[r][s] * factor;
                            total[s] += signed_by(value, of_entry);
                            if (EXACT) exact.add(s, value, of_root, of_rhs);
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int s = 0; s < SPAN; ++s) {
            const i64 c = column + WARP * s + lane;
            if (c < n) out[(group * d + first_row + target) * n + c] = total[s];
        }
    }
    if (!EXACT) return;
    SHARED(double, room);  // (WARPS, WARP)
    exact.add_up(room, WARPS, column, n, sums + (group * gridDim.y + blockIdx.y) * 3 * n);
}

// The exact sums alone: blocks are (tiles of columns, lanes of lane_rows rows). Leaves sums (lanes, 3, n).
extern "C" __global__ void __launch_bounds__(WARPS * WARP, 2)
    column_sums(const Input* A, i64 row_stride, const Real* b, i64 b_stride, const double* weight, i64 count, i64 n,
                double scale_a, double scale_b, i64 lane_rows, double* sums) {
    const Rows rows = {A, row_stride, b, b_stride, weight, count, n, scale_a, scale_b};
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const i64 column = (i64)blockIdx.x * TILE, begin = blockIdx.y * lane_rows, stop = smaller(count, begin + lane_rows);
    Columns exact;
    exact.clear();
    for (i64 first = begin + RUN * warp; first < stop; first += RUN * WARPS) {
        Real held[RUN][SPAN];
#pragma unroll
        for (int r = 0; r < RUN; ++r)
            if (first + r < stop) rows.bring(first + r, column + lane, held[r]);
#pragma unroll
        for (int r = 0; r < RUN; ++r) {
            if (first + r >= stop) continue;
            const double root = rows.root(first + r), rhs = rows.rhs(first + r, root);
            const Real factor = (Real)(root * scale_a);
#pragma unroll
            for (int s = 0; s < SPAN; ++s) exact.add(s, held[r][s] * factor, root, rhs);
        }
    }
    SHARED(double, room);  // (WARPS, WARP)
    exact.add_up(room, WARPS, column, n, sums + blockIdx.y * 3 * n);
}
