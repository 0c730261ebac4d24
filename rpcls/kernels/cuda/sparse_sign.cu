// Sparse sign sketches: nnz disjoint row blocks of S, one +-1 of each column of S in each of them. nnz = 1 is
// CountSketch.
//
// Entries travel as codes: twice the row of S, plus one for a minus sign. The factor 1/sqrt(nnz) is left to the caller.
//
// How S[A b 1] is made without atomics, in an order that never changes: a block owns a lane of rows, a tile of 32
// columns and a part of the rows of S, whose sums it keeps in shared memory (1024 x 32 floats are 128 KiB of the 227
// that a block may have on an H100 or H200; more rows of S are several parts). Each of its warps owns the rows of S of
// one block z that are congruent to it, and a column a lane, so no two threads ever meet in an entry; it walks the rows
// of the lane in order and picks its own by ballot. Lanes are added up afterwards.
//
// One row of a tile, 128 bytes of float32, moves 128 bytes into shared memory, 128 out of it for the sums, and 384 for
// each of its nnz entries, of the 128 that a multiprocessor moves a clock: a CountSketch waits for memory,
// SparseSign(8) for shared memory. Parts that hold a share of one block z read only the rows that fall into it, so A is
// read once in all; parts of several blocks read it again, from the L2 cache where they run side by side.
#include "panel.cuh"
#include "philox.cuh"

#define TAG 1           // rpcls.random.STREAM_TAGS["sparse-sign"]
#define OWNER_SHIFT 24  // in shared memory a code counts rows from the part's first, and has its owner on top

__device__ __forceinline__ u64 code_of(u32 word, u64 first, u64 width) {
    return ((first + (((word >> 1) * width) >> 31)) << 1) | (word & 1u);
}

// The codes of columns start, start + 1, ... of S (d rows) into out (nnz, count). One thread a draw.
extern "C" __global__ void codes(u64 key, i64 start, i64 count, i64 d, i64 nnz, u32* out) {
    const i64 draws = (nnz + 3) / 4, place = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= count * draws) return;
    const i64 i = place % count, draw = place / count;
    const Words drawn = philox(key, (u64)(start + i), (u32)draw, TAG);
    for (i64 z = 4 * draw; z < smaller(4 * draw + 4, nnz); ++z) {
        const u64 first = z * d / nnz, width = (z + 1) * d / nnz - first;
        out[z * count + i] = (u32)code_of(word_of(drawn, (int)(z % 4)), first, width);
    }
}

// Rows first_row ... of S that a block keeps, and the blocks z that they belong to: a share of one, or several whole.
struct Part {
    i64 first_row, rows, first_z, blocks;
};

// The codes of one panel, (blocks, PANEL_ROWS), NOT_HERE where a row of A meets no row of the part; edges (blocks + 1)
// are those of its blocks.
__device__ __forceinline__ void put_codes(u64 key, i64 start, i64 first, i64 stop, Part part, const u32* edges,
                                          u32* code) {
    if (!part.blocks) return;
    const u32 owners = WARPS / (u32)part.blocks;
    const i64 first_draw = part.first_z / 4, draws = (part.first_z + part.blocks + 3) / 4 - first_draw;
    for (int place = threadIdx.x; place < PANEL_ROWS * draws; place += THREADS) {
        const int i = place % PANEL_ROWS;
        const i64 draw = first_draw + place / PANEL_ROWS;
        const Words drawn = philox(key, (u64)(start + first + i), (u32)draw, TAG);
#pragma unroll
        for (int word = 0; word < 4; ++word) {
            const i64 z = 4 * draw + word - part.first_z;
            if (z < 0 || z >= part.blocks) continue;
            const u32 drawn_code = (u32)code_of(drawn.w[word], edges[z], edges[z + 1] - edges[z]);
            const u32 target = (drawn_code >> 1) - (u32)part.first_row;  // wraps around below the first
            const bool here = first + i < stop && target < (u32)part.rows;
            code[z * PANEL_ROWS + i] =
                here ? target % owners << OWNER_SHIFT | target << 1 | (drawn_code & 1u) : NOT_HERE;
        }
    }
}

// What one warp adds to `kept` (rows of the part, TILE) from one panel: the rows of S that it owns.
__device__ __forceinline__ void scatter(const Real* panel, const u32* code, Part part, Real* kept) {
    if (!part.blocks) return;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int z = warp % (int)part.blocks;
    const u32 owner = warp / (int)part.blocks;
    for (int group = 0; group < PANEL_ROWS; group += WARP) {
        const u32 own = code[z * PANEL_ROWS + group + lane];
        u32 mine = __ballot_sync(EVERY_LANE, own >> OWNER_SHIFT == owner);
        while (mine) {
            const int i = __ffs(mine) - 1;
            mine &= mine - 1;
            const u32 drawn = __shfl_sync(EVERY_LANE, own, i);
            const Real a = panel[(group + i) * PITCH + lane];
            Real* const target = kept + ((drawn & ((1u << OWNER_SHIFT) - 1)) >> 1) * TILE + lane;
            *target = drawn & 1u ? *target - a : *target + a;
        }
    }
}

// One compress sweep over `count` rows of A, of which row 0 is column `start` of S: blocks are (tiles of columns,
// parts, lanes of lane_rows rows). parts (parts, 4) are first_row, rows, first_z, blocks; one of no blocks takes only
// sums.
//
// Leaves out (lanes, d, n + k + 1) = S[A b 1], and sums (lanes, parts, n + k + 1, 2 + rhs_count): 1'A, squared norms
// and A'b for right-hand sides first_rhs, .... A row is summed by the part that holds its entry of block 0.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    sweep(const Input* A, i64 row_stride, i64 column_stride, const Real* b, i64 b_row_stride, i64 b_column_stride,
          const double* weight, i64 count, i64 n, i64 k, i64 start, u64 key, i64 d, i64 nnz, double scale_a,
          double scale_b, i64 lane_rows, const i64* parts, i64 first_rhs, i64 rhs_count, Real* out, double* sums) {
    const Rows rows = {A, row_stride, column_stride, b, b_row_stride, b_column_stride, weight, n, k, scale_a, scale_b};
    const i64 columns = n + k + 1, column = (i64)blockIdx.x * TILE, lane = blockIdx.z;
    const i64* const cut = parts + 4 * blockIdx.y;
    const Part part = {cut[0], cut[1], cut[2], cut[3]};
    const int rhs_here = (int)rhs_count;
    const bool all = part.blocks == 0, summing = all || part.first_z == 0;

    SHARED(double, room);
    double* const root = room;                                      // (2, PANEL_ROWS)
    double* const rhs = root + 2 * PANEL_ROWS;                      // (2, rhs_count, PANEL_ROWS)
    Real* const panel = (Real*)(rhs + 2 * rhs_count * PANEL_ROWS);  // (PANEL_ROWS, PITCH)
    Real* const kept = panel + PANEL_ROWS * PITCH;                  // (rows of the part, TILE)
    u32* const code = (u32*)(kept + part.rows * TILE);              // (2, blocks of the part, PANEL_ROWS)
    u32* const edges = code + 2 * part.blocks * PANEL_ROWS;         // (blocks of the part + 1)
    const int scalars = rhs_here * PANEL_ROWS, drawn = (int)part.blocks * PANEL_ROWS;

    for (i64 i = threadIdx.x; i < part.rows * TILE; i += THREADS) kept[i] = (Real)0;
    for (i64 z = threadIdx.x; z <= part.blocks; z += THREADS) edges[z] = nnz ? (u32)((part.first_z + z) * d / nnz) : 0;
    __syncthreads();
    ColumnSums total;
    total.clear();
    Real held[LOADS];
    const i64 stop = smaller(count, (lane + 1) * lane_rows);
    i64 first = lane * lane_rows - PANEL_ROWS;  // no panel yet
    for (int now = 1; first < stop; first += PANEL_ROWS, now ^= 1) {
        const i64 next = first + PANEL_ROWS;
        const u32* const code_now = code + now * drawn;
        u32* const code_next = code + (now ^ 1) * drawn;
        double* const root_next = root + (now ^ 1) * PANEL_ROWS;
        put_codes(key, start, next, stop, part, edges, code_next);
        put_scalars(rows, next, stop, first_rhs, rhs_here, root_next, rhs + (now ^ 1) * scalars);
        __syncthreads();
        bring(rows, next, stop, column, all ? 0 : code_next, held);
        if (next > lane * lane_rows) {
            if (summing)
                total.add(panel, root + now * PANEL_ROWS, rhs + now * scalars, rhs_here, all ? 0 : code_now,
                          column + threadIdx.x % WARP - n - first_rhs, k - first_rhs);
            scatter(panel, code_now, part, kept);
        }
        __syncthreads();
        put(rows, column, root_next, held, panel);
    }

    for (i64 i = threadIdx.x; i < part.rows * TILE; i += THREADS)
        if (column + i % TILE < columns)
            out[(lane * d + part.first_row + i / TILE) * columns + column + i % TILE] = kept[i];
    total.add_up((double*)panel, column, columns, rhs_here,
                 sums + (lane * gridDim.y + blockIdx.y) * columns * (2 + rhs_here));
}
