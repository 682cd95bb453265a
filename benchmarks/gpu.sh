#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go and offline: build csrc, run the GPU tests, then
# each kernel benchmark. Results are JSON lines in $OUT (default benchmarks/results).
#
#   benchmarks/gpu.sh [part ...]        parts: build tests hessian capture ... (default: all)
#
# GPU_SECONDS (default 570) bounds the whole: parts that are cut or not reached run next time; parts
# that $OUT/gpu_parts.txt or benchmarks/results/gpu_parts.txt call "ok" at this commit are skipped.
# Needs a CUDA build of torch, transformers, nvcc, pytest, pybind11 and ninja; PYTHON names the
# interpreter.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results}
GPU_SECONDS=${GPU_SECONDS:-570}
PARTS=${*:-build tests sanitize hessian capture decode sample sparsegpt factor masks solve7b solve32b
  pack linear linear_cuda throughput}
export OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1 TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$PWD/build/triton}

"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "gpu.sh: torch sees no CUDA device here" >&2
  exit 2
}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
mkdir -p "$OUT"
commit=$(git describe --always --dirty=+ --exclude='*' 2>/dev/null || echo unknown)
failed=0

finished() {
  [ "$1" != build ] && cat "$OUT/gpu_parts.txt" benchmarks/results/gpu_parts.txt 2>/dev/null |
    grep -qx "$commit $1 ok"
}

run() { # run PART SECONDS COMMAND...
  local part=$1 limit=$2 left=$((GPU_SECONDS - SECONDS)) status
  shift 2
  if finished "$part"; then echo "== $part: done before"; return; fi
  if [ "$left" -lt 15 ]; then echo "== $part: no time left, next run"; return; fi
  echo "== $part (at $SECONDS s)"
  timeout $((limit < left ? limit : left)) "$@"
  status=$?
  [ $status -eq 0 ] && echo "$commit $part ok" >>"$OUT/gpu_parts.txt" || failed=1
  echo "== $part: exit $status"
}

for part in $PARTS; do
  case $part in
  build) run build 240 "$PYTHON" setup.py -q build_ext --inplace ;;
  tests)
    # Only the files with GPU tests are collected: the rest may need packages that are not there.
    mapfile -t files < <(grep -l 'mark\.gpu\|needs_triton\|every_impl' tests/test_*.py)
    run tests 300 "$PYTHON" -m pytest -m gpu --maxfail=20 "${files[@]}"
    ;;
  throughput)  # the model with random weights: no other is there
    run throughput 150 "$PYTHON" -m benchmarks.bench_throughput --device cuda \
      --models R1-Distill-Qwen-1.5B --out "$OUT"
    ;;
  solve*)
    run "$part" 120 "$PYTHON" -m benchmarks.bench_sparsegpt --device cuda --model "${part#solve}" --out "$OUT"
    ;;
  sanitize)
    # Addresses, and races in shared memory, of our own CUDA linears.
    if ! command -v compute-sanitizer >/dev/null; then
      echo "== sanitize: compute-sanitizer is not on PATH"
      continue
    fi
    for tool in memcheck racecheck; do
      run "sanitize-$tool" 240 compute-sanitizer --tool "$tool" --error-exitcode 9 \
        "$PYTHON" -m pytest -m gpu --maxfail=3 tests/test_cuda_kernels.py \
        -k "cuda_kernels and (exact or scale or strides or graphs)"
    done
    ;;
  *) run "$part" 120 "$PYTHON" -m "benchmarks.bench_$part" --device cuda --out "$OUT" ;;
  esac
done
exit $failed
