// The parts of decoder_layer.h in order. What lies between them is scratch memory of the calling
// thread, kept from call to call.
//
// Threads are woken once for all layers: where what lies between the products is too little to share,
// one thread does it, and the others wait for the next product, spinning (team.h).

#include "decoder_layer.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "team.h"

namespace {

// Elements from which a second thread pays for being woken, as in rac_kernels/_native/loading.py.
constexpr int64_t PARALLEL = 1 << 18;

// Memory that only grows, handed out in pieces on 64-byte boundaries.
class Scratch {
 public:
  void reserve(int64_t bytes) {
    used_ = 0;
    if (bytes <= size_) return;
    memory_ = std::make_unique<AlignedArray<uint8_t>>(bytes);
    size_ = bytes;
  }
  static int64_t room(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  uint8_t* take(int64_t bytes) {
    uint8_t* const piece = memory_->get() + used_;
    used_ += room(bytes);
    return piece;
  }

 private:
  std::unique_ptr<AlignedArray<uint8_t>> memory_;
  int64_t size_ = 0, used_ = 0;
};

// What a team's first thread has ready for the others, made anew while they wait.
struct Shared {
  // All of a layer that is shared, in the order of Run::lead.
  void follow(const Team& team) {
    share_product(team);
    team.wait();
    decode_attention(*attention, *attention_scratch, team);
    team.wait();
    for (int i = 0; i < 3; ++i) share_product(team);
  }

  void share_product(const Team& team) {
    team.wait();
    phases->run();
    team.wait();
  }

  std::optional<LinearPhases> phases;
  std::optional<DecodeAttention> attention;
  std::optional<AttentionScratch> attention_scratch;
};

struct Run {
  Run(const DecoderLayer& layer, const LayerStep& step, Scratch& scratch, Shared& shared)
      : layer(layer), step(step), scratch(scratch), shared(shared), size(layer.dtype == 0 ? 4 : 2),
        element(layer.dtype == 0 ? Element::FP32 : Element::BF16) {
    // All that is taken: norm, qkv, normed queries and keys, attention; o, sum, norm; gate and up,
    // activation, down.
    const int64_t hidden = layer.hidden(), keys = layer.groups * layer.width;
    const int64_t heads = keys * layer.per_group, gate_up = layer.gate_up.weight.rows;
    int64_t bytes = 0;
    for (const int64_t row : {hidden, layer.qkv.weight.rows, heads, keys, heads, hidden, hidden,
                              hidden, gate_up, layer.features(), hidden}) {
      bytes += Scratch::room(step.batch * row * size);
    }
    scratch.reserve(bytes);
  }

  uint8_t* take(int64_t features) { return scratch.take(step.batch * features * size); }

  int threads_for(int64_t features) const {
    return step.batch * features < PARALLEL ? 1 : step.threads;
  }

  const void* norm(const NormWeight& norm, const void* x, const Ring& ring) {
    const int64_t hidden = layer.hidden();
    uint8_t* const y = take(hidden);
    rmsnorm_capture({x, hidden, norm.weight, y, step.batch, hidden, norm.eps, layer.dtype,
                     threads_for(hidden)},
                    ring);
    return y;
  }

  uint8_t* multiply(const Projection& projection, const void* x, const Team& team) {
    uint8_t* const y = take(projection.weight.rows);
    if (team.threads == 1) {
      linear(projection, x, element, y, step.batch, step.threads);
      return y;
    }
    shared.phases.emplace(projection, x, element, y, step.batch, team.threads);
    shared.phases->prepare(1);
    shared.share_product(team);
    shared.phases->finish(1);
    return y;
  }

  // Heads that lie one after the other in rows of x, `stride` bytes apart, each normed by itself.
  const void* norm_heads(const NormWeight& norm, const uint8_t* x, int64_t stride, int64_t heads) {
    uint8_t* const y = take(heads * layer.width);
    for (int64_t b = 0; b < step.batch; ++b) {
      rmsnorm_capture({x + b * stride, layer.width, norm.weight, y + b * heads * layer.width * size,
                       heads, layer.width, norm.eps, layer.dtype, 1},
                      Ring{});
    }
    return y;
  }

  const void* attend(const uint8_t* qkv, const Team& team) {
    const int64_t heads = layer.groups * layer.per_group, width = layer.width;
    const int64_t stride = layer.qkv.weight.rows;
    const uint8_t* const keys = qkv + heads * width * size;
    const uint8_t* const values = keys + layer.groups * width * size;
    const bool normed = layer.query_norm.weight != nullptr;
    const void* query = qkv;
    const void* key = keys;
    if (normed) {
      query = norm_heads(layer.query_norm, qkv, stride * size, heads);
      key = norm_heads(layer.key_norm, keys, stride * size, layer.groups);
    }
    uint8_t* const output = take(heads * width);
    const bool alone = step.batch * heads * step.columns * width < PARALLEL;
    std::optional<DecodeAttention>& attention = shared.attention;
    attention.emplace(DecodeAttention{
        query, normed ? heads * width : stride, key, normed ? layer.groups * width : stride, values,
        stride, step.cosine, step.sine, step.stride_rotary, step.keys, step.values, step.mask,
        step.stride_mask, output, layer.scaling, step.batch, layer.groups, layer.per_group,
        step.columns, width, layer.dtype, alone ? 1 : step.threads});
    if (team.threads == 1) {
      decode_attention(*attention, step.rings[1]);
      return output;
    }
    shared.attention_scratch.emplace(*attention, team.threads);
    team.wait();
    decode_attention(*attention, *shared.attention_scratch, team);
    team.wait();
    const int64_t row = heads * width * size;
    capture(step.rings[1], output, row, step.batch, row);
    return output;
  }

  const void* activate(const uint8_t* gate_up) {
    const int64_t features = layer.features();
    uint8_t* const y = take(features);
    swiglu_capture({gate_up, 2 * features, gate_up + features * size, 2 * features, y, step.batch,
                    features, layer.dtype, threads_for(features)},
                   step.rings[3]);
    return y;
  }

  void add(const void* a, const void* b, void* y) {
    residual_add(a, b, y, step.batch * layer.hidden(), layer.dtype);
  }

  // The whole layer; with a team, by its first thread, while the others follow.
  void lead(const Team& team) {
    const uint8_t* const qkv = multiply(layer.qkv, norm(layer.norm, step.x, step.rings[0]), team);
    const uint8_t* const attended = multiply(layer.output, attend(qkv, team), team);
    uint8_t* const middle = take(layer.hidden());
    add(step.x, attended, middle);
    const void* const normed = norm(layer.mlp_norm, middle, step.rings[2]);
    const uint8_t* const gate_up = multiply(layer.gate_up, normed, team);
    const uint8_t* const down = multiply(layer.down, activate(gate_up), team);
    add(middle, down, step.y);
  }

  const DecoderLayer& layer;
  const LayerStep& step;
  Scratch& scratch;
  Shared& shared;
  int64_t size;  // bytes of an element
  Element element;
};

// Whether one thread is to do all between the products.
bool small(const DecoderLayer& layer, int64_t batch) {
  const int64_t most = std::max(layer.features(), layer.qkv.weight.rows);
  return batch * std::max(most, layer.hidden()) < PARALLEL;
}

}  // namespace

void decode_layers(const std::vector<const DecoderLayer*>& layers,
                   const std::vector<LayerStep>& steps) {
  static thread_local Scratch scratch;
  Shared shared;
  const auto lead = [&](const Team& team) {
    for (size_t i = 0; i < layers.size(); ++i) Run(*layers[i], steps[i], scratch, shared).lead(team);
  };
  const bool shareable = std::all_of(layers.begin(), layers.end(), [&](const DecoderLayer* layer) {
    return small(*layer, steps[0].batch);
  });
  if (steps[0].threads == 1 || !shareable) {
    lead(Team{0, 1, nullptr});
    return;
  }
  run_team(steps[0].threads, [&](const Team& team) {
    if (team.thread == 0) lead(team);
    else for (size_t i = 0; i < layers.size(); ++i) shared.follow(team);
  });
}
