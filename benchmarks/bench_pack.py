"""2:4 packing, unpacking, and pruning with packing in one pass.

    python -m benchmarks.bench_pack [--device cuda] [--threads N] [--out benchmarks/results]

Counts bytes: the dense weight once, values and metadata once. `time_ms` is the public op, checks
and allocation included; `kernel_ms` the compiled function into memory that is there, as the copy's
is, and `of_copy` its bytes a second as a share of the copy bandwidth measured here. Baseline:
torch's own conversion (for `mask_and_pack_2to4` after masking as below), on a GPU also
`torch._cslt_compress` (`cslt_ms`) and `torch.sparse.to_sparse_semi_structured` (`semi_ms`), none
where this torch cannot run them. `separate_ms`: select_mask, masked_fill and pack_2to4, one after
the other. Everything is compared with torch's conversion before it is timed. Data sets rotate until
they are larger than a GPU's L2 cache.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.sparse import to_sparse_semi_structured
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass as torch_pack,
)
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_to_dense_cutlass as torch_unpack,
)

from benchmarks.common import bench_options, copy_gbps, device_seconds, report
from rac_kernels import (
    Packed2to4,
    Pattern,
    _native,
    mask_and_pack_2to4,
    pack_2to4,
    select_mask,
    unpack_2to4,
)

# R x C, whole tiles, so that torch's conversion takes them. 7B hidden, gate or up; on a GPU also
# its down and 32B's.
CPU_SHAPES = [(4096, 4096), (3584, 3584), (18944, 3584)]
GPU_SHAPES = [(3584, 3584), (18944, 3584), (3584, 18944), (5120, 27648)]
OPS = ("pack_2to4", "unpack_2to4", "mask_and_pack_2to4")
TWO_FOUR = Pattern.parse("2:4")
CACHE_BYTES = 200e6  # of which an H200's L2 is 60
_VALUES = {torch.bfloat16: 0, torch.int8: 2}  # as csrc/value.h numbers them


class Data:
    """A dense weight, its 2:4 weight and that packed, scale of the columns and a diagonal."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype, device: str, seed: int) -> None:
        generator = torch.Generator(device).manual_seed(seed)
        dense = torch.randn(rows, columns, generator=generator, device=device)
        self.diagonal = torch.rand(columns, generator=generator, device=device) + 0.1
        self.root = self.diagonal.sqrt()
        self.dense = dense.to(dtype) if dtype.is_floating_point else (dense * 30).to(dtype)
        keep = select_mask(dense.abs() * self.root, TWO_FOUR)
        self.sparse = self.dense.masked_fill(~keep, 0)
        self.packed = pack_2to4(self.sparse)
        self.first = torch.full((), 2**63 - 1, device=device)


def kernel(op: str, data: Data, out: Data, threads: int) -> None:
    """The compiled function alone: what `data` has, into the memory of `out`."""
    weight = data.dense if op == "mask_and_pack_2to4" else data.sparse
    on_gpu = weight.is_cuda
    module = _native.load(_native.CUDA if on_gpu else _native.CPU)
    packed = data.packed if op == "unpack_2to4" else out.packed
    arguments = {
        "rows": weight.shape[0],
        "columns": weight.shape[1],
        "padded": len(packed.values),
        "values": packed.values.data_ptr(),
        "metadata": packed.metadata.data_ptr(),
        "value": _VALUES[weight.dtype],
    }
    if on_gpu:
        arguments["first"] = data.first.data_ptr()
        arguments["stream"] = torch.cuda.current_stream().cuda_stream
    else:
        arguments["threads"] = threads
    if op == "unpack_2to4":
        module.unpack_2to4(**arguments, weight=out.sparse.data_ptr())
        return
    prune = op == "mask_and_pack_2to4"
    module.pack_2to4(
        **arguments,
        weight=weight.data_ptr(),
        stride_bytes=weight.stride(0) * weight.element_size(),
        scale=data.root.data_ptr() if prune else 0,
        prune=prune,
    )


def separate(data: Data, pack: Callable[[Tensor], object]) -> object:
    """Scores, mask, zeros and packing, one after the other."""
    keep = select_mask(data.dense.float().abs() * data.root, TWO_FOUR)
    return pack(data.dense.masked_fill(~keep, 0))


def run(op: str, data: Data) -> Packed2to4 | Tensor:
    """The public op."""
    if op == "pack_2to4":
        return pack_2to4(data.sparse)
    if op == "unpack_2to4":
        return unpack_2to4(data.packed)
    return mask_and_pack_2to4(data.dense, data.diagonal)


def baseline(op: str, data: Data) -> object:
    """What torch has."""
    if op == "pack_2to4":
        return torch_pack(data.sparse)
    if op == "unpack_2to4":
        return torch_unpack(data.packed.values, data.packed.metadata)
    return separate(data, torch_pack)


def check(op: str, data: Data) -> None:
    """The op makes what torch makes."""
    ours, theirs = run(op, data), baseline(op, data)
    if op == "unpack_2to4":
        assert torch.equal(ours, theirs), op
    else:
        assert torch.equal(ours.values, theirs[0]), op
        assert torch.equal(ours.metadata, theirs[1]), op


def runs(function: Callable[[], object]) -> bool:
    """Whether this torch and device have what `function` calls."""
    try:
        function()
    except (RuntimeError, NotImplementedError, ValueError) as error:
        print(f"left out: {str(error).splitlines()[0]}", flush=True)
        return False
    return True


def bench(rows: int, columns: int, dtype: torch.dtype, options, gbps: float) -> list[dict]:
    """Check, then time in turns; a row for each op."""
    device = options.device
    gpu = device.startswith("cuda")
    count = min(8, math.ceil(CACHE_BYTES / (rows * columns * dtype.itemsize))) if gpu else 1
    sets = [Data(rows, columns, dtype, device, seed) for seed in range(count)]
    out = Data(rows, columns, dtype, device, count)
    ops = OPS if dtype.is_floating_point else OPS[:2]
    for op in ops:
        check(op, sets[0])
    turn = itertools.cycle(sets)
    timed: dict[str, Callable[[], object]] = {"separate": lambda: separate(next(turn), pack_2to4)}
    if not dtype.is_floating_point:
        timed.clear()
    for op in ops:
        timed[op] = lambda op=op: run(op, next(turn))
        timed[f"{op} kernel"] = lambda op=op: kernel(op, next(turn), out, options.threads)
    if gpu and runs(lambda: torch._cslt_compress(sets[0].sparse)):
        timed["cslt"] = lambda: torch._cslt_compress(next(turn).sparse)
    if gpu and runs(lambda: to_sparse_semi_structured(sets[0].sparse)):
        timed["semi"] = lambda: to_sparse_semi_structured(next(turn).sparse)
    seconds = device_seconds(timed, options.repeats, device)
    # A hundred times slower: once is enough.
    slow = {f"{op} torch": lambda op=op: baseline(op, sets[0]) for op in ops}
    seconds |= device_seconds(slow, options.repeats if gpu else 1, device)
    return [_row(op, rows, columns, dtype, device, seconds, gbps) for op in ops]


def _row(
    op: str, rows: int, columns: int, dtype: torch.dtype, device: str, seconds: dict, gbps: float
) -> dict:
    # Half of the values, and two bits of position for each of them.
    moved = rows * columns * (1.5 * dtype.itemsize + 0.125)
    achieved = moved / seconds[f"{op} kernel"] / 1e9
    row = {
        "op": op,
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "R": rows,
        "C": columns,
        "time_ms": seconds[op] * 1e3,
        "kernel_ms": seconds[f"{op} kernel"] * 1e3,
        "baseline": "torch.sparse._semi_structured_conversions",
        "baseline_ms": seconds[f"{op} torch"] * 1e3,
        "speedup": seconds[f"{op} torch"] / seconds[op],
        "bytes": moved,
        "gbps": achieved,
        "copy_gbps": gbps,
        "of_copy": achieved / gbps,
    }
    if op == "mask_and_pack_2to4":
        row["separate_ms"] = seconds["separate"] * 1e3
    if op == "pack_2to4":
        row |= {f"{name}_ms": seconds[name] * 1e3 for name in ("cslt", "semi") if name in seconds}
    return row


def main() -> None:
    options = bench_options(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    gbps = copy_gbps(options.device)
    shapes = GPU_SHAPES if options.device.startswith("cuda") else CPU_SHAPES
    cases = [(*shape, torch.bfloat16) for shape in shapes] + [(*shapes[0], torch.int8)]
    for rows, columns, dtype in cases[:1] if options.quick else cases:
        for row in bench(rows, columns, dtype, options, gbps):
            report(row, options.out, "pack")


if __name__ == "__main__":
    main()
