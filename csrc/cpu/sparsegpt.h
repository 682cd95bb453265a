// SparseGPT of a whole layer, left-looking, on matrices [R, C] that share U:
//
//   for every block b of columns:
//     carry  = -U_{<b,b} U_bb^-1                        carry_tiles
//     values = W_b + D_{<b} carry                       load_tiles, add_products: R C^2 flops,
//     mask, updates within the block                    select_block,             nearly all
//     D_b = new values - W_b                            solve_tiles
//   at the end W + D                                    finish_tiles
//
// Where memory allows, two blocks are a group, whose products share one reading of the D before it.
//
// Rows are held T = 3 L at a time, as columns of T lanes: D is [R / T][C][T], so that a product
// finds both operands in the order in which it reads them, and a solve its rows in the lanes:
// nothing is copied between the two. D has the memory of the result.
//
// A tile is one thread's from the first block to the last, in the cache of its core. Threads wait
// for each other where all need what all made: the inverses, the carry, the choice of a mask. Carry
// and inverses are made by whoever is free.
#pragma once

#include <cstdint>
#include <vector>

#include "product.h"
#include "team.h"

// Which weights of a block are pruned.
enum class Rule {
  GIVEN,      // keep is an input
  COUNT,      // the lowest scores of the block, ties by lowest row-major index
  THRESHOLD,  // every score not above the count-th lowest (IST-DASLab's rule)
  GROUPS,     // n of every m columns of a row, on the weights as updated so far
};

// Columns of D that a product takes at once: whole tiles of the carry for every instruction set.
constexpr int64_t CHUNK = 240;

// A weight of the layer, [rows, columns].
struct Matrix {
  const void* weight;
  int64_t stride_weight;  // elements between rows, whose elements are neighbours
  int64_t rows;
  uint8_t* keep;  // [rows, columns], 1 = kept: output; an input, too, for GIVEN and grow
  float* out;     // [rows up to a multiple of T, columns]
};

struct SparseGPT {
  std::vector<Matrix> matrices;
  const float* lower;  // U transposed: lower[j * stride_lower + i] = U_ij
  int64_t stride_lower;
  const uint8_t* dead;  // [columns], 1 = its weights become 0; null where there are none
  int64_t columns, block_size;
  int dtype;  // of the weights: 0 float32, 1 bfloat16, 2 float16
  Rule rule;
  bool grow;        // what keep prunes stays pruned and counts towards the rule
  double sparsity;  // for COUNT and THRESHOLD
  int n, m;         // for GROUPS
  int threads;
};

// One block of columns, and what all matrices share of it.
struct Columns {
  int64_t start, width;
  int64_t padded;        // width up to a multiple of N
  const float* inverse;  // [width, padded], U_bb^-1, zeros in the padding
  const float* groups;   // the same as [padded / N][width][N]
  float* carry;          // [start / CHUNK][padded / N][CHUNK][N], up to a whole chunk
};

// The block of one matrix.
struct Block {
  const Matrix& matrix;
  float* values;   // [tiles][padded][T]
  double* losses;  // [tiles]
  // COUNT, THRESHOLD: pruned are the keys below `key`, and those equal to it up to `last_tie`, a
  // row-major index in the block.
  int32_t key = 0;
  int32_t last_tie = -1;
};

int tile_rows();     // T of the instruction set in use
int tile_columns();  // N

// Tiles first .. last of the rows of the carry, of T each.
void carry_tiles(const SparseGPT& job, const Columns& columns, int64_t first, int64_t last);

// Each of these does the team's own tiles.
void load_tiles(const SparseGPT& job, const Columns& columns, const Block& block,
                const Team& team);
// The columns begin .. end of D times theirs of the carry, for `count` blocks; CHUNK divides begin.
void add_products(const SparseGPT& job, const Columns* columns, const Block* blocks, int count,
                  int64_t begin, int64_t end, const Team& team);
void solve_tiles(const SparseGPT& job, const Columns& columns, const Block& block,
                 const Team& team);
void finish_tiles(const SparseGPT& job, const Matrix& matrix, const Team& team);

// Prune all matrices; returns the loss of each, the sum of squared errors.
std::vector<double> sparsegpt(const SparseGPT& job);
