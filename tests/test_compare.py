"""Paired comparison against hand computation, scipy's numbers and simulated data."""

import dataclasses
import json

import numpy as np
import pytest
from report_runs import SETTINGS, write_responses

from rac.errors import UserError
from rac.evaluation.compare import bootstrap, compare, compare_scores, mcnemar
from rac.evaluation.stored import find_evaluation, read_evaluation


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [
        (0, 0, 1.0),
        (0, 5, 2 / 32),
        (1, 8, 2 * (1 + 9) / 512),
        (3, 3, 1.0),
        (2, 4, 2 * (1 + 6 + 15) / 64),
        # scipy.stats.binomtest(min, sum).pvalue
        (10, 25, 0.016673847800120715),
        (7, 61, 7.387402755493211e-12),
        (150, 201, 0.007524139788171167),
    ],
)
def test_mcnemar(only_a, only_b, expected):
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


def test_compare_scores_by_hand():
    a = [1, 1, 1, 0, 0, 0, 0, 1]
    b = [1, 1, 0, 1, 1, 1, 0, 1]
    found = compare_scores(a, b)
    assert (found.questions, found.only_a, found.only_b) == (8, 1, 3)
    assert (found.a, found.b, found.difference) == (0.5, 0.75, 0.25)
    assert found.p_value == 2 * (1 + 4) / 16
    back = compare_scores(b, a)
    assert back.difference == -0.25 and back.p_value == found.p_value
    assert back.b_better == pytest.approx(1 - found.b_better, abs=0.02)


def test_bootstrap_is_resampling_of_questions():
    """Against resampling indices one by one, as the definition says, with other random numbers."""
    differences = np.array([1, 1, 0, 0, 0, 0, -1, 1, 0, 0.25, -0.5, 0])
    generator = np.random.default_rng(123)
    picked = generator.integers(0, len(differences), size=(200_000, len(differences)))
    means = differences[picked].mean(axis=1)
    low, high, better = bootstrap(differences, resamples=200_000)
    assert low == pytest.approx(np.percentile(means, 2.5), abs=0.02)
    assert high == pytest.approx(np.percentile(means, 97.5), abs=0.02)
    expected = (means > 1e-12).mean() + (np.abs(means) <= 1e-12).mean() / 2
    assert better == pytest.approx(expected, abs=0.005)


def test_equal_models_and_seeds():
    same = compare_scores([1, 0, 1], [1, 0, 1])
    assert (same.low, same.high, same.b_better, same.p_value) == (0, 0, 0.5, 1)
    scores = [float(i % 3 == 0) for i in range(60)], [float(i % 5 < 2) for i in range(60)]
    assert compare_scores(*scores, seed=3) == compare_scores(*scores, seed=3)
    assert compare_scores(*scores, seed=3) != compare_scores(*scores, seed=4)


def test_coverage_on_simulated_models():
    """The 95% interval holds the true difference in about 95% of simulated evaluations."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        hardness = generator.random(200)
        a = (generator.random(200) < hardness).astype(float)  # true accuracy 1/2
        b = (generator.random(200) < np.sqrt(hardness)).astype(float)  # and 2/3
        low, high, _ = bootstrap(b - a, resamples=1000)
        covered += low <= 1 / 6 <= high
    assert 0.92 <= covered / 400 <= 0.98


def stored(tmp_path, name, correct, **changes):
    path = write_responses(tmp_path / name, correct, settings=changes)
    return read_evaluation(path)


def test_compare_reads_both_sides(tmp_path):
    a = stored(tmp_path, "a", [True, False, False, True])
    b = stored(tmp_path, "b", [True, True, True, False], temperature=0.0)
    found = compare(a, b)
    assert (found.a, found.b, found.only_a, found.only_b) == (0.5, 0.75, 1, 2)
    assert found.notes == ("temperature is 0.6 for A, 0.0 for B",)


def test_samples_are_averaged_by_question(tmp_path):
    a = stored(tmp_path, "a", [[True, True, False, False], [False] * 4, [True] * 4])
    b = stored(tmp_path, "b", [[True, True, True, False], [False] * 4, [True] * 4])
    found = compare(a, b)
    assert (found.questions, found.only_a, found.only_b, found.p_value) == (3, 0, 1, 1.0)
    assert found.difference == pytest.approx(0.25 / 3) and found.low == 0


def test_other_scores(tmp_path):
    a = stored(tmp_path, "a", [True, False])
    rows = [dataclasses.replace(r, scores={"f1": 0.5}) for r in a.responses]
    scored = dataclasses.replace(a, responses=tuple(rows))
    assert compare(scored, scored, score="f1").a == 0.5
    with pytest.raises(UserError, match="no score 'f1'; they have accuracy"):
        compare(a, a, score="f1")


@pytest.mark.parametrize(
    ("changes", "correct", "message"),
    [
        ({"task": "gsm8k"}, [True] * 4, "task is 'embedded' in the first, 'gsm8k' in the second"),
        ({"grader": "math"}, [True] * 4, "grader is 'exact' in the first, 'math'"),
        ({"n": 5}, [True] * 4, "1 of 5 questions have no response yet"),
        ({"n": 3}, [True] * 3, "n is 4 in the first, 3 in the second"),
        ({"problems": "other"}, [True] * 4, "the problems' digests differ"),
    ],
)
def test_other_problems_are_refused(tmp_path, changes, correct, message):
    a = stored(tmp_path, "a", [True] * 4)
    b = stored(tmp_path, "b", correct, **changes)
    with pytest.raises(UserError, match=message):
        compare(a, b)


def test_another_prompt_is_named(tmp_path):
    a = stored(tmp_path, "a", [True] * 2)
    rows = [dataclasses.replace(r, answer="43") if r.index == 1 else r for r in a.responses]
    with pytest.raises(UserError, match="the answer of question 1 is '42' in the first, '43'"):
        compare(a, dataclasses.replace(a, responses=tuple(rows)))


def test_find_evaluation(tmp_path):
    write_responses(tmp_path / "one", [True])
    assert find_evaluation(tmp_path / "one").name == "embedded.jsonl"
    with pytest.raises(UserError, match="no such run directory"):
        find_evaluation(tmp_path / "none")
    with pytest.raises(UserError, match="no evaluation of task aime24; it has embedded"):
        find_evaluation(tmp_path / "one", "aime24")
    (tmp_path / "one" / "eval" / "gsm8k.jsonl").write_text("")
    with pytest.raises(UserError, match="choose one with --task: embedded, gsm8k"):
        find_evaluation(tmp_path / "one")


def test_compare_command(tmp_path, rac):
    write_responses(tmp_path / "a", [True, False, False, False, False, False, True, False])
    write_responses(tmp_path / "b", [True, True, True, True, True, True, False, True])
    code, out, err = rac("compare", tmp_path / "a", tmp_path / "b")
    assert code == 0 and err == []
    text = "\n".join(out)
    assert "8 questions of task embedded" in text and "B - A = +0.6250" in text
    assert "A ahead on 1 questions, B on 6: p = 0.125" in text
    code, out, err = rac("compare", tmp_path / "a", tmp_path / "none")
    assert code == 2 and "no such run directory" in err[0]


def test_an_empty_evaluation_is_named(tmp_path):
    path = write_responses(tmp_path / "a", [])
    with pytest.raises(UserError, match="has no responses"):
        read_evaluation(path)
    assert json.loads(path.read_text())["settings"]["task"] == SETTINGS["task"]
