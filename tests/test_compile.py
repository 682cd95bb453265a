"""Every Triton kernel compiles for sm_80 and sm_90 without a GPU, spills nothing, and fits."""

import os

import pytest
from aot import SHARED_LIMIT, Case, all_cases, compile_all

from benchmarks.static_model import model, unexplained

pytest.importorskip("triton", reason="triton is not installed")
# Where `pip install --no-deps --target FOLDER triton==3.6.0` put what GPU images have at present.
OTHER_TRITON = os.environ.get("RAC_OTHER_TRITON")
CASES = {case.name: case for case in all_cases()}


@pytest.fixture(scope="session")
def compiled(request):
    """All the cases that were selected, compiled in one process."""
    chosen = {i.callspec.params["name"] for i in request.session.items if "compiled" in _needs(i)}
    return compile_all([CASES[name] for name in CASES if name in chosen])


def _needs(item) -> tuple[str, ...]:
    return getattr(item, "fixturenames", ())


@pytest.mark.parametrize("name", CASES)
def test_kernel_compiles_without_spills(compiled, name):
    case, result = CASES[name], compiled[name]
    assert not result.error, result.error
    assert result.spills == 0 and result.stack == 0, result
    assert result.shared <= SHARED_LIMIT[case.capability], result
    if case.tensor_cores is not None:
        instruction = result.wgmma if case.capability >= 90 else result.mma
        assert instruction == case.tensor_cores, result
    row = model(case, result)
    assert not unexplained(row), row


@pytest.mark.skipif(not OTHER_TRITON, reason="RAC_OTHER_TRITON names no folder with a Triton")
def test_another_triton_spills_nothing_on_hopper_either():
    cases = [case for case in CASES.values() if case.capability == 90]
    results = compile_all(cases, triton=OTHER_TRITON)
    spilling = {n: r for n, r in results.items() if r.error or r.spills or r.stack}
    assert not spilling, spilling


def test_a_kernel_that_does_not_compile_is_reported():
    case = Case("rac_kernels._triton.hessian_accumulate:no_such_kernel", {}, {})
    assert "no_such_kernel" in compile_all([case])[case.name].error
