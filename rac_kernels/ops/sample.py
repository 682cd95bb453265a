"""The public function of sampling: validate, choose an implementation, call it."""

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import FLOATS, check_matrix, check_same_device, refuse
from rac_kernels._choice import choose, native_cpu, triton_usable
from rac_kernels.reference.nucleus_sample import nucleus_sample as reference_nucleus_sample


def nucleus_sample(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Draw one id a row from the nucleus of ``softmax(logits / temperature)``.

    The nucleus is the smallest set of most likely ids whose probability reaches ``top_p``, ties by
    lowest id; it always holds the most likely one. The draw is the first id, in the order of ids,
    up to which the nucleus has more than ``uniform`` of its probability (inverse CDF). Ids rank by
    float32(logit - row maximum); a probability below exp(-87) of the largest counts as 0 and is
    never drawn. Implementations agree up to the rounding of sums, within 1e-5 of the total.

    Nothing waits for the device and all shapes are fixed: with one draw a row from the caller's
    generator it is deterministic, and safe inside a CUDA graph (which keeps the temperature and
    top_p it was recorded with).

    Args:
        logits: bf16, fp16 or fp32 [B, V], V >= 1, any row stride, unit last stride; not changed.
        uniform: float32 [B] in [0, 1), e.g. ``torch.rand(B, generator=..., device=...)``; its
            values are not checked.
        temperature: > 0, a normal float32; or 0: the most likely id, lowest of equals, whatever
            ``uniform`` and ``top_p`` are ("triton" does not; auto takes the reference on a GPU).
        top_p: in (0, 1]; 1 draws from every id of probability above 0.
        impl: "auto", "reference", "triton", "native" (CPU).

    Returns:
        int64 [B] on the device of ``logits``. -1 where no distribution exists: the row holds NaN
        or +Inf, or nothing but -Inf. The caller has to look for it where it reads the ids.

    Raises:
        ValueError, TypeError: shapes, dtypes, strides or devices do not fit, or temperature or
            top_p is out of range.

    Source: Holtzman et al., arXiv 1904.09751, section 3.1.
    """
    op = "nucleus_sample"
    check_matrix(op, "logits", logits, FLOATS)
    batch, vocabulary = logits.shape
    if vocabulary == 0:
        refuse(op, "logits of at least one id", list(logits.shape))
    if logits.numel() > 1 and vocabulary > 1 and logits.stride(1) != 1:
        strides = f"strides {logits.stride()} of {list(logits.shape)}"
        refuse(op, "logits with a unit last stride", strides)
    if uniform.dtype != torch.float32:
        raise TypeError(f"{op}: expected uniform in float32, got {uniform.dtype}")
    if list(uniform.shape) != [batch]:
        refuse(op, f"uniform [{batch}] for logits {list(logits.shape)}", list(uniform.shape))
    check_same_device(op, logits=logits, uniform=uniform)
    range32 = torch.finfo(torch.float32)
    if temperature and not range32.tiny <= temperature <= range32.max:
        refuse(op, "a temperature above 0, a normal float32, or 0", temperature)
    if not 0 < top_p <= 1:
        refuse(op, "top_p above 0 and at most 1", top_p)
    chosen = choose(
        op,
        impl,
        {"reference", "triton", "native"},
        native_cpu(logits),
        triton=triton_usable(logits) if temperature else "it draws at temperatures above 0",
        auto=("triton",) if logits.device.type == "cuda" else ("native",),
    )
    if chosen == "native":
        return _native.nucleus_sample(logits, uniform, temperature, top_p)
    if chosen == "triton":
        from rac_kernels._triton.nucleus_sample import nucleus_sample as draw

        return draw(logits, uniform, temperature, top_p)
    return reference_nucleus_sample(logits, uniform, temperature, top_p)
