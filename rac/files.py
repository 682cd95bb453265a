"""Files that are either whole or absent, and the lock of a run directory."""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rac.errors import UserError


def _disk_error(error: BaseException) -> OSError | None:
    """The OSError behind a failed write: torch keeps it as the context, safetensors as text."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, UserError):
        return None
    if isinstance(error.__context__, OSError):
        return error.__context__
    code = re.search(r"os error (\d+)", str(error))
    return OSError(int(code[1]), os.strerror(int(code[1]))) if code else None


def _cannot_write(path: Path, error: OSError) -> UserError:
    reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
    return UserError(f"cannot write {path}: {reason}; free space or choose another --out")


@contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` when the block succeeds.

    Raises:
        UserError: the disk is full or the folder cannot be written; `path` is left as it was.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if cause := _disk_error(error):
            raise _cannot_write(path, cause) from error
        raise


@contextmanager
def replace_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it takes `path`'s place when the block succeeds."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if cause := _disk_error(error):
            raise _cannot_write(path, cause) from error
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with write_atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}; delete it and run again") from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory` (made if missing) for this process; the kernel frees it if we are killed.

    Raises:
        UserError: another process holds it, or it cannot be made.
    """
    path, made = directory / ".lock", not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = open(path, "w")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot use --out {directory}: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle.fileno()).st_ino != path.stat().st_ino:
                raise BlockingIOError  # its last holder has just deleted it
        except OSError as error:
            message = (
                f"{directory} is in use by another rac run; wait for it or choose another --out"
            )
            raise UserError(message) from error
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
                if made:
                    directory.rmdir()  # a refused run leaves nothing


def require_disk(directory: Path, needed_bytes: int) -> None:
    """Check before work starts that `needed_bytes` fit on the disk of `directory`.

    Raises:
        UserError: they do not.
    """
    existing = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise UserError(
            f"{directory} needs {needed_bytes / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB "
            "free; free space or choose another --out"
        )
