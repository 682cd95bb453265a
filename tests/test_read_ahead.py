"""Hessians are read one ahead: order, how many wait, errors at their place, the thread's end."""

import threading
import time
from contextlib import closing

import pytest
import torch
from conftest import arguments, read_tensors

from rac.calibration.stage import SavedHessians
from rac.errors import UserError
from rac.progress import Stages
from rac.pruning.read_ahead import read_ahead


def test_each_in_order_and_no_more_than_one_ahead():
    started, stages = [], Stages(quiet=True)

    def read(name):
        started.append((name, threading.current_thread().name))
        return torch.tensor(float(name))

    with closing(read_ahead(read, list("0123"), stages)) as hessians:
        assert started == []
        for index, hessian in enumerate(hessians):
            assert float(hessian) == index
            time.sleep(0.02)
            assert [name for name, _ in started] == list("0123")[: index + 2]
    assert all(thread.startswith("rac-reader") for _, thread in started)
    assert list(read_ahead(read, [], stages)) == []
    assert stages.seconds["read Hessians"] >= 0


def test_reading_goes_on_beside_the_work():
    inside = threading.Event()

    def read(name):
        if name == "1":
            inside.set()
        return torch.zeros(1)

    with closing(read_ahead(read, ["0", "1"], Stages(quiet=True))) as hessians:
        next(hessians)
        assert inside.wait(5)  # nobody has asked for it yet


def test_an_error_surfaces_where_its_hessian_is_asked_for_and_leaves_no_thread():
    def read(name):
        if name == "bad":
            raise UserError("cannot read bad")
        return torch.zeros(1)

    before = threading.active_count()
    with closing(read_ahead(read, ["good", "bad", "good"], Stages(quiet=True))) as hessians:
        next(hessians)
        with pytest.raises(UserError, match="cannot read bad"):
            next(hessians)
    assert threading.active_count() == before


def test_a_solve_that_fails_ends_the_thread():
    before = threading.active_count()
    with (
        pytest.raises(KeyError),
        closing(read_ahead(lambda name: torch.zeros(1), list("abc"), Stages(quiet=True))) as read,
    ):
        next(read)
        raise KeyError("own")
    assert threading.active_count() == before


def test_a_run_reads_every_hessian_once_and_in_the_same_order(rac, base, tmp_path, monkeypatch):
    names, get = [], SavedHessians.get

    def logged(self, name, device):
        names.append(name)
        return get(self, name, device)

    monkeypatch.setattr(SavedHessians, "get", logged)
    assert rac(*arguments(base | {"keep-hessians": True}))[0] == 0
    assert len(names) == len(set(names)) == 3 * 4
    again = base | {"hessians": base["out"], "out": tmp_path / "again"}
    assert rac(*arguments(again))[0] == 0
    assert names[12:] == names[:12]
    first, second = (read_tensors(flags["out"] / "model") for flags in (base, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
