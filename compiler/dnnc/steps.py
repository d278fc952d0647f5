"""A lowered graph as steps over feature maps: what is computed line by line, and what could stay on chip in between.

A *step* is a layer that can be run for some rows at a time; a layer with a fused pool is two. A *feature map* is
what one step computes, as the tensor in DRAM has it: lines (rows of all images) of equally many words. Where a tensor
is a concatenation, every part of it is a map of its own. A layer that looks at a tensor in another shape than the one
it was computed in reads it from DRAM.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import NamedTuple

from dnnc.axis import touched
from dnnc.layer import HALF, HostLayer, Layer, Lowered, Operand, Shape, dense_axes
from dnnc.weights import PARAMETERS
from dnnc_runtime.program import Kernel, Role, Tensor, Window
from dnnc_runtime.tensor import View

READ: tuple[Role, ...] = ("input", "residual", "second")
"""Operands that are feature maps, besides the output."""


class Geometry(NamedTuple):
    """How a tensor's feature map lies in DRAM: images, rows and columns, and the words from pixel to pixel."""

    images: int
    rows: int
    columns: int
    pixel: int


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """A feature map, or the part of a concatenation that one step computes.

    Attributes:
        value: the value of the model.
        tensor: in DRAM; ``first``: the first of its ``channels`` in each of the tensor's pixels.
        geometry: of the tensor.
        source: the step that computes it; None for what is in DRAM from the start, and for looks at other maps.
        why: why it cannot stay on chip; empty if it can.
        must_store: why all of it has to be in DRAM in any case; empty if nothing demands it.
    """

    value: str
    tensor: str
    first: int
    channels: int
    geometry: Geometry
    source: int | None
    why: str = ""
    must_store: str = ""

    @property
    def lines(self) -> int:
        """Rows of all images."""
        return self.geometry.images * self.geometry.rows

    @property
    def words(self) -> int:
        """Words of a line."""
        return self.geometry.columns * self.channels


@dataclass(frozen=True, slots=True)
class Read:
    """An operand of a step as feature maps.

    Attributes:
        maps: its channels in order, map by map.
        rows, columns: windows from its rows and columns to the step's.
        pointwise: the step's operation reads a word of it for the same word of the output alone, so that the output
            may be written over it.
    """

    role: Role
    maps: tuple[int, ...]
    rows: Window
    columns: Window
    pointwise: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A layer, or half of one with a fused pool, that can be run for some rows at a time.

    ``why`` says why it cannot: then it has no reads, and its layer runs alone, from DRAM to DRAM.
    """

    position: int
    layer: Layer
    reads: tuple[Read, ...]
    map: int
    why: str = ""

    @property
    def constants(self) -> tuple[tuple[Role, View], ...]:
        """Its kernels and parameters: steps with the same ones may use them at the same place."""
        roles = ("weights", *PARAMETERS)
        return tuple((operand.role, operand.view) for operand in self.layer.operands if operand.role in roles)


@dataclass(frozen=True)
class Steps:
    """All steps of a lowered graph in execution order, and the maps between them.

    Attributes:
        at: for every position (layer of the lowered graph) its steps; none where the host runs it.
        reads: for every position the maps that it reads.
        needs: for every position a mask of those that write what it reads.
        inner: tensors between the halves of layers with a fused pool, which only exist where those run apart.
        layers: for every position its layer as it runs by itself.
    """

    steps: tuple[Step, ...]
    maps: tuple[FeatureMap, ...]
    at: tuple[tuple[int, ...], ...]
    reads: tuple[tuple[int, ...], ...]
    needs: tuple[int, ...]
    inner: tuple[Tensor, ...]
    layers: tuple[Layer | HostLayer, ...] = ()

    @cached_property
    def readers(self) -> dict[int, tuple[int, ...]]:
        """For every map the positions that read it, ascending."""
        out: dict[int, list[int]] = {}
        for position, maps in enumerate(self.reads):
            for m in dict.fromkeys(maps):
                out.setdefault(m, []).append(position)
        return {m: tuple(found) for m, found in out.items()}

    def computed(self, position: int) -> tuple[int, ...]:
        """The maps that a position computes."""
        return tuple(self.steps[number].map for number in self.at[position])

    def touched(self, position: int, m: int) -> int:
        """Lines of a map that a position reads: all, if its layer cannot be run by rows."""
        lines = (1 << self.maps[m].lines) - 1
        mask = 0
        for number in self.at[position]:
            step = self.steps[number]
            for read in step.reads:
                if m in read.maps:
                    for image in range(step.layer.shape.n):
                        mask |= touched(read.rows, 0, read.rows.out) << (image * read.rows.size)
        return mask or lines

    def wanted(self, m: int, done: int) -> int:
        """Lines of a map that positions read which are not done, as a mask says."""
        mask = 0
        for reader in self.readers.get(m, ()):
            if not done >> reader & 1:
                mask |= self.touched(reader, m)
        return mask


def steps_of(lowered: Lowered, fixed: Collection[str] = ()) -> Steps:
    """The steps of a lowered graph.

    Args:
        fixed: names of layers that are to run by themselves.
    """
    return _Builder(lowered, fixed).build()


@dataclass
class _Builder:
    lowered: Lowered
    fixed: Collection[str]
    maps: list[FeatureMap] = field(default_factory=list[FeatureMap])
    steps: list[Step] = field(default_factory=list[Step])
    inner: list[Tensor] = field(default_factory=list[Tensor])

    def build(self) -> Steps:
        self.constant = {tensor.name for tensor in self.lowered.tensors if tensor.constant}
        self.geometry: dict[str, Geometry] = {}
        self.parts: dict[str, list[int]] = {}
        self.demands: dict[str, str] = {}
        self.places = {place.name: place.view.tensor for place in self.lowered.placements}
        at: list[tuple[int, ...]] = []
        reads: list[tuple[int, ...]] = []
        for position, layer in enumerate(self.lowered.by_rows):
            before = len(self.steps)
            reads.append(self._host(layer) if isinstance(layer, HostLayer) else self._layer(position, layer))
            at.append(tuple(range(before, len(self.steps))))
        for name in self.lowered.outputs:
            self.demands.setdefault(self.places.get(name, ""), "it is an output of the network")
        maps = tuple(replace(m, must_store=self.demands.get(m.tensor, m.must_store)) for m in self.maps)
        return Steps(
            tuple(self.steps),
            maps,
            tuple(at),
            tuple(reads),
            tuple(self._needs()),
            tuple(self.inner),
            self.lowered.layers,
        )

    def _needs(self) -> Iterator[int]:
        """For every layer those that write the tensors that it reads."""
        writers: dict[str, int] = {}
        for position, layer in enumerate(self.lowered.by_rows):
            if isinstance(layer, HostLayer):
                read = [self.places.get(value, "") for value in layer.inputs]
                written = [self.places.get(value, "") for value in layer.outputs]
            else:
                read = [operand.view.tensor for operand in layer.operands if operand.role != "output"]
                written = [operand.view.tensor for operand in layer.operands if operand.role == "output"]
            mask = 0
            for tensor in read:
                mask |= writers.get(tensor, 0)
            yield mask
            for tensor in written:
                writers[tensor] = writers.get(tensor, 0) | 1 << position

    def _host(self, layer: HostLayer) -> tuple[int, ...]:
        tensors = [self.places.get(value, "") for value in layer.inputs]
        for tensor in tensors:
            self.demands.setdefault(tensor, f"the host reads it for {layer.name}")
        return tuple(m for tensor in tensors for m in self.parts.get(tensor, []))

    def _layer(self, position: int, layer: Layer) -> tuple[int, ...]:
        why = "its schedule is given" if layer.name in self.fixed else _refusal(layer, self.constant)
        if why:
            return self._alone(position, layer, why)
        made = [self._step(position, half) for half in halves(layer)]
        if len(made) > 1:
            inner = self.maps[made[0].map]
            self.inner.append(Tensor(inner.tensor, inner.lines * inner.words))
        return tuple(m for step in made for read in step.reads for m in read.maps)

    def _alone(self, position: int, layer: Layer, why: str) -> tuple[int, ...]:
        """A layer that cannot be run by rows: whatever it reads or writes has to be in DRAM."""
        found: list[int] = []
        for operand in layer.operands:
            if operand.role != "output" and operand.view.tensor not in self.constant:
                self.demands.setdefault(operand.view.tensor, f"{layer.name} reads it, but {why}")
                found += self.parts.get(operand.view.tensor, [])
        output = layer.operand("output")
        assert output is not None
        made = self._opaque(output, len(self.steps), f"{layer.name} computes it, but {why}")
        self.steps.append(Step(position, layer, (), made, why))
        return tuple(found)

    def _step(self, position: int, layer: Layer) -> Step:
        output = layer.operand("output")
        assert output is not None
        operands = (layer.operand(role) for role in READ)
        reads = tuple(self._read(layer, operand) for operand in operands if operand is not None)
        step = Step(position, layer, reads, self._write(output, len(self.steps)))
        self.steps.append(step)
        return step

    def _read(self, layer: Layer, operand: Operand) -> Read:
        shape = layer.shape
        windowed = operand.role == "input"
        rows = shape.y if windowed else Window(shape.y.out, shape.y.out)
        columns = shape.x if windowed else Window(shape.x.out, shape.x.out)
        pointwise = operand.role != "input" or (shape.kind == "vector" and _plain(shape.y) and _plain(shape.x))
        maps = self._found(operand) or (self._look(layer, operand),)
        return Read(operand.role, maps, rows, columns, pointwise)

    def _found(self, operand: Operand) -> tuple[int, ...]:
        """The maps that an operand consists of, if it looks at its tensor in the shape in which it was computed."""
        view = operand.view
        known = self.geometry.get(view.tensor)
        if known is None or not matches(view, known):
            return ()
        first, last = view.offset, view.offset + view.shape[3] * view.shape[4]
        found = sorted(self.parts[view.tensor], key=lambda m: self.maps[m].first)
        inside = [
            m for m in found if first <= self.maps[m].first and self.maps[m].first + self.maps[m].channels <= last
        ]
        if sum(self.maps[m].channels for m in inside) != last - first:
            return ()
        return tuple(inside)

    def _look(self, layer: Layer, operand: Operand) -> int:
        """A map that only this operand has: it is read from DRAM."""
        view = operand.view
        if view.tensor in self.parts:
            self.demands.setdefault(view.tensor, f"{layer.name} reads it in another shape")
        if view.tensor in self.constant:
            why = "it is a constant"
        elif view.tensor in self.parts:
            why = "it is read in another shape"
        else:
            why = "it is an input of the network"
        geometry = canonical(view)
        if geometry and view.tensor not in self.parts and why == "it is an input of the network":
            # Whoever reads an input in this shape again finds the same map, which may stay once it is loaded.
            return self._add(FeatureMap(operand.value, view.tensor, view.offset, _depth(view), geometry, None))
        made = FeatureMap(operand.value, view.tensor, 0, _depth(view), _plain_geometry(view), None, why)
        self.maps.append(made)
        return len(self.maps) - 1

    def _write(self, output: Operand, step: int) -> int:
        view = output.view
        geometry = self.geometry.get(view.tensor) or canonical(view)
        if geometry is None or not matches(view, geometry):
            return self._opaque(output, step, "it is computed in another shape than its tensor has")
        return self._add(FeatureMap(output.value, view.tensor, view.offset, _depth(view), geometry, step))

    def _opaque(self, output: Operand, step: int, why: str) -> int:
        view = output.view
        plain = _plain_geometry(view)
        self.maps.append(FeatureMap(output.value, view.tensor, 0, _depth(view), plain, step, why, why))
        self.parts.setdefault(view.tensor, []).append(len(self.maps) - 1)
        return len(self.maps) - 1

    def _add(self, made: FeatureMap) -> int:
        self.geometry[made.tensor] = made.geometry
        self.maps.append(made)
        self.parts.setdefault(made.tensor, []).append(len(self.maps) - 1)
        return len(self.maps) - 1


def _depth(view: View) -> int:
    return view.shape[3] * view.shape[4]


def _plain_geometry(view: View) -> Geometry:
    """Of a tensor that a view has to itself."""
    n, y, x, _, _ = view.shape
    return Geometry(n, y, x, _depth(view))


def _plain(window: Window) -> bool:
    return window == Window(window.size, window.size)


def canonical(view: View) -> Geometry | None:
    """How a tensor lies of which this view has all rows and columns, and some or all channels; None if it does not."""
    n, y, x, g, c = view.shape
    steps = view.strides
    pixel = next(
        (
            stride // inner
            for size, stride, inner in ((x, steps[2], 1), (y, steps[1], x), (n, steps[0], x * y))
            if size > 1 and stride % inner == 0
        ),
        view.offset + g * c,
    )
    geometry = Geometry(n, y, x, pixel)
    return geometry if matches(view, geometry) else None


def matches(view: View, geometry: Geometry) -> bool:
    """Whether a view has all rows and columns of a tensor, and consecutive channels of every pixel."""
    n, y, x, g, c = view.shape
    if (n, y, x) != geometry[:3] or view.offset + g * c > geometry.pixel:
        return False
    wanted = (y * x * geometry.pixel, x * geometry.pixel, geometry.pixel, c, 1)
    return all(size == 1 or stride == want for size, stride, want in zip(view.shape, view.strides, wanted, strict=True))


def _refusal(layer: Layer, constant: set[str]) -> str:
    """Why a layer cannot be run by rows; empty if it can."""
    shape = layer.shape
    if shape.second is not None and not all(shape.second):
        return "its second operand is repeated"
    weights = layer.operand("weights")
    if weights is not None and weights.view.tensor not in constant:
        return "its weights are computed"
    return ""


def halves(layer: Layer) -> Iterator[Layer]:
    """A layer without a fused pool as it is; one with it as two, with a tensor between them.

    Numbers do not change: what a fused pool reads is rounded, too.
    """
    pool = layer.shape.pool
    if pool is None:
        yield layer
        return
    output = layer.operand("output")
    assert output is not None
    s = layer.shape
    planes = s.g * s.k
    name = f"{layer.name}:unpooled"
    view = dense_view(name, (s.n, s.y.out, s.x.out, s.g, s.k))
    before = Operand("output", name, view)
    others = tuple(operand for operand in layer.operands if operand.role != "output")
    dense = tuple((role, dense_axes(view) if role == "output" else merged) for role, merged in s.dense)
    kernel = replace(layer.kernel, pool=None)
    yield replace(layer, shape=replace(s, pool=None, dense=dense), kernel=kernel, operands=(*others, before))
    flat = View(name, 0, (s.n, s.y.out, s.x.out, 1, planes), (*view.strides[:3], 0, 1))
    target = output.view
    after = View(target.tensor, target.offset, (*target.shape[:3], 1, planes), (*target.strides[:3], 0, 1))
    shape = Shape(
        "vector", s.n, 1, planes, 1, pool.y, pool.x,
        dense=(("input", dense_axes(flat)), ("output", dense_axes(after))),
    )  # fmt: skip
    operands = (Operand("input", name, flat), replace(output, view=after))
    yield Layer(f"{layer.name}{HALF}", "Pool", (), shape, Kernel("pool", pool.y, pool.x, pool=pool), operands)


def dense_view(tensor: str, shape: Sequence[int]) -> View:
    """A whole tensor without gaps, row-major."""
    return View(tensor, 0, tuple(shape), tuple(prod(shape[a + 1 :]) for a in range(len(shape))))
