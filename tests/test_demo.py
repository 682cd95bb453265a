"""The main job end to end on the embedded reasoner: what the demo claims."""

import itertools
import json

import pytest
import torch

from rac.assets.problems import SPLITS, generate_problems, split_of
from rac.demo import demo
from rac.models import load_model, load_tokenizer


def solve(chain: str) -> int:
    """Redo a chain's arithmetic from its two header lines alone."""
    lines = chain.strip().split("\n")
    a, b = map(int, lines[0].split("*"))
    op = "+" if "+" in lines[4] else "-"
    product, c = map(int, lines[4].split(op))
    assert product == a * b
    return a * b + c if op == "+" else a * b - c


@pytest.mark.parametrize("split", sorted(SPLITS))
def test_problems_are_right(split: str) -> None:
    for problem in itertools.islice(generate_problems(split), 300):
        assert solve(problem.chain) == int(problem.answer)
        for line in problem.chain.strip().split("\n"):
            for column in line.split(" is ")[0].split(", ") if "=" in line else ():
                left, right = column.split("=")
                value = eval(left)  # noqa: S307 - digits and operators that we wrote
                assert value % 10 == int(right[1])
                assert abs(value // 10) == int(right[0])


def test_splits_share_no_arithmetic() -> None:
    seen: dict[str, set[str]] = {}
    for split in SPLITS:
        chains = {p.chain for p in itertools.islice(generate_problems(split), 2000)}
        seen[split] = chains
    assert not seen["heldout"] & (seen["train"] | seen["calibration"])
    assert split_of(12, 34, "+", 5) in SPLITS


def test_embedded_model_is_what_the_readme_says() -> None:
    model = load_model("embedded", "cpu")
    parameters = sum(p.numel() for p in model.parameters())
    assert model.config.model_type == "qwen2" and 3.0e6 < parameters < 3.4e6
    tokenizer = load_tokenizer("embedded")
    text = "Nora's 12 boxes:\n\\boxed{34}"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert "<think>" in tokenizer.get_vocab()


@pytest.mark.slow
def test_rac_beats_text_and_prompt(tmp_path) -> None:
    """At 60% on fewer problems than the demo's; the dense model must solve 97% of them."""
    torch.manual_seed(0)
    rows = demo(tmp_path, patterns=("0.6",), tokens=20_000, problems=100, quiet=True)
    accuracy = {row["calibration"]: row["accuracy"] for row in rows}
    assert accuracy["dense"] >= 0.97
    assert accuracy["rac"] >= max(accuracy["text"], accuracy["prompt"]) + 0.15
    page = (tmp_path / "report" / "report.html").read_text()
    assert "figure" in page.lower()
    keys = {"pattern", "calibration", "accuracy", "stderr", "minutes", "output_tokens"}
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    results = results["rows"] if isinstance(results, dict) else results
    assert len(results) == 4 and all(keys <= set(row) for row in results)
