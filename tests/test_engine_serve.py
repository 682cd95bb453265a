"""`rac eval --engine openai` against a real server in a process of its own: transformers serve."""

import json
import os
import socket
import subprocess
import sys
import time

import httpx
import pytest

from rac.models import EMBEDDED

pytestmark = pytest.mark.slow
FLAGS = ("--limit", 3, "--temperature", 0, "--max-new-tokens", 256, "--quiet")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address and the process of a server that holds the embedded model."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", EMBEDDED, "--device", "cpu"]
    command += ["--dtype", "float32", "--host", "127.0.0.1", "--port", port]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_CACHE": str(folder)},  # it lists what is there: nothing
        )
    try:
        deadline = time.monotonic() + 120
        while not _healthy(port):
            assert process.poll() is None and time.monotonic() < deadline, (
                folder / "log"
            ).read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.kill()
        process.wait()


def _healthy(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
    except httpx.RequestError:
        return False


def responses(folder):
    rows = map(json.loads, (folder / "eval" / "embedded.jsonl").read_text().splitlines()[1:])
    return sorted(rows, key=lambda row: row["index"])


def test_greedy_answers_equal_those_of_transformers(server, rac, tmp_path):
    """The chain character by character, then the answer; streamed, and in one piece."""
    url, process = server
    flags = ("eval", "--engine", "openai", "--base-url", url, "--model", EMBEDDED, *FLAGS)
    streamed = rac(*flags, "--describe", "embedded", "--out", tmp_path / "streamed")
    whole = rac(*flags, "--engine-args", "stream=false", "--out", tmp_path / "whole")
    ours = rac("eval", "--model", "embedded", *FLAGS, "--out", tmp_path / "ours")
    for code, lines, err in (streamed, whole, ours):
        assert (code, err) == (0, [])
        assert lines[0] == "accuracy       1.0000 ± 0.0000 (3 problems)"
    for name in ("streamed", "whole"):
        for theirs, our in zip(
            responses(tmp_path / name), responses(tmp_path / "ours"), strict=True
        ):
            chains = [row["text"].partition("</think>")[0].strip() for row in (theirs, our)]
            assert chains[0] == chains[1] and len(chains[0]) > 100
            for key in ("predicted", "finish_reason", "prompt_tokens", "output_tokens"):
                assert theirs[key] == our[key], key
    summaries = (
        json.loads((tmp_path / name / "eval" / "embedded.json").read_text())
        for name in ("streamed", "ours")
    )
    described, loaded = summaries
    assert described["source_model"] == loaded["source_model"] == "embedded"
    assert described["settings"]["prompts"] == loaded["settings"]["prompts"]
    process.kill()
    process.wait()
    code, lines, err = rac(*flags, "--out", tmp_path / "gone")
    assert (code, lines) == (2, []) and len(err) == 1
    assert err[0].startswith(f"rac: no server answers at {url} ")
    assert not (tmp_path / "gone").exists()
