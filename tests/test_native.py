"""The compiled modules: same bits as the reference everywhere, and clear words when missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from instruction_sets import every_instruction_set
from numeric import activations
from numeric import native as built

from rac_kernels import (
    Pattern,
    _choice,
    _native,
    factor_hessian,
    hessian_accumulate_,
    native_status,
    select_mask,
    sparsegpt,
)

ROOT = Path(__file__).resolve().parent.parent
cuda_built = pytest.mark.skipif(native_status()["cuda"] != "ok", reason=native_status()["cuda"])
RULES = ["0", "0.5", "0.7", "1", "0.5 compat", "2:4", "1:2", "5:8", "3:6", "20:32", "mask"]
RULES += ["0.7 grow", "0.2 grow", "0.5 compat grow", "2:4 grow"]


def solve(rule, impl, rows=45, columns=96, block_size=96):
    hessian = hessian_accumulate_(torch.zeros(columns, columns), activations(200, columns))
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(rows, columns, generator=generator)
    mask = None
    text, *words = rule.split()
    if rule == "mask" or "grow" in words:
        mask = torch.rand(rows, columns, generator=generator) < 0.6
    return sparsegpt(
        weight,
        factor_hessian(hessian, impl="reference"),
        None if rule == "mask" else Pattern.parse(text),
        block_size=block_size,
        compat="compat" in words,
        mask=mask,
        impl=impl,
    )


def assert_same_bits(result, expected):
    assert torch.equal(result[1], expected[1]), "masks differ"
    assert torch.equal(result[0].view(torch.int32), expected[0].view(torch.int32))
    # summed in another order: 45 * 96 positive float64 terms, squares rounded to float32
    torch.testing.assert_close(result[2], expected[2], rtol=1e-6, atol=0)


@built
@pytest.mark.parametrize("rule", RULES)
@every_instruction_set
def test_every_instruction_set_gives_the_references_bits(instruction_set, rule):
    assert native_status()["cpu"] == f"ok ({instruction_set})"
    assert_same_bits(solve(rule, "native"), solve(rule, "reference"))


@built
@pytest.mark.parametrize("rule", ["0.5", "2:4", "mask"])
@pytest.mark.parametrize("block_size", [1, 24, 28, 72, 128, 200])
@every_instruction_set
def test_several_blocks(instruction_set, rule, block_size):
    if rule == "2:4" and block_size == 1:
        rule = "0:1"
    sizes = {"rows": 67, "columns": 192, "block_size": block_size}
    result, expected = solve(rule, "native", **sizes), solve(rule, "reference", **sizes)
    assert torch.equal(result[1], expected[1]), "masks differ"
    # The products before a block are summed in another order: C products of D and the carry, whose
    # entries stay below 8 here, so at most 192 * 8 * 8 * 2**-24.
    assert float((result[0] - expected[0]).abs().max()) <= 192 * 64 * 2.0**-24
    torch.testing.assert_close(result[2], expected[2], rtol=1e-5, atol=1e-12)


@built
@pytest.mark.parametrize("rule", ["0.5", "0.5 compat", "2:4", "0.7 grow"])
def test_threads_change_nothing(rule):
    sizes = {"rows": 200, "columns": 384, "block_size": 128}
    one = solve(rule, "native", **sizes)
    torch.set_num_threads(3)
    try:
        three = solve(rule, "native", **sizes)
    finally:
        torch.set_num_threads(1)
    for a, b in zip(one, three, strict=True):
        assert torch.equal(a, b)


@built
def test_exact_selection_among_many_ties():
    # One value everywhere: 5,000 equal keys, cut in the middle of a row.
    weight = torch.full((50, 100), 0.1)
    factor = factor_hessian(torch.eye(100), damping=0.0)
    _, mask, _ = sparsegpt(weight, factor, Pattern(0.3333), impl="native")
    assert mask.flatten().tolist() == [False] * 1666 + [True] * 3334


@built
def test_auto_chooses_native_on_the_cpu(monkeypatch):
    called = []
    for name in ("sparsegpt", "reversed_cholesky_"):
        original = getattr(_native, name)

        def spy(*args, name=name, original=original, **kwargs):
            called.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(_native, name, spy)
    solve("0.5", "auto")
    factor_hessian(torch.eye(3))
    assert called == ["sparsegpt", "reversed_cholesky_"]


@pytest.fixture
def no_module(monkeypatch):
    monkeypatch.setattr(_native.loading, "CPU", "rac_kernels._C_nowhere")
    _choice._missing.cache_clear()
    yield
    _choice._missing.cache_clear()


def test_missing_modules_leave_the_reference_and_say_why(no_module, caplog):
    expected = solve("2:4", "reference")
    result = solve("2:4", "auto")
    assert torch.equal(result[0], expected[0])
    reason = "rac_kernels._C_nowhere was not built: no working C\\+\\+ compiler at install time"
    with pytest.raises(ValueError, match="sparsegpt: impl='native' cannot run: " + reason):
        solve("2:4", "native")
    with pytest.raises(ValueError, match="select_mask: impl='native' cannot run: " + reason):
        select_mask(torch.zeros(2, 4), Pattern.parse("2:4"), impl="native")
    assert caplog.text.count("slower, on torch alone: rac_kernels._C_nowhere") == 1


@built
def test_a_module_of_another_interface_is_refused(monkeypatch):
    built_as = _native.loading.INTERFACE
    monkeypatch.setattr(_native.loading, "INTERFACE", -1)
    _native.load.cache_clear()
    try:
        reason = f"was built from other sources (interface {built_as}, not -1)"
        assert reason in _native.why_missing("cpu")
    finally:
        _native.load.cache_clear()


@cuda_built
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: its own tests run")
def test_cuda_module_loads_without_a_driver_and_says_so_when_called():
    module = _native.load(_native.CUDA)
    scores, keep = torch.zeros(8), torch.zeros(8, dtype=torch.bool)
    with pytest.raises(RuntimeError, match="select_mask: CUDA error"):
        module.select_mask(
            scores=scores.data_ptr(),
            keep=keep.data_ptr(),
            groups=2,
            n=2,
            m=4,
            dtype=0,
            stream=0,
        )


@pytest.mark.gpu
@cuda_built
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pattern", ["2:4", "1:2", "4:8", "3:5", "1:1", "33:64"])
def test_cuda_masks_equal_the_references(dtype, pattern):
    pattern = Pattern.parse(pattern)
    for rows, groups, offset in ((1, 1, 0), (7, 3, 0), (130, 65, 0), (9, 5, 1)):
        size = rows * groups * pattern.m
        scores = (torch.randn(size + offset) * 3).round().to(dtype).cuda()
        scores = scores[offset:].view(rows, -1)  # offset: not 16-byte aligned
        mask = select_mask(scores, pattern, impl="native")
        assert torch.equal(mask, select_mask(scores, pattern, impl="reference"))


def test_import_needs_no_compiled_module_and_no_optional_library():
    code = (
        "import sys\n"
        "for name in ('triton', 'transformers', 'numpy', 'rac'): sys.modules[name] = None\n"
        "import rac_kernels\n"
        "assert not any('_C_c' in name for name in sys.modules), 'compiled at import'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_broken_compiler_leaves_a_working_install_and_one_notice(tmp_path):
    pytest.importorskip("pybind11", reason="setup.py needs pybind11")
    environment = os.environ | {"CXX": "/bin/false"}
    done = subprocess.run(
        [sys.executable, "setup.py", "build", "--build-base", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("installed WITHOUT compiled kernels") == 1
    assert "rac_kernels._C_cpu (/bin/false: " in done.stderr
    assert not list(tmp_path.rglob("*.so"))
    assert list(tmp_path.rglob("rac_kernels/ops/__init__.py"))
