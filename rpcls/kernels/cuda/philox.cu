// Words of the stream, for tests and tools.
#include "philox.cuh"

// Draw `draw` of columns start, start + 1, ... into out (count, 4). One thread a column.
extern "C" __global__ void words(u64 key, u64 start, u32 draw, u32 tag, i64 count, u32* out) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Words drawn = philox(key, start + i, draw, tag);
    for (int word = 0; word < 4; ++word) out[4 * i + word] = drawn.w[word];
}
