// 2:4 packing, and the selection of the two highest of every four that may come before it.
//
// One read, one write. A thread takes as many rows as make whole tiles of metadata (nibbles.h): it
// packs them one after the other, sixteen groups at a time (pack_blocks.h), and then lays the
// positions it has gathered, 1/16 of what it read, in their order.

#include "first.h"
#include "lanes.h"
#include "pack_avx512.h"

namespace {

// Column of the first group of a row that is refused, -1 if none is.
template <typename Isa, Value V, Score S>
RAC_INLINE int64_t pack_row(const PackJob& job, const uint8_t* from, uint8_t* to, uint8_t* words) {
  constexpr int SIZE = bytes_of(V);
  uint64_t positions;
  int64_t column = 0;
  for (; column + BLOCK <= job.columns; column += BLOCK) {
    const uint64_t refused = Isa::template pack<V, S>(from + column * SIZE, job.scale + column,
                                                      to + column * SIZE / 2, &positions);
    std::memcpy(words + column / 8, &positions, 8);
    if (refused != 0) return column + __builtin_ctzll(refused) / 4 * 4;
  }
  if (column == job.columns) return -1;
  const int64_t rest = job.columns - column;
  uint8_t weights[BLOCK * SIZE] = {}, values[BLOCK * SIZE / 2];
  float scale[BLOCK] = {};
  std::memcpy(weights, from + column * SIZE, rest * SIZE);
  if (S == Score::SCALED) std::memcpy(scale, job.scale + column, rest * sizeof(float));
  const uint64_t refused = Isa::template pack<V, S>(weights, scale, values, &positions);
  std::memcpy(to + column * SIZE / 2, values, rest * SIZE / 2);
  std::memcpy(words + column / 8, &positions, rest / 8);
  return refused == 0 ? -1 : column + __builtin_ctzll(refused) / 4 * 4;
}

// All rows, split among the threads of the enclosing parallel region.
template <typename Isa, Value V, Score S>
RAC_INLINE void pack_rows(const PackJob& job, First& first) {
  constexpr int SIZE = bytes_of(V);
  constexpr int64_t ROWS = Tile<SIZE>::ROWS;
  const int64_t stride = (job.columns + BLOCK - 1) / BLOCK * 8;
  AlignedArray<uint8_t> words(ROWS * stride);
#pragma omp for schedule(static)
  for (int64_t row = 0; row < job.padded; row += ROWS) {
    if (first.before(row * job.columns)) continue;
    for (int64_t i = 0; i < ROWS; ++i) {
      uint8_t* to = job.values + (row + i) * job.columns * SIZE / 2;
      if (row + i >= job.rows) {
        std::memset(to, 0, job.columns * SIZE / 2);
        std::memset(&words[i * stride], 0xee, stride);  // positions 2 and 3: of four zeros
        continue;
      }
      const uint8_t* from = job.weight + (row + i) * job.stride_bytes;
      const int64_t column = pack_row<Isa, V, S>(job, from, to, &words[i * stride]);
      if (column < 0) continue;
      first.lower((row + i) * job.columns + column);
      break;
    }
    store_metadata<SIZE>(words.get(), stride, row, job.columns, job.padded, job.metadata);
  }
}

template <typename Isa, Value V>
RAC_INLINE void pack_halves(const PackJob& job, First& first) {
  if (!job.prune) pack_rows<Isa, V, Score::NONE>(job, first);
  else if (job.scale == nullptr) pack_rows<Isa, V, Score::MAGNITUDE>(job, first);
  else pack_rows<Isa, V, Score::SCALED>(job, first);
}

template <typename Isa>
RAC_INLINE void pack_any(const PackJob& job, First& first) {
  switch (job.value) {
    case Value::BFLOAT16: return pack_halves<Isa, Value::BFLOAT16>(job, first);
    case Value::FLOAT16: return pack_halves<Isa, Value::FLOAT16>(job, first);
    case Value::INT8: return pack_rows<Isa, Value::INT8, Score::NONE>(job, first);
    case Value::FLOAT8: return pack_rows<Isa, Value::FLOAT8, Score::NONE>(job, first);
  }
}

void pack_baseline(const PackJob& job, First& first) { pack_any<BaselineBlock>(job, first); }
#if defined(__x86_64__)
RAC_AVX2 void pack_avx2(const PackJob& job, First& first) { pack_any<Avx2Block>(job, first); }
RAC_AVX512 void pack_avx512(const PackJob& job, First& first) { pack_any<Avx512Block>(job, first); }
#else
constexpr auto pack_avx2 = pack_baseline, pack_avx512 = pack_baseline;
#endif

}  // namespace

int64_t pack_2to4(const PackJob& job) {
  First first;
  const auto run = pick(pack_baseline, pack_avx2, pack_avx512);
#pragma omp parallel num_threads(job.threads)
  run(job, first);
  return first.get();
}
