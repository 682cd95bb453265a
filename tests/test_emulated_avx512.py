"""The emulation of AVX-512 has all that the kernels call, also where it is not built."""

import re

from instruction_sets import HEADER, TESTS

CALLED = re.compile(r"\b(_mm512_\w+|_mm256_mask\w+|_tile_\w+)\(")


def test_every_intrinsic_is_emulated():
    folders = (HEADER.parent, TESTS / "emulated_amx")
    headers = "".join((folder / "immintrin.h").read_text() for folder in folders)
    emulated = set(re.findall(r"^#define (\w+) emulated::", headers, re.MULTILINE))
    sources = (TESTS.parent / "csrc" / "cpu").glob("*.*")
    called = {name for path in sources for name in CALLED.findall(path.read_text())}
    assert "_mm512_dpbf16_ps" in called and "_tile_dpbf16ps" in called
    assert not called - emulated
