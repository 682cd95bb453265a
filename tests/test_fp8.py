"""FP8 with a scale a row: the packed linear, and the dense export that vLLM reads."""

import importlib.util
import json

import pytest
import torch
from conftest import read_tensors
from fp8_truth import nearest, rounded
from packing import embedded, prune_folder
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rac.errors import UserError
from rac.models import load_model
from rac.packed.linears import Linear2to4FP8
from rac.packed.pack import pack
from rac_kernels import Pattern, linear_2to4_fp8, magnitude

NAME = "model.layers.1.mlp.up_proj"


def sparse(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    return magnitude(weight.to(dtype), Pattern.parse("2:4"))[0]


@pytest.mark.parametrize("rows", [48, 33, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
def test_the_packed_linear(rows, dtype, bias):
    weight = sparse(rows, 128)
    b = torch.nn.Parameter(torch.randn(rows).to(dtype)) if bias else None
    module = Linear2to4FP8(Linear2to4FP8.pack(weight), b)
    x = torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(2)).to(dtype)
    x[1, 1] = 0
    expected = rounded(x) @ rounded(weight).T + (b.detach().double() if bias else 0)
    y = module(x)
    assert y.dtype == dtype and y.shape == (2, 3, rows)
    eps = max(torch.finfo(dtype).eps, 1e-6)
    torch.testing.assert_close(y.double(), expected, rtol=eps, atol=1e-5 + eps)


def test_it_is_within_what_fp8_can_do():
    """Near the dense product: 3 bits of mantissa on both sides."""
    weight, x = sparse(64, 256), torch.randn(32, 256)
    y = linear_2to4_fp8(x, Linear2to4FP8.pack(weight), None)
    dense = x @ weight.float().T
    assert 0.005 < ((y - dense).norm() / dense.norm()).item() < 0.05


def test_pack_fp8(rac, tmp_path):
    source = embedded(tmp_path / "source")
    code, out, err = rac("pack", source, "--out", tmp_path / "packed", "--fp8", "--quiet")
    assert (code, err) == (0, []) and out[0].startswith("28 linears as 2:4-fp8")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    module = model.get_submodule(NAME)
    assert isinstance(module, Linear2to4FP8) and model.dtype == torch.bfloat16
    weight = read_tensors(source)[f"{NAME}.weight"]
    # 1 byte for half of the values, 2 bits for their places, a scale a row: 5/16 and a little
    assert module.packed.nbytes == weight.numel() * 5 // 8 + 4 * 768
    identity = torch.eye(256)
    torch.testing.assert_close(module(identity).T.double(), rounded(weight), rtol=1e-6, atol=1e-12)
    ids = torch.arange(3, 60)[None]
    dense = load_model(source, "cpu", "float32")(ids).logits
    ours = load_model(tmp_path / "packed", "cpu", "float32")(ids).logits
    assert (ours - dense).norm() / dense.norm() < 0.2
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize("options", [{"fp8": True}, {"format": "fp8-dense"}])
def test_weights_that_are_not_finite(options, tmp_path):
    source = embedded(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    row = tensors[f"{NAME}.weight"]
    row[3, row[3].nonzero()[0, 0]] = float("nan")
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"{NAME}.weight holds NaN or Inf"):
        pack(source, tmp_path / "packed", **options)
    assert not (tmp_path / "packed").exists()


@pytest.fixture(scope="module")
def fp8_dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fp8")
    source = embedded(folder / "source", max_shard_size="2MB")
    pack(source, folder / "fp8", format="fp8-dense")
    return source, folder / "fp8"


def test_fp8_dense_stores_what_compressed_tensors_expects(fp8_dense):
    source, folder = fp8_dense
    before, after = read_tensors(source), read_tensors(folder)
    quantized = [name for name in after if name.endswith("weight_scale")]
    assert len(quantized) == 28
    for scale_name in quantized:
        name = scale_name.removesuffix("_scale")
        weight, values, scale = before.pop(name), after.pop(name), after.pop(scale_name)
        assert values.dtype == torch.float8_e4m3fn and values.shape == weight.shape
        assert scale.dtype == torch.bfloat16 and scale.shape == (weight.shape[0], 1)
        assert bool((values.float()[weight == 0] == 0).all())
        expected = nearest((weight.double() / scale.double()).clamp(-448, 448))
        assert (values.double() == expected).double().mean() > 0.999  # fp32 against fp64 quotients
        error = (values.double() * scale.double() - weight.double()).abs()
        assert bool((error <= weight.double().abs() / 16 + scale.double() / 512).all())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    group = config["config_groups"]["group_0"]
    assert config["quant_method"] == "compressed-tensors" and config["ignore"] == ["lm_head"]
    assert config["format"] == "float-quantized" and group["targets"] == ["Linear"]
    assert group["weights"]["strategy"] == "channel" and group["weights"]["dynamic"] is False
    assert group["input_activations"]["strategy"] == "token"
    assert group["input_activations"]["dynamic"] is True


@pytest.mark.skipif(
    importlib.util.find_spec("compressed_tensors") is None,
    reason="compressed-tensors is an optional reader: pip install compressed-tensors",
)
@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
@pytest.mark.parametrize("dequantize", [True, False])
def test_fp8_dense_loads_with_compressed_tensors(dequantize, fp8_dense):
    from transformers import CompressedTensorsConfig

    _, folder = fp8_dense
    options = {"quantization_config": CompressedTensorsConfig(dequantize=True)}
    model = AutoModelForCausalLM.from_pretrained(folder, **(options if dequantize else {}))
    model(torch.arange(3, 20)[None])  # compressed weights are decompressed by the first forward
    tensors = read_tensors(folder)
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        name = f"model.layers.2.{name}"
        expected = tensors[f"{name}.weight"].float() * tensors[f"{name}.weight_scale"].float()
        weight = model.get_submodule(name).weight
        torch.testing.assert_close(weight, expected.to(torch.bfloat16), rtol=2**-7, atol=0)


def test_conv1d_is_no_linear_to_compressed_tensors(tmp_path, source_of):
    source = prune_folder(source_of("gpt2"), tmp_path / "source")
    with pytest.raises(UserError, match="takes nn.Linear, and transformer.h.0.attn.c_attn is a Co"):
        pack(source, tmp_path / "packed", format="fp8-dense")
