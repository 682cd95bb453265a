"""The papers' numbers, some by hand, and which models they belong to."""

import pytest

from rac.report.paper import compression, pruning

QWEN = "deepseek-ai/DeepSeek-R1-Distill-Qwen-"
LLAMA = "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"


def test_numbers_of_the_pruning_paper_by_hand():
    cells = pruning.ACCURACY_AND_MINUTES
    assert cells["math500", "1.5B", "50%", "rac"] == (("0.664", "0.021"), ("56.7", ""))
    assert cells["math500", "7B", "50%", "text"] == (("0.744", "0.020"), ("135.0", ""))
    assert cells["math500", "14B", "20%", "rac"] == (("0.962", "0.009"), ("54.7", ""))
    assert cells["math500", "14B", "dense", "dense"] == (("0.941", ""), ("50.3", ""))
    assert cells["math500", "32B", "50%", "text"] == (None, None)
    assert cells["math500", "32B", "40%", "prompt"] == (("0.934", "0.011"), ("89.7", ""))
    assert cells["livecodebench", "7B", "50%", "rac"] == (("0.283", "0.023"), ("381.2", ""))
    assert cells["livecodebench", "14B", "30%", "rac"] == (("0.496", "0.027"), ("759.0", ""))
    assert cells["livecodebench", "1.5B", "50%", "text"] == (("0.004", "0.002"), ("464.2", ""))
    assert len(cells) == 13 * 4 + 13 * 3
    assert pruning.ON_AND_OFF_POLICY["50%", "off-policy"] == ("0.876", "0.0148")
    assert pruning.STRUCTURED["RAC+FP8", "mlp"] == (("0.8920", "0.014"), "1823")
    assert pruning.BUDGETS["40%", "rac", 4096] == ("0.836", "8.6")


def test_numbers_of_the_compression_paper_by_hand():
    llama = next(r for r in compression.OVERALL if r.compression == "Distillation & 50% sparse")
    assert llama.model == "R1-Distill-Llama" and llama.texts["musique"] == "(6.0, 12.75)"
    assert llama.texts["average"] == "64.9" and llama.scores["musique"] == (6.0, 12.75)
    assert [len(compression.OVERALL), len(compression.SPARSITY_LEVELS)] == [8, 16]
    last = compression.SPARSITY_LEVELS[-1]
    assert (last.model, last.sparsity, last.texts["folio"]) == ("R1-Distill-Qwen", 0.8, "8.7")
    for row in (*compression.OVERALL, *compression.SPARSITY_LEVELS):
        mean = sum(row.scores[task][0] for task in compression.AVERAGED) / 3
        if (row.model, row.compression) == ("R1-Distill-Llama", "40%"):
            assert row.texts["average"] == "76.8" and f"{mean:.1f}" == "76.5"  # printed so
        else:
            assert abs(mean - row.scores["average"][0]) < 0.06, row
    thirty, twenty = compression.SHORT_AND_LONG[30], compression.SHORT_AND_LONG[20]
    assert len(thirty) == len(twenty) == 10
    assert thirty[0].texts["aime24"] == ("88.9", "33.3", "5.3")
    assert thirty[-1].compression == "Distillation & 30% sparse"
    assert thirty[-1].texts["musique"] == ("(26.7, 40.7)", "(3.3, 9.1)", "8.8")
    assert twenty[1].texts["folio"] == ("87.5", "62.5", "8.6")


@pytest.mark.parametrize(
    ("source", "size", "family"),
    [
        (QWEN + "7B", "7B", None),
        ("/models/DeepSeek-R1-Distill-Qwen-1.5B/", "1.5B", None),
        (QWEN + "32B", "32B", ("R1-Distill-Qwen", "32B", "Distillation")),
        (LLAMA, None, ("R1-Distill-Llama", "70B", "Distillation")),
        ("deepseek-ai/DeepSeek-R1", None, ("DeepSeek-R1", "671B", "-")),
        ("gguf/DeepSeek-R1-UD-IQ1_S.gguf", None, ("DeepSeek-R1", "671B", "1.58-bit")),
        ("gguf/DeepSeek-R1-UD-Q2_K_XL", None, ("DeepSeek-R1", "671B", "2.51-bit")),
        ("Qwen/Qwen3-32B", None, None),
    ],
)
def test_models_are_recognised(source, size, family):
    assert (pruning.size_of(source), compression.family_of(source)) == (size, family)
