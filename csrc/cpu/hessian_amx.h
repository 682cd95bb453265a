// The rank-k update of rows in bf16 on CPUs that multiply tiles of them (Isa::AMX).
#pragma once

#include "panels.h"

constexpr int64_t AMX_ROWS = 32;  // from which it is faster: fewer leave its tiles half empty
// Rows times entries of H from which threads pay for being woken, after 0.3 ms; an entry takes as
// long to be read and written as so many rows of it to be multiplied.
constexpr int64_t AMX_PARALLEL = 600 << 20, AMX_ENTRY_ROWS = 256;

// H += X^T X where X is bf16 and its rows have no other weights than 0 and 1. Compiled where
// RAC_HAS_AMX is defined.
void hessian_accumulate_amx(const TriangleUpdate& job, const Rows& rows);
