#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go and offline: build csrc, run the GPU tests, then
# each kernel benchmark. Results are JSON lines in $OUT (default benchmarks/results).
# Needs a CUDA build of torch, nvcc, pytest, pybind11 and ninja; PYTHON names the interpreter.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results}
export OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1

"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "gpu.sh: torch sees no CUDA device here" >&2
  exit 2
}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
"$PYTHON" setup.py -q build_ext --inplace || exit 1

failed=0
# Only the files with GPU tests are collected: the rest may need packages that are not there.
mapfile -t files < <(grep -l 'mark\.gpu' tests/test_*.py)
timeout 240 "$PYTHON" -m pytest -m gpu "${files[@]}" || failed=1
for bench in hessian sparsegpt masks; do
  [ -f "benchmarks/bench_$bench.py" ] || continue
  timeout 120 "$PYTHON" -m "benchmarks.bench_$bench" --device cuda --out "$OUT" || failed=1
done
exit $failed
