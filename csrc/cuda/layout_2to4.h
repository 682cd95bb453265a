// Where everything of a 2:4 linear lies: weights as the kernel reads them, x in shared memory, what
// a lane holds of a product, and how the work is shared out. Host and device, so that a CPU can
// check it.
//
//   weight [R, C] in strips of 32 rows, a strip in chunks of 128 columns, 4608 bytes a chunk:
//       vector 2 s + h, s = 0..3, h = 0..1: the values of columns 32 s .. 32 s + 31 of rows
//       16 h .. 16 h + 15, operand A of one mma.sp.m16n8k32, 16 bytes a lane;
//       vector 8: the metadata, a word for each s: lanes 0 and 1 of four serve the upper product
//       (selector 0), 2 and 3 the lower (selector 1).
//   Rows and columns that W has not are zero.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define BOTH __host__ __device__
#else
#define BOTH
#endif

namespace linear_2to4 {

constexpr int STRIP = 32;         // rows of a chunk
constexpr int CHUNK = 128;        // columns of a chunk
constexpr int VECTORS = 9;        // of 32 lanes x 16 bytes, in a chunk
constexpr int UNITS = CHUNK / 8;  // 16-byte units of x for one token and chunk
constexpr int MAX_TOKENS = 64;
constexpr int MAX_STAGES = 5;
constexpr int MIN_CHUNKS = 4;  // for a block: fewer do not pay for its start and its reduction

BOTH constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The vector of 16 bytes, of all of W, that `lane` loads.
BOTH constexpr int64_t weight_vector(int64_t strip, int64_t chunks, int64_t chunk, int vector,
                                     int lane) {
  return ((strip * chunks + chunk) * VECTORS + vector) * 32 + lane;
}

// Where the 16 bytes `unit` of a token's chunk of x lie in shared memory. A row takes all 32 banks
// twice; ldmatrix reads one unit of eight tokens at a time, which the exclusive or spreads over them.
BOTH constexpr int x_vector(int token, int unit) { return token * UNITS + (unit ^ (token & 7)); }

// Row 0..15 and token 0..7 of element i = 0..3 of a product, PTX ISA, mma.m16n8k16, matrix C.
BOTH constexpr int product_row(int lane, int i) { return lane / 4 + i / 2 * 8; }
BOTH constexpr int product_token(int lane, int i) { return lane % 4 * 2 + i % 2; }

// Work is a line of units (tile of rows, chunk), chunks first; block b of `blocks` takes
// [first_unit(b), first_unit(b + 1)). There are at least as many units as blocks, and units * blocks
// fits in 31 bits (a plan says so): 64-bit divisions are slow, and a block begins with four.
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

  constexpr int64_t partials() const {  // floats of workspace: two sides of a sum a block
    return int64_t{2} * blocks * warps * STRIP * token_tiles * 8;
  }
};

BOTH constexpr int stage_vectors(int token_tiles, int warps) {
  return warps * VECTORS * 32 + token_tiles * 8 * UNITS;
}

// All zeros where the kernel cannot run. sms: streaming multiprocessors; shared_block, shared_sm: bytes one block, one of them may have.
constexpr Plan plan(int64_t tokens, int64_t rows, int64_t columns, int sms, int shared_block,
                    int shared_sm) {
  constexpr int RESERVED = 1024;  // the system's own share of a block's
  const int tiles = tokens <= 8 ? 1 : tokens <= 16 ? 2 : tokens <= 32 ? 4 : 8;
  // x comes from L2 once a block: with many tokens, more rows a block ask less of it.
  const int warps = tiles == 8 && shared_block >= (150 << 10) ? 8 : 4;
  const int stage = 16 * stage_vectors(tiles, warps);
  // Two blocks hide each other's barriers where both have three stages.
  const int resident = shared_sm / (3 * stage + RESERVED) >= 2 ? 2 : 1;
  const int room = shared_sm / resident - RESERVED;
  const int fitting = (room < shared_block ? room : shared_block) / stage;
  const int stages = fitting < MAX_STAGES ? fitting : MAX_STAGES;
  const int64_t units = ceil_div(rows, warps * STRIP) * ceil_div(columns, CHUNK);
  const int64_t wanted = ceil_div(units, MIN_CHUNKS);
  const int64_t most = int64_t{sms} * resident;
  const int64_t blocks = wanted < most ? wanted : most;
  if (stages < 2 || units * blocks > INT32_MAX) return {};  // no shared memory, or too large
  return {tiles, warps, stages, static_cast<int>(blocks), stages * stage};
}

}  // namespace linear_2to4
