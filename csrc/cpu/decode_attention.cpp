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

#include "attention_columns.h"
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

// The group's queries in float32, rotated, with zeros up to whole PARTS; `rotated` has room for one.
template <int L, typename T>
RAC_INLINE void load_queries(const DecodeAttention& job, int64_t b, int64_t group, int64_t padded,
                             float* queries, Element<T>* rotated) {
  const auto* from = static_cast<const Element<T>*>(job.query) + b * job.stride_query +
                     group * job.per_group * job.width;
  const auto* cosine = static_cast<const Element<T>*>(job.cosine) + b * job.stride_rotary;
  const auto* sine = static_cast<const Element<T>*>(job.sine) + b * job.stride_rotary;
  for (int64_t g = 0; g < job.per_group; ++g, from += job.width, queries += padded) {
    const Element<T>* row = from;
    if (job.cosine != nullptr) {
      rotate<L, T>(from, cosine, sine, job.width, rotated);
      row = rotated;
    }
    for (int64_t i = 0; i < padded; i += L) {
      const int64_t count = std::clamp<int64_t>(job.width - i, 0, L);
      Float::store<L>(queries + i, count == L ? T::template load<L>(row + i)
                                              : load_first<L, T>(row + i, count));
    }
  }
}

// The new key and value become the last column.
template <int L, typename T>
RAC_INLINE void append(const DecodeAttention& job, int64_t b, int64_t group) {
  const int64_t row = group * job.width, last = job.columns - 1;
  const auto* key = static_cast<const Element<T>*>(job.key) + b * job.stride_key + row;
  const auto* value = static_cast<const Element<T>*>(job.value) + b * job.stride_value + row;
  Element<T>* to = column_of<T>(job.keys, b, group, last);
  if (job.cosine != nullptr) {
    const int64_t at = b * job.stride_rotary;
    rotate<L, T>(key, static_cast<const Element<T>*>(job.cosine) + at,
                 static_cast<const Element<T>*>(job.sine) + at, job.width, to);
  } else {
    std::memcpy(to, key, job.width * sizeof(Element<T>));
  }
  std::memcpy(column_of<T>(job.values, b, group, last), value, job.width * sizeof(Element<T>));
}

RAC_INLINE Columns columns_of(const DecodeAttention& job, const AttentionScratch& shared,
                              int64_t task) {
  const int64_t split = task % shared.splits, pair = task / shared.splits;
  return {pair / job.groups, pair % job.groups, split * SPLIT,
          std::min(job.columns, (split + 1) * SPLIT)};
}

// The task-th, `end` being where the thread's tasks end.
template <int L, typename T>
RAC_INLINE void attend(const DecodeAttention& job, AttentionScratch& shared, int64_t task,
                       int64_t end, float* scratch) {
  const Columns all = columns_of(job, shared, task);
  const int64_t padded = shared.padded;
  float *queries = scratch, *p = queries + job.per_group * padded;
  float* const rotated = p + job.per_group * CHUNK;
  load_queries<L, T>(job, all.b, all.group, padded, queries,
                     reinterpret_cast<Element<T>*>(rotated));
  if (job.key != nullptr && all.last == job.columns) append<L, T>(job, all.b, all.group);
  Partial partial(shared, job, task);
  std::fill(partial.values, partial.values + job.per_group * padded, 0.0f);
  std::fill(partial.sum, partial.sum + job.per_group, 0.0f);
  std::fill(partial.largest, partial.largest + job.per_group, LOWEST);
  for (int64_t first = all.first; first < all.last; first += CHUNK) {
    const Columns chunk{all.b, all.group, first, std::min(first + CHUNK, all.last)};
    Columns after{all.b, all.group, chunk.last, all.last};
    if (chunk.last == all.last) after = columns_of(job, shared, std::min(task + 1, end - 1));
    const Fetched<T> next(job, after);
    for (int64_t g = 0; g < job.per_group;) {
      const auto run = [&](auto queries_at_once) __attribute__((always_inline)) {
        constexpr int Q = decltype(queries_at_once)::value;
        attend_chunk<L, T, Q>(job, chunk, padded, g == 0 ? &next : nullptr, queries + g * padded,
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

// What the splits of a query are multiplied with, in the place of their largest scores; returns what
// their sum is.
RAC_INLINE float factors_of(const DecodeAttention& job, AttentionScratch& shared, int64_t pair,
                            int64_t g) {
  float largest = LOWEST, sum = 0;
  for (int64_t s = 0; s < shared.splits; ++s) {
    const float most = Partial(shared, job, pair * shared.splits + s).largest[g];
    largest = most > largest || most != most ? most : largest;
  }
  for (int64_t s = 0; s < shared.splits; ++s) {
    const Partial part(shared, job, pair * shared.splits + s);
    if (part.largest[g] == LOWEST) {
      part.largest[g] = 0;
      continue;
    }
    const float less = part.largest[g] - largest;  // 0 or NaN where there is but one
    const float factor = less == 0 ? 1 : exponential<4>(F32<4>{} + less)[0];
    sum += part.sum[g] * factor;
    part.largest[g] = factor;
  }
  return sum;
}

// The output of one sequence's group; zeros where nothing is attended over.
template <int L, typename T>
RAC_INLINE void combine(const DecodeAttention& job, AttentionScratch& shared, int64_t pair) {
  auto* to = static_cast<Element<T>*>(job.output) + pair * job.per_group * job.width;
  for (int64_t g = 0; g < job.per_group; ++g, to += job.width) {
    const float sum = factors_of(job, shared, pair, g);
    const float scale = sum == 0 ? 0 : 1 / sum;
    for (int64_t i = 0; i < job.width; i += L) {
      F32<L> values = {};
      for (int64_t s = 0; s < shared.splits; ++s) {
        const Partial part(shared, job, pair * shared.splits + s);
        if (part.largest[g] == 0) continue;
        values += Float::load<L>(part.values + g * shared.padded + i) * part.largest[g];
      }
      const int64_t count = std::min<int64_t>(L, job.width - i);
      if (count == L) T::template store<L>(to + i, values * scale);
      else store_first<L, T>(to + i, values * scale, count);
    }
  }
}

template <int L, typename T>
RAC_INLINE void attention_rows(const DecodeAttention& job, AttentionScratch& shared,
                               const Team& team) {
  float* const work = shared.work.get() + team.thread * shared.size;
  const int64_t pairs = job.batch * job.groups, tasks = pairs * shared.splits;
  const int64_t end = team.end(tasks);
  for (int64_t task = team.begin(tasks); task < end; ++task) {
    attend<L, T>(job, shared, task, end, work);
  }
  team.wait();
  for (int64_t pair = team.begin(pairs); pair < team.end(pairs); ++pair) {
    combine<L, T>(job, shared, pair);
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
      size(up_to(job.per_group * (padded + CHUNK) + padded, PARTS)),
      sums(job.batch * job.groups * splits * job.per_group * (padded + 2), false),
      work(threads * size, false) {}

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
