"""Tiny ONNX models, written byte by byte: the tests need neither the onnx package nor weights.

Field numbers are those of ``onnx.proto3`` (ONNX, Apache-2.0); https://onnx.ai/onnx/intro/concepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FLOAT, INT64 = 1, 7
_TYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): INT64}
Shape = Sequence[int | str]


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _value(name: str, kind: int, shape: Shape) -> bytes:
    """A ValueInfoProto: a name with its type; a string in the shape is a free dimension."""
    dims = b"".join(_bytes(1, _number(1, d) if isinstance(d, int) else _bytes(2, d)) for d in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, dims)))


def tensor(name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> bytes:
    """A TensorProto with its values inside."""
    dims = b"".join(_number(1, d) for d in values.shape)
    kind = _number(2, _TYPES[values.dtype])
    return dims + kind + _bytes(8, name) + _bytes(9, values.tobytes())


def external_tensor(name: str, shape: Sequence[int], location: str) -> bytes:
    """A TensorProto whose values lie in another file."""
    dims = b"".join(_number(1, d) for d in shape)
    entry = _bytes(13, _bytes(1, "location") + _bytes(2, location))
    return dims + _number(2, FLOAT) + _bytes(8, name) + entry + _number(14, 1)


def node(kind: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> bytes:
    """A NodeProto with attributes that are whole numbers or lists of them."""
    out = b"".join(_bytes(1, name) for name in inputs) + _bytes(2, output) + _bytes(4, kind)
    for name, value in attributes.items():
        if isinstance(value, int):
            body = _number(3, value) + _number(20, 2)
        else:
            body = b"".join(_number(8, v) for v in value) + _number(20, 7)
        out += _bytes(5, _bytes(1, name) + body)
    return out


def model(
    nodes: Sequence[bytes],
    inputs: Mapping[str, tuple[int, Shape]],
    outputs: Mapping[str, Shape],
    tensors: Sequence[bytes] = (),
) -> bytes:
    """The bytes of a ModelProto (IR 8, operator set 13) with float outputs."""
    graph = b"".join(_bytes(1, n) for n in nodes) + _bytes(2, "graph")
    graph += b"".join(_bytes(5, t) for t in tensors)
    graph += b"".join(_bytes(11, _value(n, *of)) for n, of in inputs.items())
    graph += b"".join(_bytes(12, _value(n, FLOAT, shape)) for n, shape in outputs.items())
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 13))


def mean_colour(size: int = 8) -> bytes:
    """A model whose three outputs are the means of the channels of what it is given."""
    return model(
        [node("GlobalAveragePool", ["image"], "pooled"), node("Flatten", ["pooled"], "scores")],
        {"image": (FLOAT, (1, 3, size, size))},
        {"scores": (1, 3)},
    )


def red_times_tokens(size: int = 8) -> bytes:
    """A model with two inputs: the mean of channel 0 times the mean of the token numbers."""
    return model(
        [
            node("GlobalAveragePool", ["image"], "pooled"),
            node("Flatten", ["pooled"], "means"),
            node("Gather", ["means", "zero"], "red", axis=1),
            node("Cast", ["tokens"], "floats", to=FLOAT),
            node("ReduceMean", ["floats"], "token", axes=[1], keepdims=1),
            node("Mul", ["red", "token"], "scores"),
        ],
        {"image": (FLOAT, (1, 3, size, size)), "tokens": (INT64, (1, "length"))},
        {"scores": (1, 1)},
        [tensor("zero", np.array([0], dtype=np.int64))],
    )


def weights_elsewhere(location: str, size: int = 8) -> bytes:
    """A model whose weights lie in another file, which its digest does not cover."""
    return model(
        [
            node("GlobalAveragePool", ["image"], "pooled"),
            node("Flatten", ["pooled"], "means"),
            node("Mul", ["means", "weights"], "scores"),
        ],
        {"image": (FLOAT, (1, 3, size, size))},
        {"scores": (1, 3)},
        [external_tensor("weights", (1, 3), location)],
    )
