"""Layers are written beside the solve: order, at most one waiting, errors in the main thread."""

import errno
import json
import os
import threading
import time

import pytest
from conftest import arguments, refused

from rac.errors import UserError
from rac.progress import Stages
from rac.pruning import stage
from rac.pruning.stage import PruningStage
from rac.pruning.writer import Writer


def test_writes_in_order_in_one_other_thread_and_ends_when_all_is_written():
    written, threads = [], set()

    def write(number):
        threads.add(threading.current_thread())
        written.append(number)

    with Writer(Stages()) as writer:
        for number in range(20):
            writer.submit(write, number)
    assert written == list(range(20))
    assert len(threads) == 1 and threading.current_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_at_most_one_is_being_written():
    """The second submit returns only when the first write has ended; nothing waits before that."""
    begun, go = threading.Event(), threading.Event()
    order = []

    def slow():
        begun.set()
        go.wait(10)
        order.append("first written")

    with Writer(Stages()) as writer:
        writer.submit(slow)  # returns at once
        assert begun.wait(10) and not order
        threading.Timer(0.05, go.set).start()
        writer.submit(order.append, "second written")
        assert order[0] == "first written"
        writer.wait()
        assert order == ["first written", "second written"]


def fail():
    raise UserError("cannot write x: the disk is full")


@pytest.mark.parametrize("where", ["submit", "wait", "end"])
def test_an_error_surfaces_where_it_is_next_asked_for(where):
    later = []
    with (
        pytest.raises(UserError, match="cannot write x: the disk is full"),
        Writer(Stages()) as writer,
    ):
        writer.submit(fail)
        if where == "submit":
            writer.submit(later.append, 1)
        elif where == "wait":
            writer.wait()
    assert later == []


def test_a_failing_block_still_writes_what_it_handed_over_and_keeps_its_own_error():
    written = []
    with pytest.raises(KeyboardInterrupt), Writer(Stages()) as writer:
        writer.submit(written.append, 1)
        raise KeyboardInterrupt
    assert written == [1]
    with pytest.raises(KeyError, match="own"), Writer(Stages()) as writer:
        writer.submit(fail)
        raise KeyError("own")


@pytest.mark.parametrize("collector", ["decode", "replay"])
def test_a_disk_that_fills_up_is_one_line_and_the_run_continues(collector, rac, base, monkeypatch):
    out, replace = base["out"], os.replace

    def full(source, target):
        if str(target).endswith("0001.safetensors"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    flags = base | {"collector": collector}
    monkeypatch.setattr(os, "replace", full)
    message = refused(rac, flags)
    assert message.startswith("rac: cannot write ")
    assert "0001.safetensors: the disk is full" in message
    assert (out / "state" / "layers" / "0000.safetensors").exists()
    assert not (out / "state" / "layers" / "0001.safetensors").exists()
    monkeypatch.undo()
    written, write = [], PruningStage._write_layer

    def logged(self, layer, *args):
        written.append(layer)
        write(self, layer, *args)

    monkeypatch.setattr(PruningStage, "_write_layer", logged)
    assert rac(*arguments(flags))[0] == 0
    assert 0 not in written and 1 in written


def test_replay_moves_on_only_when_the_layer_is_on_disk(rac, base, monkeypatch):
    """A state that is ahead of the layers' files would make a killed run lose a layer."""
    write, save, layers = PruningStage._write_layer, stage.save_state, base["out"] / "state/layers"

    def slow(self, *args):
        time.sleep(0.05)
        write(self, *args)

    def checked(path, state):
        finished.append(state["layer"])
        assert (layers / f"{state['layer'] - 1:04d}.safetensors").exists()
        save(path, state)

    finished = []
    monkeypatch.setattr(PruningStage, "_write_layer", slow)
    monkeypatch.setattr(stage, "save_state", checked)
    assert rac(*arguments(base | {"collector": "replay"}))[0] == 0
    assert finished == [1, 2]


def test_seconds_apart_are_not_counted_twice():
    stages = Stages(quiet=True)
    start = time.perf_counter()
    with stages.stage("prune", 2) as advance:
        time.sleep(0.05)
        for _ in range(2):
            with stages.apart("read"):
                time.sleep(0.04)
            advance(1)
    with stages.stage("write", 1):
        time.sleep(0.01)
    total = time.perf_counter() - start
    assert 0.05 <= stages.seconds["prune"] < 0.08 <= stages.seconds["read"]
    assert stages.seconds["write"] >= 0.01
    assert sum(stages.seconds.values()) == pytest.approx(total, abs=0.005)


@pytest.mark.parametrize(
    ("collector", "expected"),
    [
        ("decode", {"decode traces", "write Hessians", "prune", "read Hessians"}),
        ("replay", {"decode traces", "replay and prune"}),
    ],
)
def test_the_record_has_the_seconds_of_every_stage(collector, expected, rac, base):
    assert rac(*arguments(base | {"collector": collector}))[0] == 0
    record = json.loads((base["out"] / "model" / "rac.json").read_text())
    assert set(record["seconds"]) == expected | {"wait for layers to be written"}
    assert all(seconds >= 0 for seconds in record["seconds"].values())
