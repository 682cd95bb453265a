"""The tests of a code problem, as a question's `reference` holds them, and how outputs compare.

A reference is one of
- `{"function": name, "check": program}`: the program defines `check(candidate)` (HumanEval); with
  `"prompt"`, the beginning of the solution that the model was given;
- `{"tests": [[stdin, stdout], ...]}`: a program's input and output;
- `{"function": name, "tests": [[arguments, result], ...]}`: a function, or a method of `Solution`;
- `{"function": name or None, "public": text, "private": text}`: LiveCodeBench's columns, encoded
  as published, since they are gigabytes when decoded.
"""

import base64
import binascii
import io
import json
import pickle
import zlib
from decimal import Decimal, InvalidOperation
from typing import Any

from rac.errors import UserError

MAX_DECODED_BYTES = 1 << 30


class _TextUnpickler(pickle.Unpickler):
    """Loads text and plain containers only: a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def decode_private(text: str) -> list[dict[str, str]]:
    """LiveCodeBench's `private_test_cases`: JSON, or JSON pickled, compressed and in base64.

    Raises:
        ValueError: it is neither.
    """
    try:
        return _case_list(json.loads(text))
    except json.JSONDecodeError:
        pass
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text), MAX_DECODED_BYTES)
        content = _TextUnpickler(io.BytesIO(data)).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"neither JSON nor its compressed form ({error})") from error
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(f"a damaged pickle ({type(error).__name__})") from error
    if not isinstance(content, str):
        raise ValueError(f"it holds {type(content).__name__}, not text")
    return _case_list(json.loads(content))


def _case_list(cases: Any) -> list[dict[str, str]]:
    good = isinstance(cases, list) and all(
        isinstance(c, dict) and isinstance(c.get("input"), str) and isinstance(c.get("output"), str)
        for c in cases
    )
    if not good:
        raise ValueError("expected a list of cases with the texts input and output")
    return cases


def read_tests(reference: Any) -> list[tuple[Any, Any]]:
    """The pairs of a reference that has tests and no `check`: stdin and stdout, or a call's.

    Raises:
        UserError: it has no usable tests.
    """
    if not isinstance(reference, dict):
        raise UserError(f"the code grader needs a reference with tests, got {reference!r:.80}")
    try:
        if "public" in reference:
            public = _case_list(json.loads(reference["public"]))
            cases = public + decode_private(reference["private"])
            tests: list[Any] = [[c["input"], c["output"]] for c in cases]
            if reference.get("function"):
                tests = [
                    [[json.loads(line) for line in given.split("\n")], json.loads(expected)]
                    for given, expected in tests
                ]
        else:
            tests = reference["tests"]
        pairs = [(given, expected) for given, expected in tests]
        kind = list if reference.get("function") else str
        if not pairs or not all(isinstance(given, kind) for given, _ in pairs):
            raise ValueError("there is no test, or one without its input")
        if kind is str and not all(isinstance(expected, str) for _, expected in pairs):
            raise ValueError("a program's output must be text")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"the code grader cannot use the tests of a problem: {error}") from error
    return pairs


def same_output(found: str, expected: str) -> bool:
    """LiveCodeBench's rule: equal lines but for outer white space, or equal decimal numbers.

    Numbers are compared exactly, as decimals: 1.0 equals 1, 0.333 does not equal 1/3's digits.
    """
    lines, wanted = (text.strip().split("\n") for text in (found, expected))
    return len(lines) == len(wanted) and all(map(_same_line, lines, wanted))


def _same_line(found: str, expected: str) -> bool:
    if found.strip() == expected.strip():
        return True
    try:
        wanted = [Decimal(word) for word in expected.split()]
        return wanted == [Decimal(word) for word in found.split()]
    except InvalidOperation:
        return False
