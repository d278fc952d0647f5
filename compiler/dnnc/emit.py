"""A layer and its schedule to instructions: the loop nest walked once, every load where a tile index changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from dnnc.emit_input import InputSide
from dnnc.emit_output import OutputSide, Share
from dnnc.emit_planes import ParameterSide, WeightSide
from dnnc.emit_rows import RowSide
from dnnc.emit_strips import StripEmitter
from dnnc.layer import HostLayer, Layer, Lowered
from dnnc.lives import Scene
from dnnc.nest import Index, Nest, listed
from dnnc.places import Range, Unit, interval
from dnnc.realize import Realized
from dnnc.schedule import Schedule
from dnnc.segments import Alone
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Compute, Host, Instruction, Load, Part, Program, Role, Section, Store, Tensor
from dnnc_runtime.tensor import Piece, Region, View, extent

PARAMETERS: tuple[Role, ...] = ("bias", "scale", "slope")


def emit(
    lowered: Lowered, schedules: Mapping[str, Schedule], machine: Machine, plan: Realized | None = None
) -> Program:
    """The program of a lowered graph.

    Args:
        lowered: layers in execution order, and DRAM.
        schedules: a legal schedule for every layer of the array, by name.
        machine: what it runs on.
        plan: how the layers run together; one after the other, from DRAM to DRAM, unless given.
    """
    made = [_alone(layer, schedules, machine) for layer in lowered.layers] if plan is None else []
    if plan is not None:
        made = list(_together(lowered, schedules, plan))
    sections = tuple(section for section, _ in made)
    tensors = (*lowered.tensors, *(tensor for _, scratch in made for tensor in scratch))
    if plan is not None:
        used = {view.tensor for section in sections for _, view in section.views}
        tensors += tuple(tensor for tensor in plan.steps.inner if tensor.name in used)
    return Program(
        machine, tensors, sections, lowered.placements, lowered.inputs, lowered.outputs, lowered.constants
    )  # fmt: skip


def _alone(
    layer: Layer | HostLayer, schedules: Mapping[str, Schedule], machine: Machine
) -> tuple[Section, list[Tensor]]:
    """The section of a layer by itself, and the tensors that it needs besides."""
    if isinstance(layer, HostLayer):
        return Section(layer.name, None, (), (_host(layer),)), []
    emitter = Emitter(Nest(layer, schedules[layer.name], machine))
    return emitter.section(), emitter.scratch()


def _together(
    lowered: Lowered, schedules: Mapping[str, Schedule], plan: Realized
) -> Iterator[tuple[Section, list[Tensor]]]:
    """The sections of a plan."""
    strips = StripEmitter(plan)
    for number, scene in enumerate(plan.lives.scenes):
        segment = plan.segments[scene.segment]
        if scene.segment in plan.lives.nests:
            section, scratch = _nested(plan, scene)
            yield replace(section, kept=strips.kept(number)), scratch
        elif isinstance(segment, Alone):
            section, scratch = _alone(lowered.layers[segment.position], schedules, plan.chip.machine)
            yield replace(section, kept=strips.kept(number)), scratch
        else:
            yield from ((section, []) for section in strips.sections(number))


def _nested(plan: Realized, scene: Scene) -> tuple[Section, list[Tensor]]:
    """The section of a layer with operands on chip, and the tensors that it needs besides."""
    made, maps, machine = plan.lives.nests[scene.segment], plan.steps.maps, plan.chip.machine
    there = {(m, unit): rows for (m, _, unit), rows in scene.rows.items()}
    rows = RowSide(made.layer, {role: [(m, maps[m]) for m in of] for role, of in made.maps.items()}, there)
    first = {plan.chip.memory: scene.own.chunks[0][2]} if scene.own else {}
    emitter = Emitter(Nest(made.layer, made.schedule, machine, first), rows)
    section = emitter.section()
    if "output" in made.maps:
        held = {id(plot) for plot in scene.held}
        end = tuple(rows.leave(plan.chip.memory, plan.stored[made.output], held))
        section = replace(section, instructions=section.instructions + end)
    return section, emitter.scratch()


def emit_layer(layer: Layer, schedule: Schedule, machine: Machine) -> Program:
    """The program of one layer alone, to be timed: its tensors are not among it."""
    return Program(machine, (), (Emitter(Nest(layer, schedule, machine)).section(),), (), (), ())


def _host(layer: HostLayer) -> Host:
    return Host(layer.name, layer.operator, layer.inputs, layer.outputs, layer.reason)


class Emitter:
    """One layer's section."""

    def __init__(self, nest: Nest, rows: RowSide | None = None) -> None:
        self.nest, self.layer, self.rows = nest, nest.layer, rows
        self.on_chip = nest.layer.shape.on_chip
        self.input = InputSide(nest) if "input" not in self.on_chip else None
        self.weights = WeightSide(nest) if self.layer.shape.kind == "array" else None
        roles: tuple[Role, ...] = tuple(role for role in PARAMETERS if self.layer.operand(role))
        self.parameters = ParameterSide(nest, roles)
        self.output = OutputSide(nest, rows)
        self._second: tuple[int, ...] | None = None
        self._ones: dict[tuple[str, Unit], Unit] = {}

    def section(self) -> Section:
        """The section, with the view of the scratch tensor that spilled partial sums need."""
        views: list[tuple[Role, View]] = [(operand.role, operand.view) for operand in self.layer.operands]
        views.extend(("partial_sums", self._scratch_view(t)) for t in self.scratch())
        mode = self.nest.schedule.mode
        return Section(self.layer.name, self.layer.kernel, tuple(views), tuple(self.instructions()), mode)

    def scratch(self) -> list[Tensor]:
        """The DRAM tensor of partial sums, if they leave."""
        if not self.nest.model.spills:
            return []
        words = prod(self._sum_shape()) * self.output.wide
        return [Tensor(f"{self.layer.name}:partial_sums", words)]

    def _sum_shape(self) -> tuple[int, ...]:
        s = self.layer.shape
        return s.n, s.y.out, s.x.out, s.g, s.k

    def _scratch_view(self, tensor: Tensor) -> View:
        shape = self._sum_shape()
        strides = tuple(prod(shape[a + 1 :]) * self.output.wide for a in range(len(shape)))
        return View(tensor.name, 0, shape, strides)

    def instructions(self) -> Iterator[Instruction]:
        """All instructions in order."""
        yield from self.parameters.start()
        last_c = self.nest.trips["c"] - 1
        spills = self.nest.model.spills
        for index in self.nest.indices():
            if self.input:
                yield from self.input.visit(index)
            if self.weights:
                yield from self.weights.visit(index)
            if self.layer.shape.second is not None and "second" not in self.on_chip:
                yield from self._visit_second(index)
            yield from self.parameters.visit(index)
            first, last = index["c"] == 0, index["c"] == last_c
            if spills and not first:
                yield self.output.partial_sums(index, Load)
            if last and self.layer.shape.residual and "residual" not in self.on_chip:
                yield self.output.load_residual(index)
            yield self._compute(index, first, last)
            if last:
                yield from self.output.finish(index)
            elif spills:
                yield self.output.partial_sums(index, Store)

    def _compute(self, index: Index, first: bool, last: bool) -> Compute:
        start, count = self.nest.plane("c", index["c"])
        parts = tuple(self._part(index, share, first, last) for share in self.output.shares(index))
        return Compute(parts, (start, start + count), first, last)

    def _part(self, index: Index, share: Share, first: bool, last: bool) -> Part:
        nest, shape = self.nest, self.layer.shape
        region = self.output.region(index, share)
        operands: list[tuple[Role, tuple[Piece, ...]]] = [("input", self._input(index, share))]
        if self.weights:
            operands.append(("weights", self.weights.pieces(index, share.unit, "output", share.box)))
        if shape.second is not None:
            operands.append(("second", self._second_pieces(index, share)))
        if not (first and last):
            operands.append(("accumulator", self.output.sums(index, share)))
        if last:
            for role in self.parameters.roles:
                pieces = self.parameters.pieces(role, index, share.unit, "output", share.box)
                operands.append((role, pieces))
            if shape.residual:
                operands.append(("residual", self.output.residual(index, share)))
            target: Role = "tile" if nest.pool else "output"
            operands.append((target, self.output.finished(index, share)))
        return Part(region, tuple(operands))

    def _input(self, index: Index, share: Share) -> tuple[Piece, ...]:
        vector = self.layer.shape.kind == "vector"
        channels = share.box[1] if vector else self.nest.plane("c", index["c"])
        unit = self._one("input", share.unit)
        if self.input:
            return self.input.pieces(index, unit, share.box[0], channels)
        assert self.rows
        image, step = self.nest.image(index)
        rows, columns = listed(self.nest.in_rows(unit.row, step)), listed(self.nest.in_columns(index["x"]))
        instance = self.nest.homes["input"][unit]
        return self.rows.pieces("input", instance, image, rows, columns, (share.box[0], channels))

    def _one(self, role: str, unit: Unit) -> Unit:
        """The unit of a role's memories that a unit of the output's reads."""
        if (role, unit) not in self._ones:
            homes = self.nest.homes[role]
            self._ones[role, unit] = next(u for u in self.nest.related(unit, "output", role) if u in homes)
        return self._ones[role, unit]

    # -- second operand of an elementwise layer -----------------------------------------------------------------

    def _visit_second(self, index: Index) -> Iterator[Instruction]:
        n, y, x, k = self.layer.shape.second or (False, False, False, False)
        row = index["y"] if y or (n and self.layer.shape.n > 1) else 0
        key = row, index["x"] if x else 0, index["k"] if k else 0
        if key == self._second:
            return
        self._second = key
        pieces: dict[tuple[object, ...], Piece] = {}
        regions: dict[Region, None] = {}
        for share in self.output.shares(index):
            piece = self._second_piece(index, share)
            at = piece.base, piece.pitch, piece.region
            instances = (*pieces[at].instances, *piece.instances) if at in pieces else piece.instances
            pieces[at] = Piece(tuple(dict.fromkeys(instances)), piece.base, piece.pitch, piece.region)
            regions[self._second_region(index, share, self.nest.plane("k", index["k"]))] = None
        memory = self.nest.machine.memory_of("second").name
        yield Load("second", memory, "word", tuple(regions), tuple(pieces.values()))

    def _second_region(self, index: Index, share: Share, planes: Range) -> Region:
        """The part of the second operand that meets a share's rows, the tile's columns and these planes."""
        has = self.layer.shape.second or (False, False, False, False)
        n, rows, columns, _, _ = self.output.region(index, share)
        one = interval((0, 1))
        axes = (n, rows, columns, interval(planes))
        n, rows, columns, k = (a if mine else one for a, mine in zip(axes, has, strict=True))
        return n, rows, columns, one, k

    def _second_pieces(self, index: Index, share: Share) -> tuple[Piece, ...]:
        if "second" not in self.on_chip:
            return (self._second_piece(index, share),)
        return self.output.in_rows("second", index, share, share.box)

    def _second_piece(self, index: Index, share: Share) -> Piece:
        region = self._second_region(index, share, share.box[1])
        columns, planes = extent(region[2]), extent(region[4])
        pitch = (0, columns * planes, planes, 0, 1)
        instance = self.nest.homes["second"][self._one("second", share.unit)]
        return Piece((instance,), self.nest.places.base["second"], pitch, region)
