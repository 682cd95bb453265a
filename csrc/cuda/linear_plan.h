// How linears with packed weights share out their work, and where x and the products lie. Host and
// device, so that a CPU can check it. What is particular to a format is in layout_2to4.h and
// layout_bitmap.h.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define BOTH __host__ __device__
#else
#define BOTH
#endif

namespace linear {

constexpr int STRIP = 32;  // rows that a warp takes at once
constexpr int MAX_TOKENS = 64;
constexpr int MAX_STAGES = 5;
constexpr int MIN_CHUNKS = 4;  // for a block: fewer do not pay for its start and its reduction

BOTH constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Where 16 bytes of a token's chunk of x, `units` in all, lie in shared memory: ldmatrix reads one
// unit of eight tokens at a time, which the exclusive or spreads over the banks.
BOTH constexpr int x_vector(int token, int unit, int units) {
  return token * units + (unit ^ (token & 7));
}

// Row 0..15 and token 0..7 of element i = 0..3 of a product, PTX ISA, mma.m16n8k16, matrix C.
BOTH constexpr int product_row(int lane, int i) { return lane / 4 + i / 2 * 8; }
BOTH constexpr int product_token(int lane, int i) { return lane % 4 * 2 + i % 2; }

// Work is a line of units (tile of rows, chunk of columns), chunks first; block b of `blocks` takes
// [first_unit(b), first_unit(b + 1)). There are at least as many units as blocks, and units times
// blocks fits in 31 bits (a plan says so): 64-bit divisions are slow, and a block begins with four.
BOTH constexpr int first_unit(int block, int blocks, int units) {
  return static_cast<int>(static_cast<unsigned>(block) * units / blocks);
}
BOTH constexpr int block_of(int unit, int blocks, int units) {
  return static_cast<int>((static_cast<unsigned>(unit + 1) * blocks - 1) / units);
}

struct Plan {
  int token_tiles;  // of 8 tokens: 1, 2, 4 or 8
  int warps;        // of a block, a strip each: 4 or 8
  int stages;       // of the ring in shared memory
  int blocks;       // the grid
  int shared;       // bytes a block
  int slot;         // vectors of 16 bytes of W for a warp in a stage

  constexpr int64_t partials() const {  // floats of workspace: two sides of a sum a block
    return int64_t{2} * blocks * warps * STRIP * token_tiles * 8;
  }
};

struct Device {
  int sms, shared_block, shared_sm;  // multiprocessors; bytes a block, one of them may have
};

// All zeros where the kernel cannot run. chunk: columns of a unit; slot: see Plan.
constexpr Plan plan(int64_t tokens, int64_t rows, int64_t columns, int chunk, int slot,
                    const Device& device) {
  constexpr int RESERVED = 1024;  // the system's own share of a block's
  const int tiles = tokens <= 8 ? 1 : tokens <= 16 ? 2 : tokens <= 32 ? 4 : 8;
  // x comes from L2 once a block: with many tokens, more rows a block ask less of it.
  const int warps = tiles == 8 && device.shared_block >= (150 << 10) ? 8 : 4;
  const int stage = 16 * (warps * slot + tiles * chunk);
  // Two blocks hide each other's barriers where both have three stages.
  const int resident = device.shared_sm / (3 * stage + RESERVED) >= 2 ? 2 : 1;
  const int room = device.shared_sm / resident - RESERVED;
  const int fitting = (room < device.shared_block ? room : device.shared_block) / stage;
  const int stages = fitting < MAX_STAGES ? fitting : MAX_STAGES;
  const int64_t units = ceil_div(rows, warps * STRIP) * ceil_div(columns, chunk);
  const int64_t wanted = ceil_div(units, MIN_CHUNKS);
  const int64_t most = int64_t{device.sms} * resident;
  const int64_t blocks = wanted < most ? wanted : most;
  if (stages < 2 || units * blocks > INT32_MAX) return {};  // no shared memory, or too large
  return {tiles, warps, stages, static_cast<int>(blocks), stages * stage, slot};
}

// y[T, R] = x[T, C] W^T, times scale, plus bias; sums in float32. Addresses are device addresses;
// nothing here owns memory.
struct Arguments {
  const void* weight;      // in the format's own order, 16-byte aligned
  const uint32_t* starts;  // bitmap: where each chunk begins, in 16 bytes, and where the last ends
  const void* x;           // [T, C] of 16-bit values, 16-byte aligned, C and stride multiples of 8;
                           // beside fp8 float16
  void* y;                 // [T, R] of 16-bit values
  const float* scale;      // [R] or null
  const float* x_scale;    // [T], fp8 alone
  const void* bias;        // [R] or null
  float* partials;         // Plan::partials() floats, 16-byte aligned
  int* arrived;            // Plan::blocks zeros; zeros again afterwards
  int64_t stride;          // of x, in elements
  int64_t tokens, rows, columns;
  bool bias_is_float;      // else like y
};

// Run on `stream` of the current device; dtype of y: 1 bfloat16, 2 float16. Return a cudaError_t.
int launch_2to4(const Arguments& arguments, const Plan& plan, int dtype, void* stream);
int launch_2to4_fp8(const Arguments& arguments, const Plan& plan, int dtype, void* stream);
int launch_bitmap(const Arguments& arguments, const Plan& plan, int dtype, void* stream);

int device_of(int number, Device* found);  // a cudaError_t

// A number that is another for every capture of `stream` into a graph, 0 outside of captures.
int capture_of(void* stream, unsigned long long* capture);  // a cudaError_t

}  // namespace linear
