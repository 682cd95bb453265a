"""Whole decoder layers: validate, and call the kernels of their parts from C++."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rac_kernels import _native
from rac_kernels._checks import check_like, check_rows, refuse
from rac_kernels._choice import HALVES, auto_dense, native_producer
from rac_kernels._linear_checks import check_once
from rac_kernels.capture import CaptureBuffer, Ring
from rac_kernels.ops.attention import check_cache, check_rotary
from rac_kernels.ops.caches import KeyValueCaches
from rac_kernels.ops.capture import ring_of
from rac_kernels.packed import Packed2to4, PackedBitmap

Weight = Tensor | Packed2to4 | PackedBitmap
Norm = tuple[Tensor, float]
Linear = tuple[Weight, Tensor | None]


class DecoderLayer:
    """A pre-norm decoder layer (Llama, Qwen2 and kin) for one new token a sequence, on a CPU.

    ``h = x + o(attention(qkv(norm(x))))``, then ``h + down(silu(gate) * up)`` of ``mlp_norm(h)``:
    :func:`rmsnorm_capture`, the linears, :func:`decode_attention` and :func:`swiglu_capture` in one
    call, with the bits that they give one by one for less than 512 tokens. At a layer's size their
    calls from Python cost more than all but the linears.

    Args:
        norm, mlp_norm: weight [C] and eps. Their dtype, fp32 or bf16, is that of activations.
        qkv: weight [(H + 2 K) D, C] and bias, or None: the rows of q, then of k, then of v. A
            weight is bf16 or fp16 [R, C], or packed; fp8 is multiplied as by linear_2to4_fp8.
        output: [C, H D].
        gate_up: [2 F, C]: the rows of gate, then of up.
        down: [C, F].
        heads: H and K, the query heads and the key/value heads.
        query_norm, key_norm: weight [D] and eps; None: heads are not normed.
        scaling: of scores; None: ``D ** -0.5``.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit, or there is no compiled module.
    """

    def __init__(
        self,
        norm: Norm,
        qkv: Linear,
        output: Linear,
        mlp_norm: Norm,
        gate_up: Linear,
        down: Linear,
        heads: tuple[int, int],
        *,
        query_norm: Norm | None = None,
        key_norm: Norm | None = None,
        scaling: float | None = None,
    ) -> None:
        op = "DecoderLayer"
        self.dtype, self.columns = norm[0].dtype, norm[0].shape[0]
        named = {"qkv": qkv, "output": output, "gate_up": gate_up, "down": down}
        self.width = _width(op, heads, qkv[0])
        self.heads = heads
        self.sizes = (self.columns, self.dtype, self.width, heads)
        self.features = (heads[0] * self.width, named["down"][0].shape[1])
        shapes = {
            "qkv": ((heads[0] + 2 * heads[1]) * self.width, self.columns),
            "output": (self.columns, self.features[0]),
            "gate_up": (2 * self.features[1], self.columns),
            "down": (self.columns, self.features[1]),
        }
        for name, (weight, bias) in named.items():
            _check_linear(op, name, weight, bias, shapes[name])
        norms = [norm, mlp_norm, query_norm, key_norm]
        for name, pair in zip(("norm", "mlp_norm", "query_norm", "key_norm"), norms, strict=True):
            size = self.columns if name in ("norm", "mlp_norm") else self.width
            if pair is not None:
                check_like(op, f"{name}[0]", pair[0], "norm[0]", norm[0], (size,))
        if (query_norm is None) != (key_norm is None):
            refuse(op, "query_norm and key_norm, or neither", "one of them")
        reason = native_producer(*(pair[0] for pair in norms if pair is not None))
        if reason is not None:
            raise ValueError(f"{op} cannot run: {reason}")
        self.dense = [w for w, _ in named.values() if isinstance(w, Tensor)]
        sizes = (heads[1], heads[0] // heads[1], self.width)
        scaling = self.width**-0.5 if scaling is None else scaling
        self._native = _native.NativeLayer(norms, list(named.values()), sizes, scaling)

    def prefers(self, batch: int) -> bool:
        """Whether ``linear_dense``, for ``batch`` tokens, would take the same kernels by itself."""
        x = torch.empty(batch, 1, dtype=self.dtype)
        return all("native" in auto_dense(x, weight) for weight in self.dense)

    def __call__(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
        buffers: tuple[CaptureBuffer | None, ...] = (),
        active: Tensor | None = None,
    ) -> Tensor:
        """The layer's output; the step's key and value become the cache's last column.

        Args:
            x: [B, C] in the norms' dtype, contiguous, B >= 1.
            keys: [B, K, S, D] in that dtype, a view of a cache.
            values: likewise.
            rotary: cosine and sine [B, D] in that dtype.
            mask: bool [B, S], False where a column is not attended over; None: all are.
            buffers: none, or four of which some may be None: for what enters qkv [C], output
                [H D], gate_up [C] and down [F].
            active: bool, B elements; as in :func:`capture_`.

        Returns:
            [B, C].

        Raises:
            ValueError, TypeError: shapes, dtypes or devices do not fit; nothing is written.
        """
        caches = KeyValueCaches([(keys, values)])
        return decode_layers(
            [self], x, caches, rotary=rotary, mask=mask, buffers=buffers, active=active
        )

    def _rings(
        self,
        op: str,
        x: Tensor,
        buffers: Sequence[CaptureBuffer | None],
        active: Tensor | None,
    ) -> list[Ring | None]:
        sizes = (self.columns, self.features[0], self.columns, self.features[1])
        return [
            None if buffer is None else ring_of(op, buffer, x[:, :1].expand(-1, size), active)
            for buffer, size in zip(buffers, sizes, strict=True)
        ]


def decode_layers(
    layers: Sequence[DecoderLayer],
    x: Tensor,
    caches: KeyValueCaches,
    *,
    rotary: tuple[Tensor, Tensor],
    columns: tuple[int, int] | None = None,
    mask: Tensor | None = None,
    buffers: Sequence[CaptureBuffer | None] = (),
    active: Tensor | None = None,
) -> Tensor:
    """The last one's output of layers that each take the one's before: one call for all of them.

    Threads are woken once, and what is the same for all layers is looked at once.

    Args:
        layers: of one hidden size, dtype, and width and number of heads.
        x: as in :meth:`DecoderLayer.__call__`, for the first layer.
        caches: of as many layers.
        rotary: as there, for all layers.
        columns: the first and how many the step attends over, with the one it writes; None: all.
        mask: bool [B, S], S being that many.
        buffers: none, or four for each layer.
        active: as there.

    Returns:
        [B, C].

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit; nothing is written.
    """
    op = "DecoderLayer"
    if len(caches.layers) != len(layers):
        refuse(op, f"caches of {len(layers)} layers", len(caches.layers))
    if len(buffers) not in (0, 4 * len(layers)):
        refuse(op, f"{4 * len(layers)} buffers or none", len(buffers))
    first = layers[0]
    if any(layer.sizes != first.sizes for layer in layers):
        refuse(op, "layers of one hidden size, dtype, and width and number of heads", "others")
    _check_x(op, first, x)
    check_rotary(op, x, rotary, first.width)
    keys, values = caches.layers[0]
    if columns is None:
        columns = 0, keys.shape[2]
    elif 0 <= columns[0] < sum(columns) <= keys.shape[2]:
        keys, values = keys.narrow(2, *columns), values.narrow(2, *columns)
    else:
        refuse(op, f"at least one of {keys.shape[2]} columns", f"{columns[1]} from {columns[0]} on")
    check_cache(op, x, (x.shape[0], first.heads[0], first.width), keys, values, mask)
    if keys.shape[1] != first.heads[1]:
        refuse(op, f"keys of {first.heads[1]} heads", list(keys.shape))
    if mask is not None and mask.stride(1) != 1:
        mask = mask.contiguous()
    if rotary[0].stride() != rotary[1].stride() or rotary[0].stride(1) != 1:
        rotary = rotary[0].contiguous(), rotary[1].contiguous()
    active = None if active is None else active.reshape(-1)
    rings: list[Ring | None] = []
    for index in range(0, len(buffers), 4):
        rings += layers[index // 4]._rings(op, x, buffers[index : index + 4], active)
    natives = [layer._native for layer in layers]
    return _native.decode_layers(natives, x, caches.places, columns, mask, rotary, rings)


def _check_x(op: str, layer: DecoderLayer, x: Tensor) -> None:
    check_rows(op, "x", x)
    if x.ndim != 2 or x.shape[1] != layer.columns or not x.shape[0] or not x.is_contiguous():
        refuse(op, f"x contiguous [B, {layer.columns}] with B >= 1", list(x.shape))
    reason = native_producer(x)
    if reason is not None:
        raise ValueError(f"{op} cannot run: {reason}")
    if x.dtype != layer.dtype:
        raise TypeError(f"{op}: expected x in {layer.dtype}, got {x.dtype}")


def _width(op: str, heads: tuple[int, int], qkv: Weight) -> int:
    """D, the features of a head."""
    query, groups = heads
    if groups < 1 or query < 1 or query % groups:
        refuse(op, "heads (H, K) with K dividing H", heads)
    rows = qkv.shape[0]
    if rows % (query + 2 * groups) or rows // (query + 2 * groups) % 2:
        refuse(op, f"qkv of {query + 2 * groups} heads with an even D", f"{rows} rows")
    return rows // (query + 2 * groups)


def _check_linear(
    op: str, name: str, weight: Weight, bias: Tensor | None, shape: tuple[int, int]
) -> None:
    if isinstance(weight, Tensor):
        if weight.dtype not in HALVES:
            raise TypeError(f"{op}: expected {name} in bf16, fp16 or packed, got {weight.dtype}")
    elif isinstance(weight, Packed2to4 | PackedBitmap):
        check_once(op, weight, type(weight))
    else:
        raise TypeError(f"{op}: expected a weight for {name}, got {type(weight).__name__}")
    if tuple(weight.shape) != shape:
        refuse(op, f"{name} {list(shape)}", list(weight.shape))
    if bias is not None and bias.shape != shape[:1]:
        refuse(op, f"a bias [{shape[0]}] for {name}", list(bias.shape))
    tensor = weight if isinstance(weight, Tensor) else weight.values
    if not tensor.is_cpu:
        refuse(op, f"{name} on the CPU", tensor.device)
