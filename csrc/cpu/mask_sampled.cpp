// A share of many scores, a layer's or a block's: two keys of a sample enclose the wanted one, so
// that a first read copies only what lies between them, a few percent, and a second read writes.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "mask_keys.h"
#include "search_keys.h"

namespace {

constexpr int64_t CHUNK = 2048;  // keys worked on at a time

struct Candidate {
  int32_t key;
  int64_t index;
};

// A segment: rows of the job from `column` on.
struct Segment {
  int64_t column, width, size, count;
};

// What lies below, on, and between two keys in a share of the segment.
struct Part {
  int64_t below = 0, at_low = 0, at_high = 0;
  std::vector<Candidate> between;
  bool nan = false;
};

// The pieces of rows that a range of the segment's indices falls into.
struct Piece {
  int64_t row, column, count;
};

RAC_INLINE Piece piece_at(const Segment& segment, int64_t index, int64_t end) {
  const int64_t row = index / segment.width, column = index % segment.width;
  return {row, segment.column + column,
          std::min({segment.width - column, end - index, CHUNK})};
}

RAC_INLINE void count_part(const MaskJob& job, const Segment& segment, int64_t first, int64_t end,
                           int32_t low, int32_t high, Part& part) {
  int32_t keys[CHUNK];
  for (int64_t index = first; index < end;) {
    const Piece piece = piece_at(segment, index, end);
    part.nan |= read_keys(job, piece.row, piece.column, piece.count, keys);
    const int64_t below = count_below(keys, piece.count, low);
    part.below += below;
    part.at_low += count_below(keys, piece.count, low + 1) - below;
    if (high > low) {
      const int64_t reached = count_below(keys, piece.count, high);
      part.at_high += count_below(keys, piece.count, high + 1) - reached;
    }
    for (int64_t start = 0; start < piece.count; start += SCANNED) {
      const int64_t stop = std::min(start + SCANNED, piece.count);
      const bool whole = stop - start == SCANNED;
      if (whole && count_within(keys + start, SCANNED, low + 1, high) == 0) continue;
      Candidate found[SCANNED + 1];
      int64_t copied = 0;  // without a branch, which nothing would predict
      for (int64_t i = start; i < stop; ++i) {
        found[copied] = {keys[i], index + i};
        copied += (keys[i] > low) & (keys[i] < high);
      }
      part.between.insert(part.between.end(), found, found + copied);
    }
    index += piece.count;
  }
}

RAC_INLINE void write_part(const MaskJob& job, const Segment& segment, int64_t first, int64_t end,
                           Selection chosen) {
  int32_t keys[CHUNK];
  for (int64_t index = first; index < end;) {
    const Piece piece = piece_at(segment, index, end);
    read_keys(job, piece.row, piece.column, piece.count, keys);
    write_selected(job, piece.row, piece.column, piece.count, keys, index, chosen);
    index += piece.count;
  }
}

#define RAC_COUNT_ARGUMENTS \
  const MaskJob &job, const Segment &s, int64_t first, int64_t end, int32_t low, int32_t high, \
      Part &part
void count_baseline(RAC_COUNT_ARGUMENTS) { count_part(job, s, first, end, low, high, part); }
RAC_AVX2 void count_avx2(RAC_COUNT_ARGUMENTS) { count_part(job, s, first, end, low, high, part); }
RAC_AVX512 void count_avx512(RAC_COUNT_ARGUMENTS) {
  count_part(job, s, first, end, low, high, part);
}

#define RAC_WRITE_ARGUMENTS \
  const MaskJob &job, const Segment &s, int64_t first, int64_t end, Selection chosen
void write_baseline(RAC_WRITE_ARGUMENTS) { write_part(job, s, first, end, chosen); }
RAC_AVX2 void write_avx2(RAC_WRITE_ARGUMENTS) { write_part(job, s, first, end, chosen); }
RAC_AVX512 void write_avx512(RAC_WRITE_ARGUMENTS) { write_part(job, s, first, end, chosen); }

int64_t part_start(const Segment& segment, int64_t part, int64_t parts) {
  return segment.size / parts * part + std::min(segment.size % parts, part);
}

// Keys of scores drawn with a fixed seed: the answer does not depend on them, the time does.
std::vector<int32_t> sample_keys(const MaskJob& job, const Segment& segment) {
  std::vector<int32_t> sample(std::clamp<int64_t>(segment.size / 512, 1024, 32768));
  uint64_t state = 1;
  for (int32_t& key : sample) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const int64_t index = (state >> 33) % segment.size;
    read_keys(job, index / segment.width, segment.column + index % segment.width, 1, &key);
  }
  return sample;
}

int32_t key_of_rank(std::vector<int32_t>& sample, double rank) {
  if (rank < 0) return static_cast<int32_t>(LEAST);
  if (rank >= sample.size()) return static_cast<int32_t>(GREATEST);
  const auto place = sample.begin() + static_cast<int64_t>(rank);
  std::nth_element(sample.begin(), place, sample.end());
  return *place;
}

// The n-th index, from 1, whose key is low (or high), found by the part that holds it.
int64_t index_of_tie(const MaskJob& job, const Segment& segment, const std::vector<Part>& parts,
                     int64_t Part::*at, int32_t key, int64_t n) {
  size_t own = 0;
  while (n > parts[own].*at) n -= parts[own++].*at;
  const int64_t end = part_start(segment, own + 1, parts.size());
  int32_t keys[CHUNK];
  for (int64_t index = part_start(segment, own, parts.size()); index < end;) {
    const Piece piece = piece_at(segment, index, end);
    read_keys(job, piece.row, piece.column, piece.count, keys);
    for (int64_t i = 0; i < piece.count; ++i) {
      if (keys[i] == key && --n == 0) return index + i;
    }
    index += piece.count;
  }
  return -1;  // not reached: the part has n of them
}

// Choose among what lies between, of which the count-th is wanted.
Selection choose_between(const std::vector<Part>& parts, int64_t count) {
  std::vector<int32_t> keys;
  for (const Part& part : parts) {
    for (const Candidate& candidate : part.between) keys.push_back(candidate.key);
  }
  std::nth_element(keys.begin(), keys.begin() + (count - 1), keys.end());
  const int32_t key = keys[count - 1];
  for (const int32_t other : keys) count -= other < key;
  for (const Part& part : parts) {
    for (const Candidate& candidate : part.between) {
      if (candidate.key == key && --count == 0) return {key, candidate.index};
    }
  }
  return {key, -1};  // not reached: `count` keys between are not above `key`
}

// The selection of a segment; true in `nan` if a score is NaN, and then it means nothing.
Selection select_segment(const MaskJob& job, const Segment& segment, std::vector<Part>& parts,
                         bool& nan) {
  const auto run = pick(count_baseline, count_avx2, count_avx512);
  std::vector<int32_t> sample = sample_keys(job, segment);
  const double share = static_cast<double>(segment.count) / segment.size;
  const double middle = share * sample.size();
  // Four standard deviations of the rank; wider if that was not enough.
  for (double margin = 4 * std::sqrt(middle * (1 - share)) + 2;; margin *= 4) {
    const int32_t low = key_of_rank(sample, std::floor(middle - margin));
    const int32_t high = key_of_rank(sample, std::ceil(middle + margin));
    const int64_t size = parts.size();
#pragma omp parallel for schedule(static) num_threads(job.threads)
    for (int64_t p = 0; p < size; ++p) {
      parts[p] = Part{};
      run(job, segment, part_start(segment, p, size), part_start(segment, p + 1, size), low, high,
          parts[p]);
    }
    int64_t below = 0, at_low = 0, between = 0, at_high = 0;
    for (const Part& part : parts) {
      nan |= part.nan;
      below += part.below, at_low += part.at_low, at_high += part.at_high;
      between += part.between.size();
    }
    if (nan) return {};
    int64_t count = segment.count - below;
    if (count <= 0 && below > 0) continue;
    if (count <= at_low) {
      return {low, index_of_tie(job, segment, parts, &Part::at_low, low, count)};
    }
    count -= at_low;
    if (count <= between) return choose_between(parts, count);
    count -= between;
    if (count > at_high) continue;
    return {high, index_of_tie(job, segment, parts, &Part::at_high, high, count)};
  }
}

}  // namespace

bool mask_sampled(const MaskJob& job) {
  const auto write = pick(write_baseline, write_avx2, write_avx512);
  bool nan = false;
  std::vector<Part> parts(16 * job.threads);
  const int64_t size = parts.size();
  for (int64_t top = 0; top < job.rows && !nan; top += job.together) {
    MaskJob rows = job;
    rows.weight = weight_at(job, top, 0);
    rows.keep = job.keep + top * job.columns;
    const int64_t bytes = job.dtype == 0 ? 4 : 2;
    if (job.pruned) rows.pruned = static_cast<char*>(job.pruned) + top * job.columns * bytes;
    for (int64_t column = 0; column < job.columns && !nan; column += job.width) {
      const bool last = column + job.width >= job.columns;
      const int64_t width = std::min(job.width, job.columns - column);
      const Segment segment{column, width, job.together * width, last ? job.last_count : job.count};
      const Selection chosen = select_segment(rows, segment, parts, nan);
#pragma omp parallel for schedule(static) num_threads(job.threads)
      for (int64_t p = 0; p < size; ++p) {
        write(rows, segment, part_start(segment, p, size), part_start(segment, p + 1, size),
              chosen);
      }
    }
  }
  return !nan;
}
