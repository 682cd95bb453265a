"""Every linear dense in fp8, zeros included, as compressed-tensors writes it and vLLM serves it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rac.errors import UserError
from rac.models import linears
from rac.packed.shards import Source
from rac.packed.summary import PackSummary
from rac_kernels import quantize_fp8_rows

KIND = "fp8-dense"
ARGUMENTS = {"num_bits": 8, "type": "float", "symmetric": True}


class Fp8Dense:
    """Rounds each linear's weight to e4m3 with a scale a row; activations are scaled by token."""

    def __init__(self, source: Source) -> None:
        modules = linears(source.model)
        other = next(
            (n for n, module in modules.items() if not isinstance(module, nn.Linear)), None
        )
        if other is not None:
            kind = type(modules[other]).__name__
            raise UserError(f"--format {KIND} takes nn.Linear, and {other} is a {kind}")
        named = source.model.named_modules()
        kept = [n for n, module in named if isinstance(module, nn.Linear) and n not in modules]
        self.ignored = sorted({"lm_head", *kept})
        self.summary = PackSummary()

    def __call__(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        """What is stored of the linear `name`, whose weight is `weight` [R, C]."""
        if not bool(weight.isfinite().all()):
            raise UserError(f"{name}.weight holds NaN or Inf: the checkpoint is damaged")
        # The scale is stored, and loaded, in the weight's dtype: so it is rounded before use.
        dtype = torch.bfloat16 if weight.dtype == torch.bfloat16 else torch.float32
        values, scale = quantize_fp8_rows(weight, scale_dtype=dtype)
        scale = scale.to(dtype)[:, None]
        self.summary.count(KIND, weight.nbytes, values.nbytes + scale.nbytes)
        return {"weight": values, "weight_scale": scale}

    def quantization_config(self, folder: Path) -> dict[str, Any]:
        """The scheme that compressed-tensors calls FP8_DYNAMIC."""
        return {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "quantization_status": "compressed",
            "ignore": self.ignored,
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": ARGUMENTS | {"strategy": "channel", "dynamic": False},
                    "input_activations": ARGUMENTS | {"strategy": "token", "dynamic": True},
                }
            },
        }
