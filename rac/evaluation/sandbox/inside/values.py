"""Plain values as JSON and back: what crosses between a candidate and the tests that judge it.

Numbers, text, bytes and the standard containers arrive as such; anything else arrives as an
`Opaque` object that equals nothing, so an object with an `__eq__` of its own convinces nobody.
"""

import json
from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

BIG_BITS = 1024  # above this, integers are written in hexadecimal: decimal digits are limited


class Opaque:
    """Stands for an object that is no plain value."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind} object>"


def dumps(value: Any) -> str:
    """`value` as one line of JSON.

    Raises:
        RecursionError: it contains itself or is too deep.
    """
    return json.dumps(_encode(value))


def loads(line: str | bytes) -> Any:
    """The value that `dumps` wrote.

    Raises:
        ValueError: `dumps` did not write this line.
    """
    try:
        return _decode(json.loads(line))
    except (TypeError, KeyError, ArithmeticError, RecursionError, AttributeError) as error:
        raise ValueError(f"not an encoded value: {type(error).__name__}") from error


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        number = int(value)
        return number if number.bit_length() <= BIG_BITS else {"int": hex(number)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [_encode(v) for v in value]
    if isinstance(value, dict):
        return {"dict": [[_encode(k), _encode(v)] for k, v in value.items()]}
    for name, kind in SEQUENCES.items():
        if isinstance(value, kind):
            return {name: [_encode(v) for v in value]}
    return _encode_rare(value)


def _encode_rare(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {type(value).__name__: bytes(value).decode("latin-1")}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [_encode(v) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, Fraction):
        return {"Fraction": [_encode(value.numerator), _encode(value.denominator)]}
    if isinstance(value, Decimal):
        return {"Decimal": str(value)}
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return _encode(value.item())
    if hasattr(value, "__next__"):
        return {"iterator": [_encode(v) for v in value]}
    return {"object": type(value).__name__}


SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
DECODERS = {
    "int": lambda text: int(text, 16),
    "tuple": lambda items: tuple(_decode(v) for v in items),
    "set": lambda items: {_decode(v) for v in items},
    "frozenset": lambda items: frozenset(_decode(v) for v in items),
    "deque": lambda items: deque(_decode(v) for v in items),
    "dict": lambda pairs: {_decode(k): _decode(v) for k, v in pairs},
    "bytes": lambda text: text.encode("latin-1"),
    "bytearray": lambda text: bytearray(text.encode("latin-1")),
    "complex": lambda parts: complex(*parts),
    "range": lambda parts: range(*(_decode(v) for v in parts)),
    "Fraction": lambda parts: Fraction(*(_decode(v) for v in parts)),
    "Decimal": Decimal,
    "iterator": lambda items: iter([_decode(v) for v in items]),
    "object": lambda kind: Opaque(str(kind)),
}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(v) for v in value]
    if isinstance(value, dict):
        ((name, content),) = value.items()
        return DECODERS[name](content)
    return value
