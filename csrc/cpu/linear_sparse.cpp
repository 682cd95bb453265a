// Linears whose weight stays packed: scratch memory, the instruction set, the threads.

#include "linear_sparse.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "elements.h"
#include "isa.h"
#include "lanes.h"

namespace {

// Elements from which a second thread pays for being woken: x and y are small beside W.
constexpr int64_t PARALLEL = 1 << 18;

int threads_for(int64_t elements, int threads) { return elements < PARALLEL ? 1 : threads; }

int64_t groups_of(const SparseLinear& job) {
  return (job.tokens + tokens_at_once(job) - 1) / tokens_at_once(job);
}

// Tiles cost the same for 1 and for 16 tokens.
constexpr int64_t FEW_TOKENS = 4;

Products products_for(const Projection& projection, Element element, int64_t tokens) {
  const bool bf16 = projection.weight.value == Value::BFLOAT16 && element == Element::BF16;
  const bool tiles = current_isa() >= Isa::AMX && tokens > FEW_TOKENS;
  if (tiles && (bf16 || projection.rounds_x)) return Products::TILES;
  return bf16 && current_isa() >= Isa::AVX512_BF16 ? Products::PAIRS : Products::LANES;
}

// Where x lies in the order that a kernel reads it in: in float32 for LANES alone.
int64_t panel_floats(const SparseLinear& job) {
  const int64_t elements = groups_of(job) * tokens_at_once(job) * job.padded;
  return job.products == Products::LANES ? elements : elements / 2;
}

// `y` is bfloat16 if x is, else float32; only tiles write the former.
SparseLinear job_of(const Projection& projection, const void* x, Element element, void* y,
                    int64_t tokens, int threads) {
  const LinearWeight& weight = projection.weight;
  const Products products = products_for(projection, element, tokens);
  const bool rounds = element == Element::BF16;
  return {x, rounds ? nullptr : static_cast<float*>(y), weight.values, weight.codes, weight.offsets,
          weight.scale, projection.bias, tokens, weight.rows, weight.columns, element,
          weight.value, projection.rounds_x, threads,
          (weight.columns + PADDED_TO - 1) / PADDED_TO * PADDED_TO, products,
          rounds && products == Products::TILES ? static_cast<uint16_t*>(y) : nullptr};
}

float element(const SparseLinear& job, int64_t token, int64_t column) {
  const int64_t i = token * job.columns + column;
  if (job.element == Element::FP32) return static_cast<const float*>(job.x)[i];
  const uint16_t* half = static_cast<const uint16_t*>(job.x) + i;
  if (job.element == Element::BF16) return load_first<4, BFloat16>(half, 1)[0];
  return load_first<4, Float16>(half, 1)[0];
}

// Whether a value is packed for this weight; 2:4.
bool is_packed(const SparseLinear& job, int64_t row, int64_t column) {
  const uint8_t* four = job.codes + row / 4 * job.columns / 2 + row % 4 * 4;
  const int code = four[column / 32 * 16 + column % 32 / 8] >> column % 8 / 4 * 4;
  return (code & 3) == column % 4 || (code >> 2 & 3) == column % 4;
}

// The kernel for 2:4 leaves zeros out, but 0 * inf is not 0: what such an x makes of a dense product.
void spread_not_finite(const SparseLinear& job, const uint8_t* finite) {
  for (int64_t token = 0; token < job.tokens; ++token) {
    if (finite[token]) continue;
    std::vector<int64_t> wrong;
    for (int64_t c = 0; c < job.columns; ++c) {
      if (!std::isfinite(element(job, token, c))) wrong.push_back(c);
    }
    for (int64_t row = 0; row < job.rows; ++row) {
      const bool zero = std::any_of(wrong.begin(), wrong.end(),
                                    [&](int64_t c) { return !is_packed(job, row, c); });
      if (zero) job.y[token * job.rows + row] = std::numeric_limits<float>::quiet_NaN();
    }
  }
}

// y rounded to bfloat16.
void round_all(const float* y, uint16_t* rounded, int64_t count, int threads) {
  threads = threads_for(count, threads);
  const int64_t whole = count / 4 * 4;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < whole; i += 4) BFloat16::store<4>(rounded + i, Float::load<4>(y + i));
  if (whole < count) {
    store_first<4, BFloat16>(rounded + whole, load_first<4, Float>(y + whole, count - whole),
                             count - whole);
  }
}

}  // namespace

LinearPhases::LinearPhases(const Projection& projection, const void* x, Element element, void* y,
                           int64_t tokens, int threads)
    : y_(y), job_(job_of(projection, x, element, y, tokens, threads)),
      sums_(job_.y || job_.rounded ? 0 : tokens * job_.rows, false), panels_(panel_floats(job_)),
      x_scale_(job_.rounds_x ? tokens : 0), finite_(tokens),
      scratch_{panels_.get(), finite_.get(), x_scale_.get()} {
  if (!job_.y && !job_.rounded) job_.y = sums_.get();
}

void LinearPhases::prepare(int threads) {
  ArrangeKernel arrange = pick(arrange_baseline, arrange_avx2, arrange_avx512);
  if (job_.products == Products::PAIRS) arrange = arrange_dots;
  else if (job_.products == Products::TILES) arrange = arrange_tiles;
  const int64_t groups = groups_of(job_);
  threads = threads_for(job_.tokens * job_.columns, threads);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t group = 0; group < groups; ++group) arrange(job_, scratch_, group);
}

void LinearPhases::run() {
  if (job_.products == Products::PAIRS) linear_dots(job_, scratch_);
  else if (job_.products == Products::TILES) linear_tiles(job_, scratch_);
  else pick(linear_baseline, linear_avx2, linear_avx512)(job_, scratch_);
}

void LinearPhases::finish(int threads) {
  if (job_.products == Products::TILES) return;  // which multiply the zeros, too
  if (job_.codes && !job_.offsets) spread_not_finite(job_, finite_.get());
  if (job_.y == y_) return;
  round_all(job_.y, static_cast<uint16_t*>(y_), job_.tokens * job_.rows, threads);
}

void linear(const Projection& projection, const void* x, Element element, void* y, int64_t tokens,
            int threads) {
  LinearPhases phases(projection, x, element, y, tokens, threads);
  phases.prepare(threads);
#pragma omp parallel num_threads(threads)
  phases.run();
  phases.finish(threads);
}

void unpack_rows(const LinearWeight& weight, int64_t row, int64_t rows, uint16_t* dense,
                 int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t four = 0; four < rows; four += 4) {
    unpack_four_rows(weight, row + four, dense + four * weight.columns);
  }
}

void codes_2to4(const uint8_t* metadata, uint8_t* codes, int64_t rows, int64_t columns,
                int value_bytes, int threads) {
  const int64_t size = value_bytes == 2 ? 2 : 4;     // bytes of a word
  const int64_t group = value_bytes == 2 ? 32 : 16;  // rows dealt out together
  const int64_t words = columns / (size * 8);        // of a row
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t dealt = row / group * group + row % 8 * (group / 8) + row % group / 8;
    uint8_t* to = codes + row / 4 * columns / 2 + row % 4 * 4;
    for (int64_t word = 0; word < words; ++word) {
      // of two words in two rows, those off the diagonal change places
      const int64_t swap = word % 2 - dealt % 2;
      const int64_t to_row = dealt + swap, to_word = word - swap;
      const int64_t from = to_word / 2 * rows * 2 + to_row * 2 + to_word % 2;
      std::memcpy(to + word * size / 4 * 16 + word * size % 4, metadata + from * size, size);
    }
  }
}
