"""`rac pack`: a pruned checkpoint becomes one that is smaller and still loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rac.errors import UserError
from rac.files import replace_directory, require_disk, write_json
from rac.models import linears, resolve_model
from rac.packed.check import DTYPES, sha256, stored_tensors, sums_of
from rac.packed.fp8_dense import Fp8Dense
from rac.packed.linears import LINEARS
from rac.packed.registration import QUANT_METHOD, VERSION
from rac.packed.shards import Source, open_source, rewrite
from rac.packed.summary import PackSummary
from rac.progress import Stages

FORMATS = ("auto", "2:4", "bitmap", "fp8-dense")
LEAST_ZEROS = 0.45  # below, a bitmap saves little and costs time
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def pack(
    checkpoint: Path | str,
    out: Path | str,
    *,
    format: str = "auto",
    fp8: bool = False,
    quiet: bool = True,
) -> PackSummary:
    """Pack the sparse linears of a checkpoint's decoder layers; the rest stays byte for byte.

    Args:
        checkpoint: a folder with safetensors, or a hub name.
        out: the new folder; must not exist.
        format: "2:4" or "bitmap" packs what fits it; "auto" takes 2:4 where it fits, else bitmap
            where at least 45% are zeros; "fp8-dense" writes every linear dense in fp8, as
            compressed-tensors and vLLM read it.
        fp8: 2:4 values in fp8 with a scale a row; activations are then rounded token by token.
        quiet: no progress bar.

    Raises:
        UserError: bad input, nothing to pack, or a full disk; nothing is left at `out`.
    """
    out = Path(out)
    _check_options(format, fp8, out)
    source = open_source(resolve_model(str(checkpoint)))
    require_disk(out, source.nbytes)
    transform = Fp8Dense(source) if format == "fp8-dense" else _Packer(format, fp8)
    stages = Stages(quiet)
    with (
        replace_directory(out) as folder,
        stages.stage("pack", len(linears(source.model)), "linears") as advance,
    ):
        summary = _write(source, folder, transform, advance)
    return summary


def _check_options(format: str, fp8: bool, out: Path) -> None:
    if format not in FORMATS:
        raise UserError(f"--format {format}: expected {', '.join(FORMATS)}")
    if fp8 and format == "bitmap":
        raise UserError("--fp8 packs 2:4 weights: use --format auto or 2:4 with it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists; choose another --out, or delete it")


def _write(
    source: Source,
    folder: Path,
    transform: "_Packer | Fp8Dense",
    advance: Callable[[int], None],
) -> PackSummary:
    summary = transform.summary
    summary.after = rewrite(source, folder, transform, advance)
    if not summary.packed:
        reason = next(iter(summary.left.values()))
        raise UserError(f"nothing to pack in {source.folder}: its linears are {reason}")
    summary.before = summary.after + sum(b - a for _, b, a in summary.packed.values())
    config = source.config | {"quantization_config": transform.quantization_config(folder)}
    write_json(folder / "config.json", config)
    return summary


class _Packer:
    """Packs a linear where that gains; keeps what `config.json` says of it."""

    def __init__(self, format: str, fp8: bool) -> None:
        self.formats = ("2:4", "bitmap") if format == "auto" else (format,)
        if fp8:
            self.formats = ("2:4-fp8",)
        self.linears: dict[str, dict[str, Any]] = {}
        self.summary = PackSummary()

    def __call__(self, name: str, weight: Tensor) -> dict[str, Tensor] | None:
        reasons = {kind: why_not(weight, kind) for kind in self.formats}
        kind = next((kind for kind, reason in reasons.items() if reason is None), None)
        if kind is None:
            self.summary.left[name] = " and ".join(dict.fromkeys(reasons.values()))
            return None
        if kind == "2:4-fp8" and not bool(weight.isfinite().all()):
            raise UserError(f"{name}.weight holds NaN or Inf: the checkpoint is damaged")
        linear = LINEARS[kind]
        packed = linear.pack(weight)
        parts = {part: getattr(packed, part).contiguous() for part in linear.PARTS}
        self.linears[name] = {
            "format": kind,
            "dtype": NAMES[packed.dtype],
            "shape": list(packed.shape),
            "sha256": {part: sha256(raw_bytes(tensor)) for part, tensor in parts.items()},
        }
        self.summary.count(kind, weight.nbytes, packed.nbytes)
        return {f"weight_{part}": tensor for part, tensor in parts.items()}

    def quantization_config(self, folder: Path) -> dict[str, Any]:
        """What transformers finds in config.json, once the tensors are in `folder`."""
        stored = stored_tensors(sorted(folder.glob("*.safetensors")))
        packed = {f"{n}.weight_{k}" for n, entry in self.linears.items() for k in entry["sha256"]}
        dense = sorted(stored.keys() - packed)
        return {
            "quant_method": QUANT_METHOD,
            "version": VERSION,
            "linears": self.linears,
            "tensors": dict(zip(dense, sums_of(stored, dense), strict=True)),
        }


def why_not(weight: Tensor, kind: str) -> str | None:
    """None where a weight [R, C] can and should be packed as `kind`, else what it is instead."""
    fp8 = kind == "2:4-fp8"
    if weight.dtype not in (torch.bfloat16, torch.float16) and not (
        fp8 and weight.dtype == torch.float32
    ):
        return f"in {str(weight.dtype).removeprefix('torch.')}, not bf16 or fp16"
    if kind == "bitmap":
        zeros = 1 - weight.count_nonzero().item() / max(1, weight.numel())
        return None if zeros >= LEAST_ZEROS else f"less than {LEAST_ZEROS:.0%} zeros"
    multiple = 64 if fp8 else 32  # words of metadata come in pairs
    if weight.shape[1] == 0 or weight.shape[1] % multiple:
        return f"of in_features that {multiple} does not divide"
    nonzero = (weight != 0).view(weight.shape[0], -1, 4).sum(2, dtype=torch.uint8)
    return None if bool((nonzero <= 2).all()) else "not 2:4"


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
