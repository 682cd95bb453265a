// The rank-k update of bf16 rows on CPUs with AMX tiles (Isa::AMX).
#pragma once

#include "panels.h"

// Whether hessian_accumulate_amx takes this job: bf16 rows none of which is weighted.
bool takes_amx(const TriangleUpdate& job, const Rows& rows);

void hessian_accumulate_amx(const TriangleUpdate& job, const Rows& rows);
