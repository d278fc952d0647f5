"""The extents of a model's inputs: what the model declares, completed by what the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dnnc_runtime.errors import ModelFault, UsageFault

Dimension = int | str
"""An extent, or the name of one that the model leaves open ("" where it has no name)."""

Dimensions = tuple[Dimension, ...]


@dataclass(frozen=True, slots=True)
class Declared:
    """An input as the model declares it; ``dimensions`` is None where not even the rank is known."""

    name: str
    dimensions: Dimensions | None


def resolve(inputs: tuple[Declared, ...], given: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shape of every input; a named dimension given for one input holds for all.

    Args:
        inputs: the model's inputs that are not constants.
        given: shapes by input name, as ``--input-shape`` gives them.

    Raises:
        UsageFault: a given shape names no input, has no positive extents, or contradicts the model or another one.
        ModelFault: a dimension stays open, or is zero.
    """
    known = {declared.name: declared for declared in inputs}
    for name in given:
        if name not in known:
            raise UsageFault(f"--input-shape {name}: the model has no such input; its inputs are {', '.join(known)}")
    names: dict[str, int] = {}
    for name, shape in given.items():
        _check(known[name], shape, names)
    return {d.name: given[d.name] if d.name in given else _complete(d, names) for d in inputs}


def _check(declared: Declared, shape: tuple[int, ...], names: dict[str, int]) -> None:
    """Holds a given shape against the model's, and binds the names of its open dimensions."""
    text = f"--input-shape {declared.name}:{'x'.join(map(str, shape))}"
    if min(shape, default=1) < 1:
        raise UsageFault(f"{text}: every dimension must be at least 1")
    if declared.dimensions is None:
        return
    if len(shape) != len(declared.dimensions):
        raise UsageFault(f"{text}: has {len(shape)} dimensions, the model's input has {len(declared.dimensions)}")
    for axis, (size, dimension) in enumerate(zip(shape, declared.dimensions, strict=True)):
        expected = names.setdefault(dimension, size) if isinstance(dimension, str) and dimension else dimension or size
        if size != expected:
            raise UsageFault(f"{text}: dimension {axis} is {size}, where the model has {expected}")


def _complete(declared: Declared, names: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an input that was not given."""
    if declared.dimensions is None:
        raise ModelFault(
            f"input {declared.name!r} has no shape; give it, e.g. --input-shape {declared.name}:1x3x224x224"
        )
    sizes = [names.get(d, d) if isinstance(d, str) else d for d in declared.dimensions]
    missing = [f"{axis} ({size!r})" if size else str(axis) for axis, size in enumerate(sizes) if isinstance(size, str)]
    if missing:
        # An example that is right where the model is, and usual for images elsewhere.
        example = "x".join(
            str(size if isinstance(size, int) else 224 if axis else 1) for axis, size in enumerate(sizes)
        )
        which = "dimension" if len(missing) == 1 else "dimensions"
        raise ModelFault(
            f"input {declared.name!r}: {which} {', '.join(missing)} not fixed by the model; "
            f"give the shape, e.g. --input-shape {declared.name}:{example}"
        )
    shape = tuple(size for size in sizes if isinstance(size, int))
    if 0 in shape:
        raise ModelFault(f"input {declared.name!r} has a zero-sized dimension: {list(shape)}")
    return shape
