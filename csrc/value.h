// What the values of a packed weight are.
#pragma once

enum class Value { BFLOAT16, FLOAT16, INT8, FLOAT8 };

constexpr int bytes_of(Value value) {
  return value == Value::BFLOAT16 || value == Value::FLOAT16 ? 2 : 1;
}

// How what is kept of four is chosen before it is packed: not at all, by |w|, by |w| * scale.
enum class Score { NONE, MAGNITUDE, SCALED };

// The bits of an infinity; bits of a magnitude above it are a NaN.
constexpr int FLOAT_INFINITY = 0x7f800000;
constexpr int infinity_of(Value value) { return value == Value::BFLOAT16 ? 0x7f80 : 0x7c00; }

// The same for kernels on a GPU, which may use constants but no functions of the host.
template <Value V>
constexpr int BYTES_OF = bytes_of(V);
template <Value V>
constexpr int INFINITY_OF = infinity_of(V);
