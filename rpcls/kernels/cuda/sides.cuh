// What a row of a sparse sign sketch makes of a right-hand side and of the column of ones.
#pragma once
#include "types.cuh"

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
