// n:m masks on a GPU. Addresses are device addresses; nothing here owns memory.
#pragma once

#include <cstdint>

// keep[g * m + i] = 0 for the n lowest of each group of m contiguous scores, else 1; ties by lowest
// index, no NaN. dtype: 0 float32, 1 bfloat16, 2 float16. Runs on `stream` of the current device.
// Returns a cudaError_t: 0 when the launch was accepted.
int select_mask_cuda(const void* scores, uint8_t* keep, int64_t groups, int n, int m, int dtype,
                     void* stream);

// The text of such an error.
const char* cuda_error_text(int error);
