// The number that rac_kernels/_native/loading.py compares with its own: raise both whenever a
// signature in a bindings.cpp changes, so that a module left over from an older build is refused.
#pragma once

constexpr int INTERFACE = 9;
