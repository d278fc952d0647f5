"""Artifacts: a compilation as one JSON file, and its way back with every claim in it verified.

The file holds graph, machine, constraints, schedules and proofs, how layers run together, and what that implies;
``artifact.schema.json`` is its JSON Schema. Loading works out again all that follows, and compares: layers, legality,
rows on chip, bytes, the walk of the program.
Weights stay in the model's file: :func:`attach` finds them there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import dnnc
from dnnc import documents
from dnnc.agreement import NOT_COUNTED, agree
from dnnc.chip import Chip
from dnnc.constraints import Constraints, loads
from dnnc.documents import Damaged
from dnnc.emit import emit
from dnnc.graph import Graph, Source
from dnnc.layer import HostLayer, Layer, Lowered
from dnnc.network_records import network_record, restore_network
from dnnc.pipeline import Compilation, Denied, fixed_layers, lower_with
from dnnc.plan import LayerPlan, Plan
from dnnc.planning import layer_plan
from dnnc.realize import Misfit, Realized, realize
from dnnc.records import (
    FORMAT,
    ConstraintsRecord,
    Document,
    LayerRecord,
    MachineRecord,
    ModelRecord,
    check_proof,
    layer_record,
)
from dnnc.replay import check_network
from dnnc.schedule_records import restore
from dnnc.search import COST_MODEL, Result
from dnnc.space import Limits, Space
from dnnc.steps import steps_of
from dnnc.together import alone_of, with_network
from dnnc_runtime import machine as machines
from dnnc_runtime.errors import Fault, UsageFault
from dnnc_runtime.machine import Machine

_T = TypeVar("_T")


# -- writing ----------------------------------------------------------------------------------------------------------


def save(compilation: Compilation, path: str | Path) -> None:
    """Write an artifact, all of it or nothing: equal compilations give equal bytes.

    Raises:
        UsageFault: the path cannot be written, or is the model's.
    """
    target, source = Path(path), compilation.graph.source
    _keep(target, [source.path] if source else [])
    writing(target, lambda: documents.write(target, documents.seal(_saved(compilation, target.parent))))


def check_output(path: str | Path, model: Path, *others: str | Path | None) -> None:
    """Find out, before the search, whether :func:`save` could write a path, and nothing that is read is lost by it.

    Args:
        path: of the artifact.
        model: path of the model, beside which more data may lie.
        others: paths of other files that are read; None, and names that are no files, are passed over.

    Raises:
        UsageFault: it could not.
    """
    if Path(path).exists():
        from dnnc.onnx_import import external_files

        _keep(Path(path), [model, *others, *external_files(model)])
    check_writable(path)


def _keep(path: Path, read: Iterable[str | Path | None]) -> None:
    """Refuse to write over one of these files, however it is called."""
    for file in read:
        if file and path.exists() and os.path.exists(file) and os.path.samefile(path, file):
            raise UsageFault(f"output {str(path)!r} is the file {str(file)!r}, which is read; choose another path")


def check_writable(path: str | Path, *read: str | Path) -> None:
    """Find out, before the work, whether a path can be written, and is no file that is read. Raises UsageFault."""
    _keep(Path(path), read)
    writing(Path(path), lambda: documents.check_writable(Path(path)))


def writing(path: Path, act: Callable[[], None]) -> None:
    """Write to a path; what the system says against it becomes a fault. Raises UsageFault."""
    try:
        act()
    except OSError as error:
        reason = error.strerror or error
        raise UsageFault(f"output {str(path)!r} cannot be written: {reason}; choose another path") from None


def _saved(compilation: Compilation, folder: Path) -> Document:
    c = compilation
    return _document(_model(c, folder), c.graph, c.plan, c.constraints, c.unfused, c.interrupted)


def _document(
    model: ModelRecord, graph: Graph, plan: Plan, rules: Constraints | None, unfused: Denied, interrupted: bool
) -> Document:
    machine = plan.machine
    return Document(
        format=FORMAT,
        dnnc=dnnc.__version__,
        cost_model=COST_MODEL,
        model=model,
        machine=MachineRecord(machine.name, machine.digest, machine.text),
        objective=plan.objective,
        constraints=ConstraintsRecord(Path(rules.source).name, rules.text) if rules else None,
        status=plan.status,
        interrupted=interrupted,
        totals=plan.totals,
        network=network_record(plan.network) if plan.network else None,
        unfused=tuple(sorted(unfused)),
        layers=tuple(map(layer_record, plan.on_array)),
        host_layers=plan.on_host,
        graph=str(graph),
    )


def _model(compilation: Compilation, folder: Path) -> ModelRecord:
    source = compilation.graph.source
    assert source, "a compiled graph comes from a model"
    shapes = dict(sorted(compilation.input_shapes.items()))
    path = _relative(source.path, folder) if source.path else None
    return ModelRecord(path, source.sha256, compilation.graph.opset(), shapes)


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


# -- reading ----------------------------------------------------------------------------------------------------------


def load(path: str | Path, walk: bool = True) -> Compilation:
    """The compilation that an artifact holds, verified; its constants have no data until :func:`attach`.

    Args:
        walk: walk the program. Without, whoever executes it has to hold its bytes against the plan's, as
            :func:`dnnc.numeric.verify` does: executing is walking, and once is enough.

    Raises:
        UsageFault: there is no such file, it was damaged or changed, or another version of dnnc wrote it.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UsageFault(f"artifact {str(path)!r} cannot be read: {error.strerror or error}") from None
    try:
        _check_format(str(path), documents.opened(text))
        return _compilation(documents.parse(Document, documents.unseal(text)), Path(path), walk)
    except Damaged as wrong:
        raise UsageFault(f"artifact {str(path)!r}: {wrong}; compile the model again") from None


def _check_format(path: str, members: Mapping[str, Any]) -> None:
    """Hold the format against ours, before anything else is understood."""
    found = members.get("format")
    if type(found) is not int:
        raise Damaged("it states no format, and so is no artifact of dnnc")
    if found > FORMAT:
        raise UsageFault(
            f"artifact {path!r}: is of format {found}, written by dnnc {members.get('dnnc')}; "
            f"this dnnc reads formats up to {FORMAT}: upgrade it, or compile the model again with it"
        )
    if found < FORMAT:
        raise Damaged(f"is of format {found}, which is no longer read")


def _compilation(document: Document, path: Path, walk: bool) -> Compilation:
    """Everything that a document implies, held against what it states."""
    if document.cost_model != COST_MODEL:
        versions = f"{document.cost_model!r}, this dnnc ({dnnc.__version__}) has {COST_MODEL!r}"
        raise Damaged(f"its bytes are those of cost model {versions}")
    rules = _constraints(document.constraints)
    machine = _sound("machine", lambda: machines.loads(document.machine.text, document.machine.name))
    graph = _sound("graph", lambda: _graph(document, path))
    unfused = frozenset(document.unfused)
    lowered = _sound("graph", lambda: lower_with(graph, machine, rules, unfused))
    layers = Plan(machine, document.objective, tuple(_planned(document, lowered, machine, rules)))
    plan, made = _together(document, lowered, layers, rules)
    # Before the program is made: whatever the file says, it is no longer than the figures are.
    found = _document(document.model, graph, plan, rules, unfused, document.interrupted)
    _compare(document, replace(found, dnnc=document.dnnc))
    program = emit(lowered, dict(plan.schedules), machine, made)
    counted = _sound("program", lambda: agree(plan, program)) if walk else NOT_COUNTED
    shapes = document.model.input_shapes
    return Compilation(graph, lowered, plan, made, rules, shapes, unfused, document.interrupted, program, counted)


def _sound(what: str, make: Callable[[], _T]) -> _T:
    """What ``make`` makes; its faults are the document's, for nobody writes these parts by hand."""
    try:
        return make()
    except Fault as fault:
        raise Damaged(f"{what}: {fault}") from None


def _constraints(stored: ConstraintsRecord | None) -> Constraints | None:
    return _sound("constraints", lambda: loads(stored.text, stored.source)) if stored else None


def _graph(document: Document, path: Path) -> Graph:
    """The graph, with the model's file as its source."""
    graph, model = Graph.parse(document.graph), document.model
    file = Path(os.path.normpath(path.parent / model.path)) if model.path else None
    loaders = {value.name: graph.constant_loader(value.name) for value in graph.values if value.constant}
    source = Source(file, model.sha256, _unattached)
    return Graph(
        graph.name, graph.inputs, graph.outputs, graph.nodes, graph.values, loaders, graph.opsets, source
    )  # fmt: skip


def _unattached() -> NoReturn:
    raise UsageFault("an artifact holds no weights; attach its model first (dnnc.artifact.attach)")


def _planned(
    document: Document, lowered: Lowered, machine: Machine, rules: Constraints | None
) -> Iterator[LayerPlan | HostLayer]:
    """Every layer with the schedule and the proof stored for it, both checked."""
    stored = {layer.name: layer for layer in document.layers}
    for layer in lowered.layers:
        if isinstance(layer, HostLayer):
            yield layer
        elif layer.name not in stored:
            raise Damaged(f"its graph has a layer {layer.name!r}, for which it has no schedule")
        else:
            limits = rules.for_layer(layer.name, machine, layer.shape) if rules else Limits()
            yield _checked(layer, Space(layer.shape, machine, limits), stored[layer.name])


def _checked(layer: Layer, space: Space, stored: LayerRecord) -> LayerPlan:
    try:
        schedule = restore(stored.schedule, space)
        plan = layer_plan(layer, space.machine, Result(schedule, stored.proof))
        check_proof(stored.proof, plan.figures, space)
    except Damaged as wrong:
        raise Damaged(f"layer {layer.name!r}: {wrong}") from None
    return plan


def _together(
    document: Document, lowered: Lowered, plan: Plan, rules: Constraints | None
) -> tuple[Plan, Realized | None]:
    """The layers as they run together, checked, with the figures that follow."""
    if document.network is None:
        return plan, None
    chip, alone = Chip(plan.machine), alone_of(plan)
    steps = steps_of(lowered, fixed_layers(lowered, plan.machine, rules))
    try:
        network = restore_network(document.network, steps, chip, alone)
        made = realize(steps, chip, network.segments, alone)
        if isinstance(made, Misfit):
            raise Damaged(f"{made.missing} bytes of what stays on chip find no place")
        whole = with_network(plan, network, made)
        check_network(whole, steps, chip, alone)
    except Damaged as wrong:
        raise Damaged(f"network: {wrong}") from None
    return whole, made


def _compare(stored: Document, found: Document) -> None:
    """Hold a document against the one that its own schedules give."""
    for mine, true in zip(stored.layers, found.layers, strict=False):
        if wrong := _difference(mine, true):
            raise Damaged(f"layer {mine.name!r}: {wrong}")
    if wrong := _difference(stored, found):
        raise Damaged(wrong)


def _difference(stored: Document | LayerRecord, found: Document | LayerRecord) -> str:
    """Which member of two records of a kind differs first, and how; "" where none does."""
    apart = documents.difference(stored, found)
    if apart is None:
        return ""
    where, mine, true = apart
    return f"states {where} {_short(mine)}, where it is {_short(true)}"


def _short(value: object) -> str:
    text = "absent" if value is documents.ABSENT else documents.canonical(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# -- weights ----------------------------------------------------------------------------------------------------------


def attach(compilation: Compilation, model: Any = None) -> Compilation:
    """A loaded compilation with the data of its constants, which lies in the model.

    Args:
        compilation: as :func:`load` gives it.
        model: path of the ONNX file, or a ModelProto, if it is not where the artifact says.

    Raises:
        UsageFault: the model is not there, or is not the one that was compiled.
    """
    from dnnc.onnx_import.walk import Import
    from dnnc.simplify import simplify

    where = _where(compilation, model)
    graph = simplify(Import(*_model_at(compilation, where), compilation.input_shapes).graph())
    if graph != compilation.graph:
        raise UsageFault(f"model {_name(where)} gives another graph than it did; compile the model again")
    lowered = lower_with(graph, compilation.machine, compilation.constraints, compilation.unfused)
    program = replace(compilation.program, constants=lowered.constants)
    return replace(compilation, graph=graph, lowered=lowered, program=program)


def _where(compilation: Compilation, model: Any) -> Any:
    """The model to attach, or its path."""
    source = compilation.graph.source
    assert source, "a compiled graph comes from a model"
    where = source.path if model is None else model
    if where is None:
        raise UsageFault("the artifact was compiled from a model that had no file; give the model (--model FILE)")
    if model is None and isinstance(where, Path) and not where.is_file():
        raise UsageFault(f"model {_name(where)} of the artifact is not there; say where it is (--model FILE)")
    return where


def _model_at(compilation: Compilation, where: Any) -> tuple[Any, Source]:
    """The model that is there, known by its digest, and where it came from."""
    from dnnc.onnx_import.reading import read

    source = compilation.graph.source
    assert source, "a compiled graph comes from a model"
    proto, found = read(where)
    digest = found.sha256 if source.path else read(proto)[1].sha256
    if digest != source.sha256:
        raise UsageFault(
            f"model {_name(where)} is not the one that was compiled: its sha256 is {digest[:12]}..., "
            f"that one's {source.sha256[:12]}...; compile the model again"
        )
    return proto, found


def _name(model: Any) -> str:
    return repr(str(model)) if isinstance(model, str | Path) else "given"
