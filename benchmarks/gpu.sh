#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go and offline: build csrc, run the GPU tests, then
# the ceilings, the tuning, each benchmark and whole models. Results are JSON lines in $OUT.
#
#   benchmarks/gpu.sh [--dry-run] [part ...]      parts: see PARTS below (default: all, in that order)
#
# GPU_SECONDS (default 570) bounds the whole: parts that are cut or not reached run next time; parts
# that $OUT/gpu_parts.txt or benchmarks/results/gpu_parts.txt call "ok" at this commit are skipped.
# OUT is benchmarks/results by default; what `tune` finds is $OUT/tuned.json, used by later parts.
#
# Needs a CUDA build of torch, triton, transformers, nvcc, pytest, pybind11 and ninja; PYTHON names
# the interpreter. None of rac's other dependencies is imported by any part.
#
# --dry-run runs the same parts on a CPU that passes for a GPU (tests/pretend_gpu.py), at shapes that
# an interpreter can do (tests/pretend_shapes.py), into build/dry_run: what does not pass there would
# not pass on a GPU. Its times mean nothing. Ten minutes of one core.
set -uo pipefail
cd "$(dirname "$0")/.."
DRY_RUN=${DRY_RUN:-}
if [ "${1:-}" = --dry-run ]; then DRY_RUN=1; shift; fi
PYTHON=${PYTHON:-python3}
PARTS=${*:-build tests sanitize ceilings tune hessian capture decode1_5b decode7b sample sparsegpt
  factor masks solve7b solve32b pack linear linear_cuda throughput embedded model7b model1_5b
  model14b}
export OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1 TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$PWD/build/triton}
module=("$PYTHON" -m)
if [ -n "$DRY_RUN" ]; then
  module=("$PYTHON" tests/pretend_gpu.py)
  OUT=${OUT:-build/dry_run}
  GPU_SECONDS=${GPU_SECONDS:-3600}
  quick=(--repeats 1)
else
  OUT=${OUT:-benchmarks/results}
  GPU_SECONDS=${GPU_SECONDS:-570}
  quick=()
  "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "gpu.sh: torch sees no CUDA device here; --dry-run runs the parts without one" >&2
    exit 2
  }
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
fi
mkdir -p "$OUT"
# What is in the results does not make a commit another one; COMMIT says it where there is no git.
commit=$(git rev-parse --short HEAD 2>/dev/null || echo "${COMMIT:-unknown}")
[ -n "$(git status --porcelain -- . ':!benchmarks/results' 2>/dev/null)" ] && commit=$commit+
export COMMIT=$commit
failed=0

finished() {
  [ -z "$DRY_RUN" ] && [ "$1" != build ] &&
    cat "$OUT/gpu_parts.txt" benchmarks/results/gpu_parts.txt 2>/dev/null | grep -qx "$commit $1 ok"
}

run() { # run PART SECONDS COMMAND...
  local part=$1 limit=$2 left=$((GPU_SECONDS - SECONDS)) status
  shift 2
  if [ -n "$DRY_RUN" ]; then limit=$((10 * limit)); fi  # an interpreter, on a machine that is shared
  if finished "$part"; then echo "== $part: done before"; return; fi
  if [ "$left" -lt 15 ]; then echo "== $part: no time left, next run"; failed=1; return; fi
  echo "== $part (at $SECONDS s)"
  timeout -k 10 $((limit < left ? limit : left)) "$@"
  status=$?
  [ $status -eq 0 ] && echo "$commit $part ok" >>"$OUT/gpu_parts.txt" || failed=1
  echo "== $part: exit $status"
}

model_of() { # 1_5b -> R1-Distill-Qwen-1.5B
  echo "R1-Distill-Qwen-$(tr _b .B <<<"$1")"
}

bench() { # bench PART MODULE [ARGUMENT ...]
  local part=$1 name=$2
  shift 2
  if [ -f "$OUT/tuned.json" ]; then export RAC_TUNED=$OUT/tuned.json; fi
  run "$part" "${LIMIT:-120}" "${module[@]}" "benchmarks.$name" --device cuda --out "$OUT" \
    ${quick[@]+"${quick[@]}"} "$@"
}

# Tests are finished group by group, in as many processes as pytest-xdist is there for; those that
# need most of the memory come alone.
test_group() {
  case $1 in
  tests/test_hessian*) echo hessian ;;
  tests/test_capture* | tests/test_rmsnorm* | tests/test_swiglu* | tests/test_flush* | tests/test_nucleus*)
    echo capture ;;
  tests/test_triton_sparsegpt* | tests/test_triton_factor* | tests/test_sparsegpt* | tests/test_alps*)
    echo solve ;;
  tests/test_triton_masks* | tests/test_native*) echo masks ;;
  tests/test_cuda_kernels* | tests/test_linear* | tests/test_pack* | tests/test_fp8*) echo linears ;;
  *) echo rest ;;
  esac
}
workers=()
if [ -z "$DRY_RUN" ] && "$PYTHON" -c 'import xdist' 2>/dev/null; then workers=(-n 4); fi

run_tests() {
  local group file chosen
  if [ -n "$DRY_RUN" ]; then
    # The interpreter is too slow for the rest; graphs and streams are what it never shows.
    run tests 900 "${module[@]}" pytest -m gpu "${files[@]}" \
      -k "(graph or stream or flush) and (dtype0 or not dtype) and not (gemma or mistral \
        or qwen3) or ops_gpu"
    return
  fi
  for group in hessian capture solve masks linears rest; do
    chosen=()
    for file in "${files[@]}"; do
      if [ "$(test_group "$file")" = $group ]; then chosen+=("$file"); fi
    done
    run "tests-$group" 300 "${module[@]}" pytest -m gpu --maxfail=20 ${workers[@]+"${workers[@]}"} \
      -k "not beyond_32_bits" "${chosen[@]}"
  done
  run tests-large 120 "${module[@]}" pytest -m gpu -k beyond_32_bits "${files[@]}"
}

# Only the files with GPU tests are collected: the rest may need packages that are not there.
mapfile -t files < <(grep -l 'mark\.gpu\|needs_triton\|every_impl' tests/test_*.py)

for part in $PARTS; do
  LIMIT=120
  case $part in
  build) run build 300 "$PYTHON" setup.py -q build_ext --inplace ;;
  tests) run_tests ;;
  sanitize)
    # Addresses, and races in shared memory, of our own CUDA kernels.
    select="cuda_kernels and (exact or scale or strides or graphs) or pack_2to4_gpu and 16_bytes"
    for tool in memcheck racecheck; do
      checked=(compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" -m)
      if [ -n "$DRY_RUN" ]; then
        run "sanitize-$tool" 240 "${module[@]}" pytest -m gpu --collect-only -q \
          tests/test_cuda_kernels.py tests/test_pack_2to4_gpu.py -k "$select"
      elif command -v compute-sanitizer >/dev/null; then
        run "sanitize-$tool" 240 "${checked[@]}" pytest -m gpu --maxfail=3 \
          tests/test_cuda_kernels.py tests/test_pack_2to4_gpu.py -k "$select"
      else
        echo "== sanitize: compute-sanitizer is not on PATH"
      fi
    done
    ;;
  tune) LIMIT=240 bench tune tune --write "$OUT/tuned.json" ;;
  solve*) bench "$part" bench_sparsegpt --model "${part#solve}" ;;
  throughput) # random weights: no other model is there
    LIMIT=150 bench throughput bench_throughput --models R1-Distill-Qwen-1.5B
    ;;
  decode*)
    LIMIT=240 bench "$part" bench_decode --models "$(model_of "${part#decode}")"
    ;;
  model*)
    LIMIT=300 bench "$part" bench_model --model "$(model_of "${part#model}")"
    ;;
  *) bench "$part" "bench_$part" ;;
  esac
done
exit $failed
