// linear_many: y^T += w x^T, one packed value and a row of x^T at a time, tokens in the lanes.
// Zeros cost nothing, so a 2:4 weight takes half the multiply-adds of a dense one.
//
//            64 tokens
//           +--------+           x^T is copied into panels of 64 (32, 16) tokens. Of a block of
//   chunk   |x x x x |           ROWS rows of W a chunk of columns is decoded to (value, place in
//           +--------+           the panel), then every row's sums, in registers, take one row of
//           |        |           the panel for each value; panel chunk and list are in the caches.
//           +--------+
//
// A sum is made of PARTS partial sums, chunk after chunk: the same bits for any number of threads.
#pragma once

#include <algorithm>

#include "elements.h"
#include "linear_values.h"

constexpr int64_t ROWS = 128;             // of W, in a block
constexpr int64_t CHUNK_FLOATS = 4096;    // of a panel: 16 KB
constexpr int64_t SLACK = 16;             // entries after a list that may be written

// The packed values of one row in a chunk.
struct Entries {
  float* value;
  uint32_t* place;  // bytes into the chunk of a panel
  int64_t count;    // a multiple of 4: zeros are appended
};

// The panels of tokens [first, first + tokens): [panel][column][width], zeros where there are none.
RAC_INLINE void fill_panels(const SparseLinear& job, const LinearScratch& scratch, int64_t first,
                            int64_t tokens, int64_t width) {
  const int64_t strips = (tokens + width - 1) / width * (width / 4);
#pragma omp for schedule(static)
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t token = strip * 4;
    float* to = scratch.panels + token / width * width * job.padded + token % width;
    const float* from = scratch.x + (first + token) * job.padded;
    if (token + 4 <= tokens) {
      for (int64_t c = 0; c < job.padded; c += 4) {
        transpose_4x4(from + c, job.padded, to + c * width, width);
      }
      continue;
    }
    for (int64_t c = 0; c < job.padded; ++c) {
      for (int64_t t = 0; t < 4; ++t) {
        to[c * width + t] = token + t < tokens ? from[t * job.padded + c] : 0.0f;
      }
    }
  }
}

// Decode columns [first, last) of a row.
template <typename Packing, int WIDTH>
RAC_INLINE void list_entries(const SparseLinear& job, const LinearScratch& scratch, int64_t row,
                             int64_t first, int64_t last, Entries& entries) {
  using V = typename Packing::Values;
  typedef uint8_t Bytes __attribute__((vector_size(8)));
  typedef uint32_t Places __attribute__((vector_size(32), aligned(4)));
  const Positions& table = Packing::positions();
  Packing reader = Packing::at(job, scratch, row, first);
  const uint8_t* values = reader.values;
  int64_t count = 0;
  for (int64_t c = first; c < last; c += 8) {
    const int code = *reader.codes++;
    if ((c - first) % 32 == 24) reader.codes = Packing::after_four(reader.codes);
    Bytes columns;
    std::memcpy(&columns, table.column[code], sizeof(columns));
    const Places places = (__builtin_convertvector(columns, Places) +
                           static_cast<uint32_t>(c - first)) * (4 * WIDTH);
    std::memcpy(entries.place + count, &places, sizeof(places));
    count += table.count[code];
  }
  Packing::leave(job, scratch, row, values + count * V::BYTES);
  for (int64_t i = 0; i < count; i += 8) {  // what is read after the last value is there
    I32<8> words;
    if constexpr (V::BYTES == 2) {
      typename Halves<8>::U16 halves;
      std::memcpy(&halves, values + i * 2, sizeof(halves));
      words = reinterpret_cast<I32<8>>(::widen<8>(halves));
    } else {
      Bytes bytes;
      std::memcpy(&bytes, values + i, sizeof(bytes));
      words = reinterpret_cast<I32<8>>(__builtin_convertvector(bytes, Places) << 24);
    }
    const F32<8> lanes = V::template widen<8>(words);
    std::memcpy(entries.value + i, &lanes, sizeof(lanes));
  }
  for (; count % 4; ++count) {
    entries.value[count] = 0.0f;
    entries.place[count] = 0;
  }
  entries.count = count;
}

// sums[0:NV*L] += the sum over the entries of value * the panel's row at its place.
template <int L, int NV>
RAC_INLINE void add_rows(const Entries& entries, const float* panel, float* sums) {
  constexpr int PARTS = NV >= 8 ? 1 : NV >= 4 ? 2 : 4;
  F32<L> sum[PARTS][NV] = {};
  std::memcpy(sum[0], sums, sizeof(sum[0]));
  const char* base = reinterpret_cast<const char*>(panel);
  for (int64_t i = 0; i < entries.count; i += PARTS) {
#pragma GCC unroll 4
    for (int p = 0; p < PARTS; ++p) {
      const float value = entries.value[i + p];
      const char* from = base + entries.place[i + p];
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) {
        F32<L> lanes;
        std::memcpy(&lanes, from + v * sizeof(lanes), sizeof(lanes));
        sum[p][v] += value * lanes;
      }
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < NV; ++v) {
    for (int p = 1; p < PARTS; ++p) sum[0][v] += sum[p][v];
  }
  std::memcpy(sums, sum[0], sizeof(sum[0]));
}

// One block of rows for the tokens [first, first + tokens) whose panels are made.
template <int L, int NV, typename Packing>
RAC_INLINE void many_block(const SparseLinear& job, const LinearScratch& scratch, int64_t row,
                           int64_t first, int64_t tokens, float* sums, Entries& entries) {
  constexpr int WIDTH = NV * L;
  constexpr int64_t CHUNK = CHUNK_FLOATS / WIDTH;
  const int64_t rows = std::min(ROWS, job.rows - row);
  const int64_t panels = (tokens + WIDTH - 1) / WIDTH;
  std::memset(sums, 0, panels * ROWS * WIDTH * sizeof(float));
  for (int64_t c = 0; c < job.columns; c += CHUNK) {
    const int64_t last = std::min(c + CHUNK, job.columns);
    for (int64_t r = 0; r < rows; ++r) {
      list_entries<Packing, WIDTH>(job, scratch, row + r, c, last, entries);
      for (int64_t p = 0; p < panels; ++p) {
        const float* panel = scratch.panels + (p * job.padded + c) * WIDTH;
        add_rows<L, NV>(entries, panel, sums + (p * ROWS + r) * WIDTH);
      }
    }
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const float* from = sums + t / WIDTH * ROWS * WIDTH + t % WIDTH;
    float* y = job.y + (first + t) * job.rows + row;
    for (int64_t r = 0; r < rows; ++r) {
      y[r] = finished<typename Packing::Values>(job, row + r, from[r * WIDTH]);
    }
  }
}

template <int L, int NV, typename Packing>
RAC_INLINE void many_rows(const SparseLinear& job, const LinearScratch& scratch) {
  constexpr int64_t WIDTH = NV * L, CHUNK = CHUNK_FLOATS / WIDTH;
  const int64_t blocks = (job.rows + ROWS - 1) / ROWS;
  AlignedArray<float> sums(GROUP * ROWS), value(CHUNK + SLACK);
  AlignedArray<uint32_t> place(CHUNK + SLACK);
  Entries entries{value.get(), place.get(), 0};
  for (int64_t first = 0; first < job.tokens; first += GROUP) {
    const int64_t tokens = std::min(GROUP, job.tokens - first);
    fill_panels(job, scratch, first, tokens, WIDTH);
    if (job.offsets) {
#pragma omp for schedule(static)
      for (int64_t row = 0; row < job.rows; ++row) scratch.position[row] = job.offsets[row];
    }
#pragma omp for schedule(dynamic)
    for (int64_t block = 0; block < blocks; ++block) {
      many_block<L, NV, Packing>(job, scratch, block * ROWS, first, tokens, sums.get(), entries);
    }
  }
}

template <typename Set>
RAC_INLINE void many(const SparseLinear& job, const LinearScratch& scratch) {
  constexpr int L = Set::L;
  with_packing(job, [&](auto* packing) {
    using Packing = std::remove_pointer_t<decltype(packing)>;
    const int64_t width = panel_width(job.tokens);
    if (width == 64) many_rows<L, 64 / L, Packing>(job, scratch);
    else if (width == 32) many_rows<L, 32 / L, Packing>(job, scratch);
    else many_rows<L, 16 / L, Packing>(job, scratch);
  });
}
