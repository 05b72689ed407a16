"""PyTorch's state dicts, read as data: a `.pth` in torch's form before 1.6.

Such a file is five pickles (a magic number, a version, the writer's sizes, the dict, the keys of
the storages), then each storage's number of elements and bytes. ``pickletools`` takes pickles apart
into opcodes and runs none; those that a state dict is made of are followed here, any other refuses
the file.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C


class _Storage(NamedTuple):
    kind: str
    dtype: np.dtype
    key: str
    location: str
    elements: int
    view: None


class _Tensor(NamedTuple):
    """The arguments of torch's ``_rebuild_tensor_v2``."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool
    hooks: dict[Any, Any]


def _ordered_dict() -> dict[Any, Any]:
    return {}


# What a state dict names, and what stands for it here.
GLOBALS: dict[str, Any] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _Tensor,
    "torch FloatStorage": np.dtype("<f4"),
    "torch LongStorage": np.dtype("<i8"),
}


def tensors_of(data: bytes) -> dict[str, np.ndarray]:
    """The tensors in the bytes of a `.pth`, by name: float32 or int64 of any shape, views of
    `data`.

    Raises:
        ValueError: it holds anything but a state dict, or not all of one.
    """
    stream = io.BytesIO(data)
    try:
        if data[:2] == b"PK":
            raise ValueError("torch's form from 1.6 on, which is not read here")
        if _followed(stream) != MAGIC:
            raise ValueError("no state dict of PyTorch")
        _, _, tensors, keys = (_followed(stream) for _ in range(4))
        elements = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        storages = {key: _stored(elements[key], data, stream) for key in keys}
        return {str(name): _array(tensor, storages) for name, tensor in tensors.items()}
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"a damaged state dict ({type(error).__name__}: {error})") from None


def _stored(storage: _Storage, data: bytes, stream: io.BytesIO) -> np.ndarray:
    elements = int.from_bytes(stream.read(8), "little")
    if elements != storage.elements or not isinstance(storage.dtype, np.dtype):
        raise ValueError(f"a damaged state dict (storage {storage.key!r} of {elements} elements)")
    start = stream.tell()
    if stream.seek(elements * storage.dtype.itemsize, io.SEEK_CUR) > len(data):
        raise ValueError("a damaged state dict (it ends early)")
    return np.frombuffer(data, storage.dtype, elements, start)


def _array(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    shape, strides = tensor.shape, tensor.strides
    end = tensor.offset + math.prod(shape)
    flat = storages[tensor.storage.key][tensor.offset : end]
    if min(tensor.offset, *shape, 0) < 0 or len(flat) != math.prod(shape):
        raise ValueError(f"a tensor of shape {shape} lies outside its storage")
    # Axes may lie in any order, but fill the storage: strides of 0 would make any size of nothing.
    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    array = flat.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
    itemsize = array.itemsize
    for side, stride, found in zip(shape, strides, array.strides, strict=True):
        if side > 1 and stride * itemsize != found:
            raise ValueError(f"a tensor of shape {shape} has strides {strides}")
    return array


def _followed(stream: io.BytesIO) -> Any:
    """What the next pickle in `stream` makes, where it makes what state dicts are made of."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        mark = marks.pop()
        taken = stack[mark:]
        del stack[mark:]
        return taken

    for opcode, argument in _opcodes(stream):
        match opcode:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = int(opcode[-1])
                stack[-items:] = [tuple(stack[-items:])]
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "APPENDS":
                added = since_mark()
                stack[-1].extend(added)
            case "SETITEM":
                key, value = stack[-2:]
                del stack[-2:]
                _set(stack[-1], key, value)
            case "SETITEMS":
                pairs = since_mark()
                for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                    _set(stack[-1], key, value)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                if argument not in GLOBALS:
                    raise ValueError(f"it asks for {argument!r}, which no state dict needs")
                stack.append(GLOBALS[argument])
            case "REDUCE":
                arguments = stack.pop()
                stack.append(stack.pop()(*arguments))
            case "BINPERSID":
                stack.append(_Storage(*stack.pop()))
            case "BUILD":
                stack.pop()  # the layers' versions, which torch hangs on the dict
            case _:
                raise ValueError(f"it has the opcode {opcode}, which no state dict needs")
    raise ValueError("a damaged state dict (no STOP)")


def _set(items: Any, key: Any, value: Any) -> None:
    if not (isinstance(items, dict) and isinstance(key, str)):
        raise ValueError("a damaged state dict")
    items[key] = value


def _opcodes(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode.name, argument
    except ValueError as error:  # what pickletools says of what it can't take apart
        raise ValueError(f"a damaged state dict ({error})") from None
