"""What all benchmarks measure with."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks import common
from benchmarks.common import median_seconds, peak_bytes


def test_slow_functions_are_called_less(monkeypatch):
    calls = {"fast": 0, "slow": 0, "once": 0}
    takes = {"fast": 0.001, "slow": 0.1, "once": 0.3}

    def time_once(name, device):
        calls[name] += 1
        return takes[name] * calls[name]  # every call is slower than the one before

    monkeypatch.setattr(common, "time_once", time_once)
    seconds = median_seconds({name: name for name in calls}, repeats=4, budget=0.25)
    # the first call of each is extra, but where it alone is beyond the budget
    assert calls == {"fast": 5, "slow": 3, "once": 1}
    assert seconds == pytest.approx({"fast": 0.0035, "slow": 0.25, "once": 0.3})


def test_peak_counts_what_a_call_had_at_a_time():
    if peak_bytes(lambda: None) is None:
        return  # neither CUDA nor a Linux that tells: the rows leave it out
    size = 64 << 20

    def two_then_one():
        first = torch.ones(size, dtype=torch.uint8)
        second = first + 1
        del first
        return second

    for _ in range(2):  # memory that the first call freed is seen again
        assert 1.9 * size < peak_bytes(two_then_one) < 2.3 * size
    assert peak_bytes(lambda: torch.ones(size, dtype=torch.uint8)) < 1.3 * size


def test_not_known_where_the_system_does_not_tell(monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(common.Path, "write_text", refuse)
    assert peak_bytes(lambda: None) is None


@pytest.mark.parametrize(
    ("gpu", "built", "version"), [(True, True, 800), (True, False, None), (False, True, None)]
)
def test_rows_say_which_cusparselt_ran(gpu, built, version, monkeypatch):
    found = SimpleNamespace(is_available=lambda: built, version=lambda: 800)
    monkeypatch.setattr(torch.backends, "cusparselt", found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert common.environment.__wrapped__()["cusparselt"] == version
