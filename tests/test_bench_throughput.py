"""The contenders of bench_throughput are what they are called."""

import pytest
import torch
from conftest import build_model
from numeric import native

from benchmarks import bench_throughput
from benchmarks.bench_throughput import LAYOUTS, check, contenders, prune
from rac.engines.stacked import StackedForward
from rac.models import decoder_layers, linears
from rac.packed.linears import Linear2to4

SIZES = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 1000}


@native
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_contender_moves_the_weights_of_another(layout):
    dense = build_model("qwen2", num_hidden_layers=3, **SIZES).bfloat16()
    models = contenders(*prune(dense, LAYOUTS[layout], "2:4", Linear2to4), Linear2to4, ["bf16"])
    check(models, Linear2to4)
    packed = [m for m in models["packed_bf16"].modules() if isinstance(m, Linear2to4)]
    share = {"first third": 1, "first and last third": 2, "all": 3}[layout]
    assert 3 * len(packed) == share * len(linears(dense))
    for name in ("dense_bf16", "packed_bf16"):
        forwards = [vars(m).get("forward") for m in decoder_layers(models[name])[1].modules()]
        joints = [f.stacked for f in forwards if isinstance(f, StackedForward)]
        assert joints and all(joint.intact for joint in joints)


def test_a_moved_weight_is_noticed(monkeypatch):
    def loosened(model):
        found = stack(model)
        for weight in model.parameters():
            weight.data = weight.data.clone()
        return found

    stack = bench_throughput.stack
    monkeypatch.setattr(bench_throughput, "stack", loosened)
    dense = build_model("qwen2", num_hidden_layers=1, **SIZES).bfloat16()
    with torch.inference_mode(), pytest.raises(RuntimeError, match="were moved by another's"):
        contenders(*prune(dense, "all", "2:4", Linear2to4), Linear2to4, ["bf16"])
