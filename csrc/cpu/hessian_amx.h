// The rank-k update of rows in bf16 on CPUs that multiply tiles of them (Isa::AMX).
#pragma once

#include "panels.h"

constexpr int64_t AMX_ROWS = 32;  // from which it is faster: fewer leave its tiles half empty

// H += X^T X where X is bf16 and its rows have no other weights than 0 and 1. Compiled where
// RAC_HAS_AMX is defined.
void hessian_accumulate_amx(const TriangleUpdate& job, const Rows& rows);
