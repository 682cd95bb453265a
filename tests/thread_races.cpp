// Runs the kernels of csrc/cpu that share memory among threads on small jobs, for
// test_thread_races.py, which builds it with ThreadSanitizer.
//
//   thread_races sparsegpt | factor | hessian | linears | layer

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "decoder_layer.h"
#include "factor_hessian.h"
#include "hessian_amx.h"
#include "isa.h"
#include "kernels.h"
#include "linear_sparse.h"
#include "sparsegpt.h"
#include "team.h"

// OpenMP by threads that ThreadSanitizer knows: libgomp's own, not built for it, would be reported
// in every region. What the sources use, and no more: parallel regions, one thread's inside another,
// and loops with a static schedule, of which the compiler asks only who it is, among how many, and
// at their end that all wait.
namespace {
struct Place {
  int thread = 0, threads = 1;
  Barrier* barrier = nullptr;
};
thread_local Place own;
}
extern "C" {
int omp_get_thread_num() { return own.thread; }
int omp_get_num_threads() { return own.threads; }
void GOMP_barrier() {
  if (own.threads > 1) own.barrier->wait(own.threads);
}
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
  Barrier barrier;
  const auto run = [=, &barrier](unsigned thread) {
    const Place outer = own;
    own = {static_cast<int>(thread), static_cast<int>(threads), &barrier};
    body(data);
    own = outer;
  };
  std::vector<std::thread> others;
  for (unsigned thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
}
}

// Threads share in the same way whatever the instructions; one set of the linears is built.
void arrange_avx2(const SparseLinear&, const LinearScratch&, int64_t) { std::abort(); }
void arrange_avx512(const SparseLinear&, const LinearScratch&, int64_t) { std::abort(); }
void linear_avx2(const SparseLinear&, const LinearScratch&) { std::abort(); }
void linear_avx512(const SparseLinear&, const LinearScratch&) { std::abort(); }

namespace {

constexpr int THREADS = 4;

uint32_t random_bits() {
  static uint32_t state = 1;
  state = state * 1664525 + 1013904223;
  return state >> 8;
}
float random_float() { return random_bits() % 2000 * 1e-3f - 1; }
uint16_t random_bfloat16() { return (random_bits() % 2 << 15) | (0x3f00 + random_bits() % 128); }

std::vector<float> random_floats(int64_t size) {
  std::vector<float> all(size);
  for (float& each : all) each = random_float();
  return all;
}

// [columns, columns], the lower triangle positive definite.
std::vector<float> random_hessian(int64_t columns) {
  std::vector<float> hessian = random_floats(columns * columns);
  for (int64_t i = 0; i < columns; ++i) hessian[i * (columns + 1)] = columns;
  return hessian;
}

void run_sparsegpt(const std::vector<int64_t>& heights, int64_t columns, Rule rule, bool grow,
                   bool dead, int64_t block_size = 32) {
  SparseGPT job{};
  std::vector<std::vector<float>> weights, outs;
  std::vector<std::vector<uint8_t>> keeps;
  for (const int64_t rows : heights) {
    weights.push_back(random_floats(rows * columns + 1));
    outs.emplace_back((rows + 48) * columns);
    keeps.emplace_back(rows * columns + 1);
    for (uint8_t& keep : keeps.back()) keep = random_bits() % 4 != 0;
  }
  for (size_t i = 0; i < heights.size(); ++i) {
    job.matrices.push_back(
        {weights[i].data(), columns, heights[i], keeps[i].data(), outs[i].data()});
  }
  std::vector<float> lower = random_hessian(columns);
  std::vector<uint8_t> is_dead(columns);
  is_dead[columns / 2] = 1;
  job.lower = lower.data();
  job.stride_lower = columns;
  job.dead = dead ? is_dead.data() : nullptr;
  job.columns = columns;
  job.block_size = block_size;
  job.rule = rule;
  job.grow = grow;
  job.sparsity = 0.5;
  job.n = 2;
  job.m = 4;
  job.threads = THREADS;
  sparsegpt(job);
}

void run_sparsegpts() {
  for (const Rule rule : {Rule::GIVEN, Rule::COUNT, Rule::THRESHOLD, Rule::GROUPS}) {
    for (const bool grow : {false, true}) {
      if (grow && rule == Rule::GIVEN) continue;
      run_sparsegpt({150}, 300, rule, grow, false);
      run_sparsegpt({80, 10, 0, 10, 10}, 300, rule, grow, true);  // other shares, some of none
      run_sparsegpt({10, 80, 33}, 132, rule, grow, false);
      run_sparsegpt({40, 70}, 380, rule, grow, false, 8);  // two blocks at a time
    }
  }
}

void run_factors() {
  for (const int64_t columns : {1, 130, 600}) {
    const std::vector<float> hessian = random_hessian(columns);
    std::vector<float> work(columns * columns);
    copy_lower(hessian.data(), columns, work.data(), columns, THREADS);
    if (reversed_cholesky(work.data(), columns, columns, THREADS).column >= 0) std::abort();
    work = hessian;
    work[columns / 2 * (columns + 1)] = -1;  // all threads must see that a pivot failed
    if (reversed_cholesky(work.data(), columns, columns, THREADS).column < 0) std::abort();
  }
}

void run_hessian(int64_t features, int64_t rows, bool packed) {
  std::vector<float> hessian((features + PACKED_ROWS) * (features + PACKED_ROWS));
  const std::vector<float> x = random_floats(rows * features), weight = random_floats(rows);
  hessian_accumulate({hessian.data(), features, packed, x.data(), features, 0, weight.data(), rows,
                      features, THREADS});
}

void run_tiles(int64_t features, int64_t rows, bool packed) {
  std::vector<float> hessian((features + PACKED_ROWS) * (features + PACKED_ROWS));
  std::vector<uint16_t> x(rows * features);
  for (uint16_t& each : x) each = random_bfloat16();
  const TriangleUpdate job{hessian.data(), features, packed,   x.data(), features, 1,
                           nullptr,        rows,     features, THREADS};
  hessian_accumulate_amx(job, Rows(job));
}

// 2:4 where there are codes, a bitmap where there are offsets, else dense.
void run_linear(int64_t tokens, Value value, bool codes, bool offsets) {
  constexpr int64_t rows = 22, padded_rows = 24, columns = 1024;
  std::vector<uint16_t> values(padded_rows * columns + 16), x(tokens * columns);
  for (uint16_t& each : values) each = random_bfloat16();
  for (uint16_t& each : x) each = random_bfloat16();
  std::vector<uint8_t> bits(padded_rows * columns / 8, 0x55);  // of four the first two; every other
  if (codes) std::fill(bits.begin(), bits.end(), 0x44);
  bits.resize(padded_rows * columns / 4, bits[0]);
  std::vector<int64_t> starts(rows + 1);
  for (int64_t row = 0; row <= rows; ++row) starts[row] = row * columns / 2;
  const std::vector<float> scale = random_floats(rows), bias = random_floats(rows);
  std::vector<uint16_t> y(tokens * rows);
  const LinearWeight weight{reinterpret_cast<const uint8_t*>(values.data()),
                            codes || offsets ? bits.data() : nullptr,
                            offsets ? starts.data() : nullptr, scale.data(), rows, columns, value};
  linear({weight, bias.data(), value == Value::FLOAT8}, x.data(), Element::BF16, y.data(), tokens,
         THREADS);
}

void run_linears() {
  for (const int64_t tokens : {1, 3, 256}) {  // the last: its x is arranged by all threads
    run_linear(tokens, Value::BFLOAT16, false, false);
    run_linear(tokens, Value::BFLOAT16, false, true);
    run_linear(tokens, Value::BFLOAT16, true, false);
    run_linear(tokens, Value::INT8, true, false);
    run_linear(tokens, Value::FLOAT8, true, false);
  }
  std::vector<uint8_t> metadata(64 * 128 / 8), codes(64 * 128 / 8);
  codes_2to4(metadata.data(), codes.data(), 64, 128, 2, THREADS);
}

// A step of `batch` sequences through two layers: 1 and 3, one thread does what lies between the
// products; 2100, all do.
void run_layer(int64_t batch, int64_t columns) {
  constexpr int64_t groups = 2, per_group = 3, width = 16, hidden = 64, features = 128;
  constexpr int64_t heads = groups * per_group * width, joint = heads + 2 * groups * width;
  std::vector<uint16_t> pool(8 * hidden * features), x(batch * hidden), y(x.size());
  std::vector<uint16_t> cache(2 * batch * groups * columns * width);
  for (auto* each : {&pool, &x, &cache}) {
    for (uint16_t& value : *each) value = random_bfloat16();
  }
  const auto projection = [&](int64_t rows, int64_t width) {
    return Projection{{reinterpret_cast<const uint8_t*>(pool.data()), nullptr, nullptr, nullptr,
                       rows, width, Value::BFLOAT16},
                      nullptr,
                      false};
  };
  const NormWeight norm{pool.data(), 1e-6f};
  const DecoderLayer layer{norm,
                           norm,
                           norm,
                           norm,
                           projection(joint, hidden),
                           projection(hidden, heads),
                           projection(2 * features, hidden),
                           projection(hidden, features),
                           groups,
                           per_group,
                           width,
                           0.25f,
                           1};
  const int64_t row = columns * width;
  std::vector<int32_t> state(4);
  std::vector<uint8_t> rows(2 * batch * 2 * features * 2), mask(batch * columns, 1);
  LayerStep step{x.data(), y.data(), pool.data(), pool.data(), 0,
                 {cache.data(), groups * row, row, width},
                 {cache.data() + batch * groups * row, groups * row, row, width},
                 mask.data(), columns, batch, columns, THREADS, {}};
  step.rings[1] = {rows.data(), state.data(), batch, nullptr};
  LayerStep next = step;
  next.x = y.data();
  next.rings[1] = {};
  decode_layers({&layer, &layer}, {step, next});
  if (state[0] != batch) std::abort();
}

}  // namespace

int main(int count, char** arguments) {
  const char* job = count == 2 ? arguments[1] : "";
  use_isa("baseline");
  if (std::strcmp(job, "sparsegpt") == 0) run_sparsegpts();
  else if (std::strcmp(job, "factor") == 0) run_factors();
  else if (std::strcmp(job, "linears") == 0) run_linears();
  else if (std::strcmp(job, "layer") == 0) {
    run_layer(1, 1);
    run_layer(3, 1100);
    run_layer(2100, 9);
  } else if (std::strcmp(job, "hessian") == 0) {
    for (const bool packed : {false, true}) {
      run_hessian(200, 400, packed);
      run_hessian(500, 30, packed);
      run_tiles(70, 2100, packed);  // two batches
    }
  } else return 2;
  std::puts("done");
}
