"""Tensors that an ONNX model keeps in files beside it, read by memory map when they are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.errors import ModelFault


def read(
    name: str, shape: tuple[int, ...], dtype: np.dtype[Any], entries: Mapping[str, str], folder: Path | None
) -> NDArray[Any]:
    """A tensor's data, mapped read-only.

    Args:
        name, shape, dtype: of the tensor.
        entries: the tensor's ``external_data``: location, and optionally offset and length in bytes.
        folder: of the ONNX file, which the location is relative to; None where the model came without a file.

    Raises:
        ModelFault: the file is absent, too short, outside the folder, or the entries contradict the tensor.
    """
    location = entries.get("location", "")
    if folder is None:
        raise ModelFault(
            f"tensor {name!r} lies in the external file {location!r}: give the model as a path, not an object"
        )
    path = folder / location
    if not location or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelFault(f"tensor {name!r}: its external file {location!r} is not a path inside the model's folder")
    if not path.is_file():
        raise ModelFault(f"tensor {name!r}: its external data file {str(path)!r} is absent; put it beside the model")
    offset, size = _integer(name, entries, "offset", 0), prod(shape) * dtype.itemsize
    if _integer(name, entries, "length", size) != size:
        raise ModelFault(
            f"tensor {name!r}: {entries['length']} bytes of external data, {size} expected for {list(shape)}"
        )
    if path.stat().st_size < offset + size:
        raise ModelFault(
            f"tensor {name!r}: external data file {str(path)!r} ends at byte {path.stat().st_size}, "
            f"{offset + size} expected; it may be cut short"
        )
    if not size:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)


def _integer(name: str, entries: Mapping[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not text.isdecimal():
        raise ModelFault(f"tensor {name!r}: external data {key} is {text!r}, not a number of bytes")
    return int(text)
