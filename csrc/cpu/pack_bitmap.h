// Packing of unstructured sparse weights of 16 bits; see PackedBitmap.
#pragma once

#include <cstdint>

struct BitmapRows {
  uint16_t* dense;       // [rows, columns]
  int64_t stride;        // elements between rows of it
  uint8_t* bitmap;       // [rows, ceil(columns / 8)]
  int64_t* offsets;      // [rows + 1]
  uint16_t* values;      // all values, row after row
  int64_t rows, columns;
  int threads;
};

// Fill bitmap and offsets from dense; returns how many weights are not 0 (-0 is).
int64_t bitmap_count(const BitmapRows& job);

// Then fill values.
void bitmap_pack(const BitmapRows& job);

// Fill dense from the rest.
void bitmap_unpack(const BitmapRows& job);
