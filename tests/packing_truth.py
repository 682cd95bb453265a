"""2:4 weights and what torch's own conversion makes of them."""

import pytest
import torch
from instruction_sets import NAMES, using
from torch import Tensor
from torch.sparse import _semi_structured_conversions as conversions

from rac_kernels import Packed2to4, native_status

HALVES = [torch.bfloat16, torch.float16]
DTYPES = [*HALVES, torch.int8, torch.float8_e4m3fn]
# One row, off a tile of rows, whole tiles; one tile of columns, an odd number of half blocks.
SHAPES = [(1, 64), (31, 128), (33, 192), (64, 320), (70, 1088)]
HALF_SHAPES = [(1, 32), (5, 96), (40, 32), (32, 608)]  # 16-bit values alone

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
halves = pytest.mark.parametrize("dtype", HALVES, ids=str)
built = pytest.mark.skipif(
    not native_status()["cpu"].startswith("ok"), reason=native_status()["cpu"]
)
every_way = pytest.mark.parametrize(
    "way",
    [
        "reference",
        *(pytest.param(f"native {name}", marks=built) for name in NAMES),
    ],
)


@pytest.fixture
def impl(way):
    """The impl of `way`, "native" with the instruction set that it names."""
    name, *instructions = way.split()
    if not instructions:
        yield name
        return
    with using(*instructions):
        yield name


def bits(tensor: Tensor) -> Tensor:
    """The bits, so that NaN equals itself and -0.0 is not 0.0."""
    return tensor.contiguous().view(torch.int16 if tensor.element_size() == 2 else torch.int8)


def shapes_of(dtype: torch.dtype) -> list[tuple[int, int]]:
    return SHAPES + (HALF_SHAPES if dtype in HALVES else [])


def sparse_weight(rows: int, columns: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Groups with 0, 1 and 2 non-zeros of any bits (NaN, Inf, subnormals), zeros of both signs."""
    generator = torch.Generator().manual_seed(seed + 1000 * rows + columns)
    size = dtype.itemsize
    raw = torch.randint(
        -(2 ** (8 * size - 1)), 2 ** (8 * size - 1), (rows, columns), generator=generator
    )
    raw = raw.to(torch.int16 if size == 2 else torch.int8)
    order = torch.rand(rows, columns // 4, 4, generator=generator).argsort(2)
    count = torch.randint(0, 3, (rows, columns // 4, 1), generator=generator)
    keep = (order < count).view(rows, columns)
    signs = torch.rand(rows, columns, generator=generator) < 0.5
    negative_zero = 0 if dtype == torch.int8 else -(2 ** (8 * size - 1))
    return torch.where(keep, raw, signs * negative_zero).to(raw.dtype).view(dtype)


def torch_pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Bits of values, and metadata, by torch's conversion of the weight padded with rows of zeros.

    It knows no float8, leaves -0.0 where it fills a group, and makes all NaN of bfloat16 one: it is
    given other bits, of float16 or int8, with zeros that are 0.
    """
    of_bits = bits(weight)
    if weight.dtype != torch.int8:
        of_bits = of_bits.masked_fill(weight.float() == 0, 0)
    whole = 32 if weight.element_size() == 2 else 16
    of_bits = torch.nn.functional.pad(of_bits, (0, 0, 0, -weight.shape[0] % whole))
    dense = of_bits.view(torch.float16) if weight.element_size() == 2 else of_bits
    values, metadata = conversions.sparse_semi_structured_from_dense_cutlass(dense)
    return bits(values), metadata


def quiet(of_bits: Tensor) -> Tensor:
    """Signalling NaN of float16 made quiet, as torch's conversion does on its way by float32."""
    if of_bits.dtype == torch.int8:
        return of_bits
    return torch.where((of_bits & 0x7FFF) > 0x7C00, of_bits | 0x200, of_bits)


def assert_is_torchs(packed: Packed2to4, weight: Tensor) -> None:
    values, metadata = torch_pack(weight)
    assert packed.dtype == weight.dtype and packed.shape == weight.shape
    assert torch.equal(quiet(bits(packed.values)), quiet(values))
    assert packed.metadata.dtype == metadata.dtype
    assert torch.equal(packed.metadata, metadata)
