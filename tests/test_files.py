"""Files are whole or absent, whatever goes wrong while they are written; one holder a directory."""

import errno
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rac.errors import UserError
from rac.files import locked, read_json, replace_directory, require_disk, write_atomic, write_json
from rac.snapshot import Snapshots, load_state, save_state


def test_write_atomic_replaces_only_at_the_end(tmp_path):
    path = tmp_path / "deep" / "file"
    with write_atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(KeyError), write_atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "new" and os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("old", [None, "old"])
def test_replace_directory_is_all_or_nothing(tmp_path, old):
    path = tmp_path / "model"
    if old:
        path.mkdir()
        (path / "a").write_text(old)
    with pytest.raises(KeyError), replace_directory(path) as folder:
        (folder / "a").write_text("half")
        raise KeyError
    assert (path / "a").read_text() == old if old else not path.exists()
    assert os.listdir(tmp_path) == (["model"] if old else [])
    with replace_directory(path) as folder:
        (folder / "b").write_text("new")
    assert os.listdir(path) == ["b"]


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "numbers.json"
    write_json(path, [1])
    monkeypatch.setattr(os, call, full)
    with pytest.raises(UserError, match=r"cannot write .*numbers\.json: the disk is full; free"):
        write_json(path, [2])
    assert read_json(path) == [1] and os.listdir(tmp_path) == ["numbers.json"]


@pytest.fixture
def tiny_disk(tmp_path):
    """A folder on a real file system of 200 kB; skipped where mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=200k tmpfs {folder} 2>/dev/null"):
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    os.system(f"umount {folder}")


def test_libraries_on_a_really_full_disk(tiny_disk):
    """torch and safetensors do not raise OSError when the disk is full, but we do say so."""
    tensors = {"a": torch.zeros(1_000_000)}
    write_json(tiny_disk / "kept", 1)
    with pytest.raises(UserError, match="state.pt: the disk is full"):
        save_state(tiny_disk / "state.pt", tensors)
    with (
        pytest.raises(UserError, match="w.safetensors: the disk is full"),
        write_atomic(tiny_disk / "w.safetensors") as temporary,
    ):
        save_file(tensors, temporary)
    with (
        pytest.raises(UserError, match="model: the disk is full"),
        replace_directory(tiny_disk / "model") as folder,
    ):
        save_file(tensors, folder / "w.safetensors")
    assert os.listdir(tiny_disk) == ["kept"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", 1)
    with pytest.raises(UserError, match="cannot use --out"), locked(tmp_path / "file" / "run"):
        pass


def test_read_json_errors(tmp_path):
    with pytest.raises(UserError, match="cannot read .*no.json: No such file"):
        read_json(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="bad.json is not valid JSON"):
        read_json(tmp_path / "bad.json")


def _try_lock(path: Path) -> None:
    try:
        with locked(path):
            os._exit(0)
    except UserError as error:
        os._exit(7 if "in use by another rac run" in str(error) else 1)


def exit_code_of_another_process(path: Path) -> int:
    process = multiprocessing.get_context("forkserver").Process(target=_try_lock, args=(path,))
    process.start()
    process.join(60)
    return process.exitcode


def test_a_directory_has_one_holder(tmp_path):
    path = tmp_path / "run"
    with locked(path):
        (path / "work").touch()
        assert exit_code_of_another_process(path) == 7
    assert os.listdir(path) == ["work"]
    assert exit_code_of_another_process(path) == 0


def test_a_refused_run_leaves_no_directory(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "a"):
        raise KeyError
    assert os.listdir(tmp_path) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(KeyError), locked(tmp_path / "a"):
        raise KeyError
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == []


def test_require_disk(tmp_path, monkeypatch):
    require_disk(tmp_path / "not" / "yet", 1000)
    usage = type(shutil.disk_usage(tmp_path))(10**12, 10**12, 5 * 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"needs 2\.5 GB and its disk has 0\.5 GB free"):
        require_disk(tmp_path / "not" / "yet", 2_500_000_000)
    assert os.listdir(tmp_path) == []


class Counter:
    def __init__(self) -> None:
        self.value = torch.zeros(2)

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_snapshots(tmp_path):
    counter = Counter()
    snapshots = Snapshots(tmp_path / "s.pt", 0.0, counter=counter)
    assert snapshots.restore() is None and snapshots.ready
    counter.value += 3
    snapshots.take(step=5)
    other = Counter()
    assert Snapshots(tmp_path / "s.pt", 9e9, counter=other).restore() == {"step": 5}
    assert other.value.tolist() == [3, 3]
    assert not Snapshots(tmp_path / "s.pt", 9e9, counter=other).ready


def test_a_damaged_snapshot_is_one_line(tmp_path):
    assert load_state(tmp_path / "s.pt") is None
    (tmp_path / "s.pt").write_bytes(b"not a snapshot")
    with pytest.raises(UserError, match="s.pt is damaged") as raised:
        load_state(tmp_path / "s.pt")
    assert "\n" not in str(raised.value)
