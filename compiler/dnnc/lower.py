"""Graph to layers: which nodes run together, where everything lies in DRAM, and the copies that this takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import prod

from dnnc import operators, rules
from dnnc.assemble import assemble, copy_layer
from dnnc.draft import Draft, Layouts
from dnnc.dram import Dram
from dnnc.fuse import Fused, Group, always, fuse, split_sums
from dnnc.graph import Graph, Node
from dnnc.homes import Order, alias, concat_axis, homes, orders, preferred, row_major
from dnnc.layer import HostLayer, Layer, Lowered
from dnnc.layout import Layout, pieces
from dnnc.pixels import merge_pixels
from dnnc_runtime.machine import Machine
from dnnc_runtime.program import Role

_Copies = Mapping[Role, tuple[Layout, bool]]
"""For each operand to be copied first (an output: last) its copy, and whether that is in DRAM already."""

_SCATTERED = "its operands lie so that no four loops walk them together"


def lower(graph: Graph, machine: Machine, fused: Fused = always) -> Lowered:
    """The layers of a graph on a machine, in execution order, with all that lies in DRAM.

    Args:
        graph: simplified.
        machine: decides what fuses, and the bytes of a word.
        fused: (layer name, kind) -> whether that fusion is allowed; kinds as in ``Machine.fuses``.

    Returns:
        Layers for the array and for the host. Shape-only nodes and concatenations in place are in none of them;
        values inside a layer have no placement. Constants are loaded, rearranged and folded only when called for.
    """
    prepared = split_sums(graph, machine)
    groups = fuse(prepared, machine, fused)
    order = orders(prepared)
    lowering = _Lowering(prepared, machine, order, Dram(prepared, order, homes(prepared, groups, order)))
    for name in prepared.inputs:
        lowering.dram.place(name)
    for group in groups:
        lowering.add(group)
    return lowering.finish(graph)


@dataclass(frozen=True, slots=True)
class _Move:
    """A copy to be made: a value, where it lies, and the value and the place that it goes into."""

    value: str
    source: Layout
    into: str
    target: Layout


@dataclass(slots=True)
class _Lowering:
    """The layers so far of a graph that is being lowered."""

    graph: Graph
    machine: Machine
    orders: Mapping[str, Order]
    dram: Dram
    layers: list[Layer | HostLayer] = field(default_factory=list[Layer | HostLayer])

    def add(self, group: Group) -> None:
        """Lowers the next group; one whose operands lie too scattered falls apart, and its nodes run on the host."""
        by_kind: dict[str, Callable[[Group], bool]] = {"alias": self._alias, "concat": self._concat, "host": self._host}
        kind = operators.kind(self.graph, group.main)
        if by_kind.get(kind, self._layer)(group):
            return
        if len(group.nodes) == 1:
            self._host(group)
        else:
            for node in group.nodes:
                self.add(Group(node))

    def finish(self, graph: Graph) -> Lowered:
        """Everything, with placements of the values that the graph has."""
        for name in graph.outputs:
            if graph.value(name).constant:
                self.dram.values[name] = self.dram.find(name, row_major(len(graph.value(name).shape)))
        known = {value.name for value in graph.values}
        places = (layout.placement(name) for name, layout in self.dram.values.items() if name in known)
        tensors = tuple(self.dram.tensors.values())
        layers = tuple(merge_pixels(layer) if isinstance(layer, Layer) else layer for layer in self.layers)
        return Lowered(
            layers, tuple(self.layers), tensors, tuple(places), graph.inputs, graph.outputs, self.dram.loaders()
        )

    def _host(self, group: Group) -> bool:
        node = group.main
        values = [self.graph.value(name) for name in dict.fromkeys(node.inputs) if name]
        outputs = [self.graph.value(name) for name in node.outputs if name]
        for value in outputs:
            self.dram.place(value.name)
        read, written = (sum(prod(v.shape) for v in side) * self.machine.word_bytes for side in (values, outputs))
        reason = operators.refusal(self.graph, node) or _SCATTERED
        computed = tuple(v.name for v in values if not v.constant)
        names = tuple(v.name for v in outputs)
        self.layers.append(HostLayer(node.name, node.operator, node.nodes, computed, names, reason, read, written))
        return True

    def _alias(self, group: Group) -> bool:
        """A shape-only node: another look at its input, or at a row-major copy of it."""
        node = group.main
        value, order = node.inputs[0], row_major(len(operators.shape(self.graph, node)))
        found = alias(self.graph, node, self.dram.find(value, order))
        if found is None:
            target, done = self.dram.copied(value, order)
            move = _Move(value, self.dram.values[value], target.tensor, target)
            copies = self._moves(node, node.nodes, [] if done else [move])
            # A row-major tensor takes any shape.
            found = alias(self.graph, node, target)
            if copies is None or found is None:
                return False
            self.dram.keep(value, order, target)
            self.layers += copies
        self.dram.values[node.outputs[0]] = found
        return True

    def _concat(self, group: Group) -> bool:
        """A concatenation: what was not computed in place is copied there."""
        node, axis = group.main, concat_axis(self.graph, group.main)
        inputs = [self.dram.find(value, self.orders[group.output]) for value in node.inputs]
        parts = pieces(self.dram.place(group.output), axis, inputs)
        moves = [
            _Move(value, source, group.output, part)
            for value, source, part in zip(node.inputs, inputs, parts, strict=True)
            if part is not None and part != source
        ]
        copies = self._moves(node, node.nodes, moves) if None not in parts else None
        self.layers += copies or []
        return copies is not None

    def _layer(self, group: Group) -> bool:
        """A layer on the array, with as few words copied first as its rule demands."""
        names = rules.operands(self.graph, group)
        lie: Layouts = {role: self._operand(group, role, name) for role, name in names.items()}
        movable: list[Role] = [role for role, name in names.items() if not self.graph.value(name).constant]
        for roles in _by_words(movable, lie):
            copies: _Copies = {role: self.dram.copied(names[role], self._order(group, names[role])) for role in roles}
            trial: Layouts = {role: copies[role][0] if role in copies else layout for role, layout in lie.items()}
            made = rules.draft(self.graph, group, trial)
            if made is not None and self._run(group, made, names, lie, copies):
                return True
        return False

    def _operand(self, group: Group, role: Role, value: str) -> Layout:
        return self.dram.place(value) if role == "output" else self.dram.find(value, self._order(group, value))

    def _order(self, group: Group, value: str) -> Order:
        """How an operand that has a choice lies best for a group: as its operator wants, or as the output does."""
        wanted = preferred(self.graph, group.main, value)
        if wanted is not None:
            return wanted
        order = self.orders[group.output]
        missing = len(order) - len(self.graph.value(value).shape)
        return tuple(axis - missing for axis in order if axis >= missing)

    def _run(self, group: Group, made: Draft, names: Mapping[Role, str], lie: Layouts, copies: _Copies) -> bool:
        """Adds a layer between the copies that it needs, unless one of them is impossible."""
        before = {
            target.tensor: _Move(names[role], lie[role], target.tensor, target)
            for role, (target, done) in copies.items()
            if role != "output" and not done
        }
        after = [_Move(t.tensor, t, names[role], lie[role]) for role, (t, _) in copies.items() if role == "output"]
        moves = self._moves(group.main, (), [*before.values(), *after])
        if moves is None:
            return False
        values = dict(names)
        for role, (target, _) in copies.items():
            self.dram.keep(names[role], self._order(group, names[role]), target)
            values[role] = target.tensor
        layer = assemble(self.graph, self.dram, group, made, values)
        self.layers += [*moves[: len(before)], layer, *moves[len(before) :]]
        return True

    def _moves(self, node: Node, covers: tuple[str, ...], moves: Sequence[_Move]) -> list[Layer] | None:
        """Copies as layers, named after the node that needs them; None if one of them is impossible."""
        out: list[Layer] = []
        for i, move in enumerate(moves):
            made = rules.copy(move.source, move.target)
            if made is None:
                return None
            out.append(copy_layer(f"{node.name}:copy{i}", covers, made, {"input": move.value, "output": move.into}))
        return out


def _by_words(roles: Sequence[Role], lie: Layouts) -> list[tuple[Role, ...]]:
    """Every choice of operands to copy, those of the fewest words first."""
    choices = [choice for size in range(len(roles) + 1) for choice in combinations(roles, size)]
    return sorted(choices, key=lambda choice: sum(prod(lie[role].shape) for role in choice))
