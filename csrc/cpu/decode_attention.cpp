// softmax(q k^T * scaling + mask) v for one query token a sequence, the query heads of a group
// together, so that a key and a value are read once for all of them:
//
//   for every sequence, group and SPLIT of columns:        a task
//     for every CHUNK of its columns:                      keys and values in the L1 cache
//       scores = q k^T * scaling; the largest so far; p = e^(score - largest)
//       sum = sum * e^(old largest - largest) + p;  accumulator likewise, with p v
//   for every sequence and group: the tasks' accumulators, weighed likewise, over their sums
//
// (online softmax: Milakov and Gimelshein 2018; splits: Flash-Decoding, Dao et al. 2023.)
//
// Everything is float32 and rounded once at the end; rotated queries and keys are rounded as torch
// rounds them, product by product. A dot product is PARTS partial sums, then a tree; a task is the
// same whoever computes it: the same bits for any number of threads, and the same for AVX2 and
// AVX-512, which fuse a product with its sum; the baseline rounds both.

#include "decode_attention.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "attention_chunk.h"
#include "rotary.h"

namespace {

constexpr int64_t SPLIT = 512;
constexpr int QUERIES = 4;  // that share the key or the value that is loaded

int64_t up_to(int64_t size, int64_t of) { return (size + of - 1) / of * of; }

// One task's part of AttentionScratch::sums.
struct Partial {
  Partial(AttentionScratch& shared, const DecodeAttention& job, int64_t task)
      : values(shared.sums.get() + task * job.per_group * (shared.padded + 2)),
        largest(values + job.per_group * shared.padded), sum(largest + job.per_group) {}

  float *values, *largest, *sum;
};

// The group's queries in float32, rotated, with zeros up to whole PARTS.
template <typename T>
RAC_INLINE void load_queries(const DecodeAttention& job, int64_t b, int64_t group, int64_t padded,
                             float* queries) {
  const auto* from = static_cast<const Element<T>*>(job.query) + b * job.stride_query +
                     group * job.per_group * job.width;
  const auto* cosine = static_cast<const Element<T>*>(job.cosine) + b * job.stride_rotary;
  const auto* sine = static_cast<const Element<T>*>(job.sine) + b * job.stride_rotary;
  std::vector<Element<T>> rotated(job.width);
  for (int64_t g = 0; g < job.per_group; ++g, from += job.width, queries += padded) {
    const Element<T>* row = from;
    if (job.cosine != nullptr) {
      rotate<T>(from, cosine, sine, job.width, rotated.data());
      row = rotated.data();
    }
    for (int64_t i = 0; i < padded; i += 4) {
      const int64_t count = std::clamp<int64_t>(job.width - i, 0, 4);
      const F32<4> lanes = load_first<4, T>(row + std::min(i, job.width), count);
      std::memcpy(queries + i, &lanes, sizeof(lanes));
    }
  }
}

template <typename T>
RAC_INLINE Element<T>* column_of(const CacheView& cache, int64_t b, int64_t group,
                                 int64_t column) {
  return static_cast<Element<T>*>(cache.data) + b * cache.stride_batch +
         group * cache.stride_head + column * cache.stride_column;
}

// The new key and value become the last column.
template <typename T>
RAC_INLINE void append(const DecodeAttention& job, int64_t b, int64_t group) {
  const int64_t row = group * job.width, last = job.columns - 1;
  const auto* key = static_cast<const Element<T>*>(job.key) + b * job.stride_key + row;
  const auto* value = static_cast<const Element<T>*>(job.value) + b * job.stride_value + row;
  Element<T>* to = column_of<T>(job.keys, b, group, last);
  if (job.cosine != nullptr) {
    const int64_t at = b * job.stride_rotary;
    rotate<T>(key, static_cast<const Element<T>*>(job.cosine) + at,
              static_cast<const Element<T>*>(job.sine) + at, job.width, to);
  } else {
    std::memcpy(to, key, job.width * sizeof(Element<T>));
  }
  std::memcpy(column_of<T>(job.values, b, group, last), value, job.width * sizeof(Element<T>));
}

template <int L, typename T, int Q>
RAC_INLINE void attend_chunk(const DecodeAttention& job, int64_t b, int64_t group, int64_t first,
                             int64_t columns, int64_t padded, const float* queries, float* p,
                             float* values, float* largest, float* sum) {
  const uint8_t* mask = job.mask == nullptr ? nullptr : job.mask + b * job.stride_mask + first;
  const Element<T>* key = column_of<T>(job.keys, b, group, first);
  for (int64_t c = 0; c < columns; ++c, key += job.keys.stride_column) {
    if (mask == nullptr || mask[c] != 0) {
      score<L, T, Q>(queries, padded, key, job.width, job.scaling, p + c);
    } else {
      for (int q = 0; q < Q; ++q) p[q * CHUNK + c] = LOWEST;
    }
  }
  bool any = false;
  for (int q = 0; q < Q; ++q) {
    any |= soften<L>(p + q * CHUNK, columns, values + q * padded, padded, largest[q], sum[q]);
  }
  if (!any) return;
  constexpr int W = PARTS / L < 2 ? 1 : 2;
  const Element<T>* value = column_of<T>(job.values, b, group, first);
  const int64_t stride = job.values.stride_column;
  int64_t i = 0;
  for (; i + W * L <= job.width; i += W * L) {
    weigh<L, T, Q, W, true>(p, value + i, stride, columns, W * L, values + i, padded);
  }
  if (i < job.width) {
    weigh<L, T, Q, W, false>(p, value + i, stride, columns, job.width - i, values + i, padded);
  }
}

template <int L, typename T>
RAC_INLINE void attend(const DecodeAttention& job, AttentionScratch& shared, int64_t task, float* scratch) {
  const int64_t split = task % shared.splits, pair = task / shared.splits;
  const int64_t b = pair / job.groups, group = pair % job.groups, padded = shared.padded;
  const int64_t last = std::min(job.columns, (split + 1) * SPLIT);
  float *queries = scratch, *p = scratch + job.per_group * padded;
  load_queries<T>(job, b, group, padded, queries);
  if (job.key != nullptr && last == job.columns) append<T>(job, b, group);
  Partial partial(shared, job, task);
  std::fill(partial.largest, partial.largest + job.per_group, LOWEST);
  for (int64_t first = split * SPLIT; first < last; first += CHUNK) {
    const int64_t columns = std::min(CHUNK, last - first);
    for (int64_t g = 0; g < job.per_group;) {
      const auto run = [&](auto queries_at_once) __attribute__((always_inline)) {
        constexpr int Q = decltype(queries_at_once)::value;
        attend_chunk<L, T, Q>(job, b, group, first, columns, padded, queries + g * padded,
                              p + g * CHUNK, partial.values + g * padded, partial.largest + g,
                              partial.sum + g);
        g += Q;
      };
      switch (std::min<int64_t>(QUERIES, job.per_group - g)) {
        case 1: run(std::integral_constant<int, 1>()); break;
        case 2: run(std::integral_constant<int, 2>()); break;
        case 3: run(std::integral_constant<int, 3>()); break;
        default: run(std::integral_constant<int, QUERIES>());
      }
    }
  }
}

// The output of one sequence's group; zeros where nothing is attended over.
template <typename T>
RAC_INLINE void combine(const DecodeAttention& job, AttentionScratch& shared, int64_t pair) {
  const int64_t padded = shared.padded;
  auto* to = static_cast<Element<T>*>(job.output) + pair * job.per_group * job.width;
  std::vector<float> values(padded);
  for (int64_t g = 0; g < job.per_group; ++g, to += job.width) {
    float largest = LOWEST, sum = 0;
    for (int64_t s = 0; s < shared.splits; ++s) {
      const float most = Partial(shared, job, pair * shared.splits + s).largest[g];
      largest = most > largest || most != most ? most : largest;
    }
    std::fill(values.begin(), values.end(), 0.0f);
    for (int64_t s = 0; s < shared.splits; ++s) {
      const Partial part(shared, job, pair * shared.splits + s);
      if (part.largest[g] == LOWEST) continue;
      const float less = part.largest[g] - largest;  // 0 or NaN where there is but one
      const float factor = less == 0 ? 1 : exponential<4>(F32<4>{} + less)[0];
      sum += part.sum[g] * factor;
      for (int64_t i = 0; i < job.width; ++i) values[i] += part.values[g * padded + i] * factor;
    }
    const float scale = sum == 0 ? 0 : 1 / sum;
    for (int64_t i = 0; i < job.width; i += 4) {
      F32<4> lanes;
      std::memcpy(&lanes, values.data() + i, sizeof(lanes));
      store_first<4, T>(to + i, lanes * scale, std::min<int64_t>(4, job.width - i));
    }
  }
}

template <int L, typename T>
RAC_INLINE void attention_rows(const DecodeAttention& job, AttentionScratch& shared,
                               const Team& team) {
  float* const work = shared.work.get() + team.thread * shared.size;
  const int64_t pairs = job.batch * job.groups, tasks = pairs * shared.splits;
  for (int64_t task = team.begin(tasks); task < team.end(tasks); ++task) {
    attend<L, T>(job, shared, task, work);
  }
  team.wait();
  for (int64_t pair = team.begin(pairs); pair < team.end(pairs); ++pair) {
    combine<T>(job, shared, pair);
  }
}

template <int L>
RAC_INLINE void attention_any(const DecodeAttention& job, AttentionScratch& shared,
                              const Team& team) {
  if (job.dtype == 0) attention_rows<L, Float>(job, shared, team);
  else attention_rows<L, BFloat16>(job, shared, team);
}

void attention_baseline(const DecodeAttention& job, AttentionScratch& shared, const Team& team) {
  attention_any<4>(job, shared, team);
}
RAC_AVX2 void attention_avx2(const DecodeAttention& job, AttentionScratch& shared,
                             const Team& team) {
  attention_any<8>(job, shared, team);
}
RAC_AVX512 void attention_avx512(const DecodeAttention& job, AttentionScratch& shared,
                                 const Team& team) {
  attention_any<16>(job, shared, team);
}

}  // namespace

AttentionScratch::AttentionScratch(const DecodeAttention& job, int threads)
    : splits((job.columns + SPLIT - 1) / SPLIT), padded(up_to(job.width, PARTS)),
      size(up_to(job.per_group * (padded + CHUNK), PARTS)),
      sums(job.batch * job.groups * splits * job.per_group * (padded + 2)), work(threads * size) {}

void decode_attention(const DecodeAttention& job, AttentionScratch& scratch, const Team& team) {
  pick(attention_baseline, attention_avx2, attention_avx512)(job, scratch, team);
}

void decode_attention(const DecodeAttention& job, const Ring& ring) {
  AttentionScratch scratch(job, job.threads);
  if (job.threads == 1) {
    decode_attention(job, scratch, Team{0, 1, nullptr});
  } else {
    run_team(job.threads, [&](const Team& team) { decode_attention(job, scratch, team); });
  }
  const int64_t row = job.groups * job.per_group * job.width * (job.dtype == 0 ? 4 : 2);
  capture(ring, static_cast<const uint8_t*>(job.output), row, job.batch, row);
}
