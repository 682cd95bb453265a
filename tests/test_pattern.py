import pytest

from rac_kernels import Pattern


@pytest.mark.parametrize(
    ("text", "sparsity", "n", "m"),
    [
        ("0.5", 0.5, None, None),
        ("0", 0.0, None, None),
        ("1", 1.0, None, None),
        ("2:4", 0.5, 2, 4),
        ("1:4", 0.25, 1, 4),
        ("0:1", 0.0, 0, 1),
        ("8:8", 1.0, 8, 8),
    ],
)
def test_parse_and_str_round_trip(text, sparsity, n, m):
    pattern = Pattern.parse(text)
    assert (pattern.sparsity, pattern.n, pattern.m) == (sparsity, n, m)
    assert str(pattern) == text
    assert Pattern.parse(str(pattern)) == pattern
    assert Pattern.parse(pattern) is pattern
    assert pattern.structured == (m is not None)


def test_str_keeps_every_digit():
    assert Pattern.parse(str(Pattern(1 / 3))) == Pattern(1 / 3)


def test_count_rounds_to_the_nearest():
    assert Pattern(0.5).count(7) == 4  # round(3.5): to even
    assert Pattern(0.3).count(10) == 3
    assert Pattern(0.999).count(10) == 10


@pytest.mark.parametrize("text", ["", "half", "2:", ":", "2:4:8", "1.5:4", None])
def test_parse_refuses_what_is_neither(text):
    with pytest.raises(ValueError, match="expected a sparsity such as '0.5' or an n:m"):
        Pattern.parse(text)


@pytest.mark.parametrize("text", ["-0.1", "1.01", "nan", "inf", "5:4", "-1:4", "0:0", "1:0"])
def test_parse_refuses_out_of_range(text):
    with pytest.raises(ValueError, match="^Pattern: "):
        Pattern.parse(text)


def test_fields_of_the_wrong_kind_are_named():
    with pytest.raises(TypeError, match="n and m must be integers, got 2.0, 4.0"):
        Pattern(0.5, 2.0, 4.0)
    with pytest.raises(TypeError, match="sparsity must be a number, got '0.5'; Pattern.parse rea"):
        Pattern("0.5")
    with pytest.raises(ValueError, match="0 <= n <= m and m >= 1, got 5:4"):
        Pattern.parse("5:4")


def test_fields_must_agree():
    with pytest.raises(ValueError, match="2:4 has sparsity 0.5, got 0.3"):
        Pattern(0.3, 2, 4)
    with pytest.raises(ValueError, match="n and m go together"):
        Pattern(0.5, 2)
