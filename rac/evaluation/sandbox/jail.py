"""The process that starts sandboxed programs (inside/server.py), seen from outside."""

import functools
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rac.errors import UserError

logger = logging.getLogger(__name__)

UNSAFE = "RAC_UNSAFE_CODE"
PACKAGES = ("numpy", "scipy", "sympy", "mpmath", "pandas", "networkx", "sortedcontainers")
SCRATCH_BYTES = 64 << 20
INT_DIGITS = 50_000  # LiveCodeBench's limit on digits of integers read or printed
START_SECONDS = 60.0
END_SECONDS = 10.0
START = Path(__file__).with_name("start.py")


@dataclass(frozen=True)
class Limits:
    """What one program may use; `seconds` is wall time, of each test where there are several."""

    seconds: float = 6.0
    memory_bytes: int = 4 << 30
    output_bytes: int = 16 << 20


@dataclass(frozen=True)
class Ended:
    """A program's end: the status as `os.waitpid` gives it, and CPU seconds."""

    status: int
    cpu_seconds: float


class Jail:
    """Runs one program at a time, each in a fresh process under every layer that works here.

    A layer given as False is left out, as on a system that does not have it.

    Raises:
        UserError: the system cannot confine a program.
    """

    def __init__(
        self, *, namespaces: bool = True, landlock: bool = True, seccomp: bool = True
    ) -> None:
        self.layers: dict[str, Any] = {}
        self._wanted = {"landlock": landlock, "seccomp": seccomp}
        self._number = 0
        self._folder = tempfile.TemporaryDirectory(prefix="rac-code-", ignore_cleanup_errors=True)
        os.chmod(self._folder.name, 0o755)
        (Path(self._folder.name) / "scratch").mkdir(mode=0o755)
        try:
            if not (namespaces and self._start(True)) and not self._start(False):
                raise UserError(f"code cannot be run in a sandbox here: {self._error}")
            self._require_safe()
        except BaseException:
            self.close()
            raise
        _announce(describe_layers(self.layers))

    def _start(self, namespaces: bool) -> bool:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            config = {
                "socket": theirs.fileno(),
                "namespaces": namespaces,
                **self._wanted,
                "scratch": f"{self._folder.name}/scratch",
                "scratch_bytes": SCRATCH_BYTES,
                "own_folder": str(START.parent),
                "int_digits": INT_DIGITS,
                **_packages(),
            }
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", "-X", "utf8", str(START), json.dumps(config)],
                pass_fds=[theirs.fileno()],
                env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.channel.settimeout(START_SECONDS)
        try:
            answer = json.loads(self.channel.recv(1 << 16) or b'{"error": "its server ended"}')
        except TimeoutError:
            answer = {"error": f"no answer in {START_SECONDS:g} s"}
        self.channel.settimeout(END_SECONDS)
        self._error = answer.get("error", "")
        self.layers = answer.get("layers", self.layers)
        if self._error:
            logger.debug("sandbox with namespaces=%s: %s", namespaces, self._error)
            self._stop()
        return not self._error

    def _require_safe(self) -> None:
        """Without seccomp, namespaces hold a program; its processes must be counted apart then."""
        counted = self.layers["own count"] or self.layers["uid"] is not None
        safe = self.layers["seccomp"] or (self.layers["namespaces"] and counted)
        if not safe and not os.environ.get(UNSAFE):
            raise UserError(
                "the kernel offers too little to confine code that a model wrote (it has: "
                f"{describe_layers(self.layers)}); run in a virtual machine whose kernel has "
                f"seccomp, or set {UNSAFE}=1 to run it all the same"
            )

    def spawn(self, payload: dict[str, Any], limits: dict[str, Any], files: list[int]) -> None:
        """Start a program: `payload` as inside/server.py reads it, `files` its descriptors."""
        self._number += 1
        request = json.dumps({"run": self._number, "limits": limits}).encode()
        memory = memory_file(json.dumps(payload).encode())
        try:
            try:
                socket.send_fds(self.channel, [request], [memory, *files])
            except OSError:  # the server was killed since the last program
                self._restart()
                socket.send_fds(self.channel, [request], [memory, *files])
        finally:
            os.close(memory)

    def kill(self) -> None:
        """Ask for the end of the program; `ended` tells when."""
        with suppress(OSError):
            self.channel.send(json.dumps({"kill": self._number}).encode())

    def ended(self) -> Ended:
        """Wait for the program's end (END_SECONDS at most); a dead server counts as SIGKILL."""
        try:
            message = self.channel.recv(1 << 16)
        except OSError:  # timed out or reset
            message = b""
        if not message:
            self._restart()
            return Ended(9, 0.0)
        answer = json.loads(message)
        return Ended(answer["status"], answer["cpu"])

    def _restart(self) -> None:
        self._stop()
        if not self._start(bool(self.layers["namespaces"])):
            raise UserError(f"the sandbox does not start again: {self._error}; run it once more")

    def _stop(self) -> None:
        self.channel.close()
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the server and whatever runs under it."""
        if hasattr(self, "_process"):
            self._stop()
        self._folder.cleanup()


def memory_file(data: bytes) -> int:
    """A descriptor of a file in memory with `data`, read from its start."""
    descriptor = os.memfd_create("rac")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def describe_layers(layers: dict[str, Any]) -> str:
    """The active layers in words."""
    parts = []
    if layers["namespaces"]:
        parts.append(f"namespaces ({layers['namespaces']})")
    if layers["uid"] is not None:
        parts.append("a user of its own")
    if layers["landlock"]:
        parts.append(f"Landlock {layers['landlock']}")
    if layers["seccomp"]:
        parts.append("seccomp")
    files = "a 64 MB folder in memory" if layers["scratch"] else "no file can be written"
    if not layers["landlock"]:
        files += ", other files can be read"
    return f"{', '.join([*parts, 'resource limits'])}; {files}"


@functools.cache
def _announce(layers: str) -> None:
    logger.info("code of models runs under %s", layers)


@functools.cache
def _packages() -> dict[str, list[str]]:
    """Installed packages that candidates may import, and where the interpreter finds them."""
    packages, search = [], []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or []) if spec else []:
            libraries = Path(location).with_name(f"{name}.libs")
            packages += [location, str(libraries)] if libraries.is_dir() else [location]
            search.append(str(Path(location).parent))
    return {"packages": packages, "search": list(dict.fromkeys(search))}
