"""How a test runs a Triton kernel: on the GPU where there is one, else in Triton's interpreter.

conftest.py sets TRITON_INTERPRET before anything is decorated when there is no GPU. A module whose
tests call impl="triton" has

    from triton_interpreter import DEVICE, needs_triton
    pytestmark = needs_triton

and puts its tensors on DEVICE, so that the same tests check the compiled kernels on a GPU. Keep
them small here: the interpreter takes milliseconds for every program and every loop step.

Triton's interpreter holds bf16 as integers and computes with those bits. Importing this module
makes products (tl.dot) and conversions from float32 right, and any other arithmetic on bf16 an
error: kernels widen to float32 first. It also allows input_precision="bf16x3" and "bf16x6": like
all others, they are plain float32 here. And triton.language is patched once a launch, where the
interpreter does it again at every call of a function by a kernel: a quarter of its time.
"""

import importlib.util
import os

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
_missing = "" if importlib.util.find_spec("triton") else "triton is not installed"
if not _missing and DEVICE == "cpu" and not INTERPRETED:
    _missing = "there is no GPU, and TRITON_INTERPRET is not 1"


def sized(full: int, reduced: int) -> int:
    """A size for the GPU, or one for the interpreter."""
    return reduced if INTERPRETED else full


needs_triton = pytest.mark.skipif(bool(_missing), reason=_missing)


def _correct_bf16() -> None:
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    dot, cast, to_fp = builder.create_dot, builder.cast_impl, builder.create_fp_to_fp
    binary, unary = builder.binary_op, builder.unary_op

    def is_bf16(tensor: object) -> bool:
        return tensor.dtype.scalar == tl.bfloat16

    def widened(tensor: object) -> object:
        if not is_bf16(tensor):
            return tensor
        bits = tensor.data.astype(np.uint32) << 16
        return handle(bits.view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return dot(self, widened(a), widened(b), *rest)

    def cast_impl(self, source, target):
        if target.scalar == tl.bfloat16 and source.dtype.scalar == tl.float32:
            bits = source.data.astype(np.float32).view(np.uint32)
            nearest_even = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            return handle(nearest_even.astype(np.uint16), tl.bfloat16)
        if is_bf16(source) and target.scalar != tl.bfloat16:
            return cast(self, widened(source), target)
        return cast(self, source, target)

    def create_fp_to_fp(self, source, target, rounding):
        if is_bf16(source) or target.scalar == tl.bfloat16:
            return self.cast_impl(source, target)
        return to_fp(self, source, target, rounding)

    def refuse_bf16(original):
        def operate(self, first, *rest):
            if is_bf16(first):
                raise NotImplementedError("bf16 arithmetic in the interpreter: widen to float32")
            return original(self, first, *rest)

        return operate

    builder.create_dot, builder.cast_impl = create_dot, cast_impl
    builder.create_fp_to_fp = create_fp_to_fp
    builder.binary_op, builder.unary_op = refuse_bf16(binary), refuse_bf16(unary)
    options = interpreter.interpreter_builder.options
    known = (*options.allowed_dot_input_precisions, "bf16x3", "bf16x6")
    object.__setattr__(options, "allowed_dot_input_precisions", known)


def _patch_language_once() -> None:
    import triton.language as tl
    from triton.runtime import interpreter

    patch, patched = interpreter._patch_lang, set()

    def patch_lang(fn):
        modules = [m for m in (tl, tl.core) if any(v is m for v in fn.__globals__.values())]
        names = {module.__name__ for module in modules}
        if names and names <= patched:
            return interpreter._LangPatchScope()
        scope = patch(fn)
        if not patched:  # the launch itself, whose end restores all
            restore = scope.restore
            scope.restore = lambda: (restore(), patched.clear())
        patched.update(names)
        return scope

    interpreter._patch_lang = patch_lang


if INTERPRETED and not _missing:
    _correct_bf16()
    _patch_language_once()
