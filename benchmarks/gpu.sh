#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go and offline: build csrc, run the GPU tests, then
# the ceilings, each benchmark, whole models, the tuning. Results are JSON lines in $OUT.
#
#   benchmarks/gpu.sh [--dry-run] [part ...]      default: all of the table below, in its order
#
# GPU_SECONDS (default 570) bounds the whole. Parts that are cut or not reached run next time, first
# those that have not failed; parts that $OUT/gpu_parts.txt or benchmarks/results/gpu_parts.txt call
# "ok" at this commit are skipped. OUT is benchmarks/results by default; what `tune` finds is
# tuned.json there, used by later parts. Where there is no git, COMMIT has to name the commit.
#
# Needs a CUDA build of torch, triton, transformers, nvcc, pytest, pybind11, setuptools and ninja,
# faster with pytest-xdist; PYTHON names the interpreter. None of rac's other dependencies is
# imported by any part.
#
# --dry-run runs the same parts on a CPU that passes for a GPU (tests/pretend_gpu.py), at shapes that
# an interpreter can do (tests/pretend_shapes.py), into build/dry_run: what does not pass there would
# not pass on a GPU. Its times mean nothing. Five minutes of one core, beside the build.
set -uo pipefail
cd "$(dirname "$0")/.."

# Parts in order of what they tell; the seconds that each should take on one H200 (reckoned from
# flops, bytes, steps and compilations, nothing was measured) and the most that it may.
TABLE="
build              40 200
ceilings           12  60
tests-hessian      30 120
tests-capture      30 120
tests-solve        35 120
tests-masks        25 120
tests-linears      30 120
tests-rest         25 120
hessian            40 100
decode1_5b         45 120
sparsegpt          60 150
factor             40 100
linear_cuda        35 100
model7b            60 150
masks              35 100
pack               20  60
solve7b            25  60
embedded           35 100
linear             65 150
tune               90 240
decode7b           40 120
solve32b           40 100
tests-large        20 120
sanitize-memcheck  45 150
sanitize-racecheck 45 150
capture            18  60
sample             20  60
model1_5b          35 120
throughput         45 120
model14b           70 200
"
DRY_RUN=${DRY_RUN:-}
if [ "${1:-}" = --dry-run ]; then DRY_RUN=1; shift; fi
PYTHON=${PYTHON:-python3}
all=$(awk 'NF {print $1}' <<<"$TABLE")
if [ $# -eq 0 ]; then set -- $all; fi
PARTS=$(for part; do grep -Ex "$part(-.*)?" <<<"$all" || echo "?$part"; done)
if unknown=$(grep '^?' <<<"$PARTS"); then
  echo "gpu.sh: no part" ${unknown//\?/} "here; there are" $all >&2
  exit 2
fi
export OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1 TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$PWD/build/triton}
module=("$PYTHON" -m)
if [ -n "$DRY_RUN" ]; then
  module=("$PYTHON" tests/pretend_gpu.py)
  OUT=${OUT:-build/dry_run}
  GPU_SECONDS=${GPU_SECONDS:-3600}
  quick=(--repeats 1) batches=(--batches 2 --steps 3)
  PARTS=$(sed 's/^tests-.*/tests/' <<<"$PARTS" | awk '!seen[$1]++')
else
  OUT=${OUT:-benchmarks/results}
  GPU_SECONDS=${GPU_SECONDS:-570}
  quick=() batches=(--batches 1 16)
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
if [ "$commit" = unknown ]; then echo "gpu.sh: no git and no COMMIT: nothing is skipped" >&2; fi
export COMMIT=$commit
incomplete=0

said() { # said PART WORD: whether a run at this commit ended PART so
  [ -z "$DRY_RUN" ] && [ "$commit" != unknown ] && [ "$1" != build ] &&
    grep -qsxF "$commit $1 $2" "$OUT/gpu_parts.txt" benchmarks/results/gpu_parts.txt
}

run() { # run PART COMMAND...
  local part=$1 left=$((GPU_SECONDS - SECONDS)) limit status
  shift
  limit=$(awk -v part="$part" '$1 == part {print $3}' <<<"$TABLE")
  # An interpreter, on a machine that is shared, has ten times the time.
  if [ -n "$DRY_RUN" ]; then limit=$((10 * ${limit:-120})); fi
  if [ "$left" -lt 15 ]; then
    echo "== $part: no time left, next run"
    incomplete=1
    return
  fi
  echo "== $part (at $SECONDS s)"
  timeout -k 10 $((limit < left ? limit : left)) "$@"
  status=$?
  echo "== $part: exit $status"
  if [ $status -eq 0 ]; then
    echo "$commit $part ok" >>"$OUT/gpu_parts.txt"
    return
  fi
  incomplete=1
  # 124, 137: it ran out of time, which says nothing of it unless that was all it may take.
  if [ $limit -le $left ] || [[ $status != 124 && $status != 137 ]]; then
    echo "$commit $part failed" >>"$OUT/gpu_parts.txt"
  fi
}

model_of() { # 1_5b -> R1-Distill-Qwen-1.5B
  echo "R1-Distill-Qwen-$(tr _b .B <<<"$1")"
}

bench() { # bench PART MODULE [ARGUMENT ...]
  local part=$1 name=$2 tuned
  shift 2
  for tuned in benchmarks/results/tuned.json "$OUT/tuned.json"; do
    if [ -f "$tuned" ]; then export RAC_TUNED=$tuned; fi
  done
  run "$part" "${module[@]}" "benchmarks.$name" --device cuda --out "$OUT" \
    ${quick[@]+"${quick[@]}"} "$@"
}

# Only the files with GPU tests are collected: the rest may need packages that are not there.
mapfile -t files < <(grep -l 'mark\.gpu\|needs_triton\|every_impl' tests/test_*.py)

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

run_tests() { # run_tests GROUP
  local file chosen=()
  for file in "${files[@]}"; do
    if [ "$(test_group "$file")" = "$1" ]; then chosen+=("$file"); fi
  done
  run "tests-$1" "${module[@]}" pytest -m gpu --maxfail=20 ${workers[@]+"${workers[@]}"} \
    -k "not beyond_32_bits" "${chosen[@]}"
}

# Addresses, and races in shared memory, of our own CUDA kernels alone. torch's allocator would hide
# what is out of bounds inside its blocks, and without it nothing can be captured in a graph.
sanitize() { # sanitize TOOL
  local select="cuda_kernels and (exact or scale or strides) or pack_2to4_gpu and 16_bytes"
  local tested=(tests/test_cuda_kernels.py tests/test_pack_2to4_gpu.py -k "$select")
  local options=(--tool "$1" --error-exitcode 9 --target-processes application-only)
  options+=(--report-api-errors no)  # torch tries calls that it expects to fail
  options+=(--kernel-name kns=_ZN6linear --kernel-name kns=pack_2to4_kernel)
  if [ -n "$DRY_RUN" ]; then
    run "sanitize-$1" "${module[@]}" pytest -m gpu --collect-only -q "${tested[@]}"
  elif command -v compute-sanitizer >/dev/null; then
    run "sanitize-$1" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer "${options[@]}" \
      "$PYTHON" -m pytest -m gpu --maxfail=3 "${tested[@]}"
  else
    echo "== sanitize-$1: compute-sanitizer is not on PATH"
  fi
}

todo=() last=()
for part in $PARTS; do
  if said "$part" ok; then
    echo "== $part: done before"
  elif said "$part" failed; then
    last+=("$part")
  else
    todo+=("$part")
  fi
done

for part in ${todo[@]+"${todo[@]}"} ${last[@]+"${last[@]}"}; do
  case $part in
  build) run build "$PYTHON" setup.py -q build_ext --inplace ;;
  tests) # what an interpreter is fast enough for: graphs and streams are what it never shows
    run tests "${module[@]}" pytest -m gpu "${files[@]}" \
      -k "(graph or stream or flush) and (dtype0 or not dtype) and not (gemma or mistral \
        or qwen) or ops_gpu"
    ;;
  tests-large) run tests-large "${module[@]}" pytest -m gpu -k beyond_32_bits "${files[@]}" ;;
  tests-*) run_tests "${part#tests-}" ;;
  sanitize-*) sanitize "${part#sanitize-}" ;;
  tune) bench tune tune --write "$OUT/tuned.json" ;;
  solve*) bench "$part" bench_sparsegpt --model "${part#solve}" ;;
  throughput) # random weights: no other model is there
    bench throughput bench_throughput --models R1-Distill-Qwen-1.5B --layouts all "${batches[@]}"
    ;;
  decode*) bench "$part" bench_decode --models "$(model_of "${part#decode}")" ;;
  model*) bench "$part" bench_model --model "$(model_of "${part#model}")" ;;
  *) bench "$part" "bench_$part" ;;
  esac
done
exit $incomplete
