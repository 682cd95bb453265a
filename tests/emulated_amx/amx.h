// Included before csrc/cpu/hessian_amx.cpp, which is compiled for any CPU, with the instructions of
// this folder's immintrin.h.
#pragma once

#include "../../csrc/cpu/isa.h"

#undef RAC_HAS_AMX
#undef RAC_AMX
#define RAC_HAS_AMX
#define RAC_AMX
