"""What people read of a plan and of a machine: tables and lines, with the unit beside every number.

MB are 10^6 bytes, KiB are 1024. Bytes are DRAM payload unless a line says that they are on the bus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from dnnc.chip import Chip
from dnnc.grid import Grid
from dnnc.layer import HostLayer, Layer, Shape
from dnnc.performance import CLOSE, Performance, closed_forms, frames_per_second, performances, total
from dnnc.plan import TRAFFIC_ROLES, LayerPlan, Plan
from dnnc.realize import Realized
from dnnc.schedule import Schedule
from dnnc.search import Proof
from dnnc.segments import SCOPES, Best, Scope
from dnnc.summary import groups, layerwise_cycles, tile_sizes
from dnnc_runtime.machine import Machine, Memory
from dnnc_runtime.program import Window
from dnnc_runtime.time_shares import SHARES
from dnnc_runtime.timeline import Timing

LEGEND = (
    "output: k x y x x of one image, before a fused pool (1x1 kernels may have all pixels in y);"
    " c: input channels per group",
    "loops: outermost first, loop:trips x largest tile; factor: of the compulsory bytes;"
    " proof: what shows that no schedule is better",
    "strips: the layers of a group run in turn, some rows at a time, and hand rows on without DRAM: such a layer may"
    " move less than its compulsory bytes",
)
"""Explains the columns of the table of layers."""


def megabytes(count: int) -> str:
    """Bytes as MB, to the thousandth; what is less but not nothing is shown as such."""
    return "<0.001" if 0 < count < 500 else f"{count / 1e6:,.3f}"


def capacity(count: int) -> str:
    """A size as KiB (or MiB) where it is whole ones, else as bytes."""
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count and count % size == 0:
            return f"{count // size:,} {unit}"
    return f"{count:,} B"


def factor(count: int, of: int) -> str:
    """How many times so many bytes are."""
    return f"{count / of:.4f}" if of else "-"


def percent(part: float, whole: float) -> str:
    """A share in per cent."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


# -- layers --------------------------------------------------------------------------------------------------------


def layers_grid(plan: Plan, timing: Timing | None = None, made: Realized | None = None) -> Grid:
    """A line for each layer of the array: what it is, its schedule, its bytes, the proof and its time.

    Args:
        timing: without it, the time is that of the closed form.
        made: the plan made concrete, for the modes of layers that run by strips.
    """
    headings: tuple[str, ...] = (
        *("layer", "operator", "output", "c", "kernel", "mode", "loops", "DRAM MB", "factor", "proof"),
    )
    how = runs(plan, made)
    rows: list[tuple[str, ...]] = [_layer_row(layer, *how[layer.name]) for layer in plan.on_array]
    text = {"layer", "operator", "output", "kernel", "mode", "loops", "proof", "bound by"}
    times = performances(plan, timing) if timing else closed_forms(plan)
    spent = [times[layer.name] for layer in plan.on_array]
    headings += ("ms" if timing else "ms closed form",)
    rows = [(*row, f"{1e3 * of.seconds:.3f}") for row, of in zip(rows, spent, strict=True)]
    if timing:
        headings += ("bound by",)
        rows = [(*row, of.shares.bound) for row, of in zip(rows, spent, strict=True)]
    return Grid(headings, tuple(rows), frozenset(text), frozenset({"layer", "loops"}))


def runs(plan: Plan, made: Realized | None = None) -> Mapping[str, tuple[str, str]]:
    """By name the mode and the loops, or the strips, of every layer; a dash for a mode that is not known."""
    how = {layer.name: (layer.schedule.mode, loops(layer.schedule, layer.layer.shape)) for layer in plan.on_array}
    for nest in made.lives.nests.values() if made else ():
        how[nest.layer.name] = nest.schedule.mode, loops(nest.schedule, nest.layer.shape)
    known: Mapping[str, str] = modes(made) if made else {}
    for group in groups(plan):
        count = " x ".join(str(len(of)) for of in (group.rows, group.columns) if of)
        strips = f"strips {count} of group {group.number}"
        how.update({name: (known.get(name, "-"), strips) for name in group.layers})
    return how


def modes(made: Realized) -> Mapping[str, str]:
    """By name the mode of every layer that runs by strips; that of its main operation, where a pool is fused."""
    found: dict[str, str] = {}
    for kernels in made.kernels:
        for number, of in kernels.items():
            if number == made.steps.at[made.steps.steps[number].position][0]:
                found[of.layer.name] = of.cut.deal.mode
    return found


def _layer_row(plan: LayerPlan, mode: str, how: str) -> tuple[str, ...]:
    shape, dram = plan.layer.shape, plan.figures.dram_bytes
    return (
        plan.name,
        operator(plan),
        *_extents(shape),
        mode,
        how,
        megabytes(dram),
        factor(dram, plan.compulsory_bytes),
        layer_proof(plan),
    )


def _extents(shape: Shape) -> tuple[str, str, str]:
    """Output, input channels and kernel."""
    channels = str(shape.c) if shape.kind == "array" else "-"
    return f"{shape.g * shape.k}x{shape.y.out}x{shape.x.out}", channels, kernel(shape)


def operator(plan: LayerPlan) -> str:
    """The main node's operator and what is fused behind it; a bias goes without saying."""
    fused = (_FUSED.get(name, name) for name in plan.fused if name != "bias")
    return "+".join([plan.layer.operator, *fused])


_FUSED = {"residual": "add", "max_pool": "max", "average_pool": "avg"}


def kernel(shape: Shape) -> str:
    """Kernel, stride, dilation and groups: 3x3/2 g32; a dash where there is one tap."""
    y, x = shape.y, shape.x
    words = [f"{y.kernel}x{x.kernel}{_pair('/', y.stride, x.stride)}{_pair('*', y.dilation, x.dilation)}"]
    if shape.g > 1:
        words.append(f"g{shape.g}")
    return "-" if words == ["1x1"] and shape.kind == "vector" else " ".join(words)


def _pair(sign: str, y: int, x: int) -> str:
    if y == x == 1:
        return ""
    return f"{sign}{y}" if y == x else f"{sign}{y}x{x}"


def loops(schedule: Schedule, shape: Shape) -> str:
    """The tile loops, outermost first, each with its trips and its largest tile."""
    trips, sizes = schedule.trips(shape), tile_sizes(schedule)
    return " ".join(f"{d}:{trips[d]}x{sizes[d]}" for d in schedule.order) or "one tile"


def layer_proof(plan: LayerPlan) -> str:
    """The proof of a layer's schedule; a dash where it runs by strips, which are the plan's."""
    return "-" if plan.alone else proof_word(plan.proof)


def proof_word(proof: Proof) -> str:
    """The proof in a word, or how far it is from one."""
    word = {"lower bound": "bound", "enumeration": "search"}.get(proof.method, proof.method)
    return word if proof.status == "optimal" else f"gap {100 * proof.gap:.2g} %"


def proof_sentence(proof: Proof) -> str:
    """The proof in a sentence."""
    figure, bound = f"{proof.value:,} {proof.quantity}", f"{proof.bound:,}"
    if proof.status != "optimal":
        best = f"not proven: {figure} found"
        left = f"no schedule takes fewer than {bound}, a gap of {100 * proof.gap:.3g} %"
        return f"{best}; {left}{_solved(proof)}"
    return _PROVEN[proof.method].format(figure=figure, bound=f"{bound} {proof.quantity}") + _solved(proof)


_PROVEN: Mapping[str, str] = {
    "lower bound": "optimal: {figure} meet a lower bound that holds for every schedule",
    "cp-sat": "optimal: CP-SAT proved that no schedule of the space takes fewer than {figure}",
    "enumeration": "optimal: every schedule that the objective allows was looked at, and none takes fewer than {bound};"
    " among those near it the timeline decided",
}


def _solved(proof: Proof) -> str:
    if not proof.solver:
        return ""
    return f" ({proof.solver}, seed {proof.seed}, {proof.deterministic_time:.3g} deterministic s)"


def work_grid(layers: Iterable[Layer]) -> Grid:
    """A line for each layer of the array before it has a schedule: what it is, and the nodes it covers."""
    headings = ("on the array", "operator", "output", "c", "kernel", "nodes")
    rows = tuple((layer.name, layer.operator, *_extents(layer.shape), ", ".join(layer.nodes)) for layer in layers)
    text = frozenset({"on the array", "operator", "output", "kernel", "nodes"})
    return Grid(headings, rows, text, frozenset({"on the array", "nodes"}))


# -- totals and hosts ----------------------------------------------------------------------------------------------


def totals_lines(plan: Plan, timing: Timing | None = None) -> tuple[str, ...]:
    """A plan's sums: bytes read and written, against their bounds, on the bus, on the host; work and time.

    Args:
        timing: without it, the time is that of the closed form.
    """
    t, machine = plan.totals, plan.machine
    against = (("compulsory", t.compulsory_bytes), ("lower bound", t.lower_bound_bytes))
    factors = ", ".join(f"{factor(t.dram_bytes, of)} x {name} ({megabytes(of)} MB)" for name, of in against)
    moved = f"{megabytes(t.dram_read_bytes)} MB read + {megabytes(t.dram_write_bytes)} MB written"
    facts = [
        ("DRAM", f"{megabytes(t.dram_bytes)} MB = {moved}"),
        ("", factors + (" of the layers by themselves" if plan.network else "")),
        *plan_lines(plan),
        ("on bus", f"{megabytes(t.bus_bytes)} MB in bursts of {machine.dram.burst_bytes} B"),
        ("work", f"{t.macs / 1e9:,.3f} GMAC; {t.valid_ops / 1e9:,.3f} Gop where padding is not multiplied"),
        *_time_lines(plan, timing),
    ]
    if plan.on_host:
        host = f"{megabytes(t.host_bytes)} MB read and written by {plural(len(plan.on_host), 'node')}, not timed"
        facts.append(("host", host))
    return tuple(f"{name:<10} {fact}" for name, fact in facts)


def plan_lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """The bytes of the plan, and of the best ones that may do less; how far each is from its bound."""
    network = plan.network
    if network is None:
        why = Chip(plan.machine).why
        if why:
            yield "plan", f"layer by layer: {why}"
        return
    mine = network.best[network.scope]
    yield "plan", f"{network.scope}: {megabytes(mine.bytes)} MB, {_minimal(plan, network.scope, mine)}"
    others: list[Scope] = [scope for scope in reversed(SCOPES) if scope in network.best and scope != network.scope]
    for word, scope in zip(("against", ""), others, strict=False):
        of = network.best[scope]
        less = f"this is {factor(mine.bytes, of.bytes)} x as much"
        yield word, f"{scope}: {megabytes(of.bytes)} MB, {_minimal(plan, scope, of)}; {less}"


def _minimal(plan: Plan, scope: Scope, best: Best) -> str:
    """Whether nothing of a scope moves fewer bytes, or how far the bound is."""
    if scope == "layerwise" and not all(_fewest(layer.proof) for layer in plan.on_array):
        return "every layer under its own schedule"
    if best.bound == best.bytes:
        return "proven minimal"
    gap = 100 * (best.bytes - best.bound) / best.bytes
    digits = f"{gap:.2g}" if gap < 99 else f"{gap:.0f}"
    return f"at most {digits} % from the least ({megabytes(best.bound)} MB)"


def _fewest(proof: Proof) -> bool:
    return proof.status == "optimal" and proof.quantity == "bytes"


def _time_lines(plan: Plan, timing: Timing | None) -> Iterator[tuple[str, str]]:
    """The time in the timeline, what it is spent on, and how far the closed form and the least that it could be are."""
    by_layer = performances(plan, timing) if timing else closed_forms(plan)
    of = total(plan, by_layer.values())
    frames = frames_per_second(plan, of)
    rates = f"{frames:,.1f}" if frames >= 0.1 else f"{frames:.2g}"
    rates += f" frames/s, {of.ops_per_second / 1e9:,.1f} Gop/s"
    took = f"{of.cycles:,.0f} cycles = {1e3 * of.seconds:,.2f} ms at {plan.machine.clock_hz / 1e6:g} MHz"
    yield "time", f"{took}: {rates}" if timing else f"in closed form {took}: {rates}"
    yield "", f"efficiency {100 * of.efficiency:.1f} %, DRAM {of.bytes_per_second / 1e9:.2f} GB/s"
    if timing:
        yield from zip(("spent", *[""] * len(SHARES)), shares_lines(of), strict=False)
        far = sum(abs(layer.off) > CLOSE for layer in by_layer.values())
        form = f"{of.closed_form:,} cycles ({100 * of.off:+.2f} %), {plural(far, 'layer')} off by more than 2 %"
        yield "predicted", f"in closed form {form}"
    what = "plan" if plan.network else "schedule"
    yield "", f"no {what} is faster than {of.floor:,} cycles: this takes {factor(int(of.cycles), of.floor)} x as long"
    if plan.network:
        yield "", layer_by_layer(plan, of)


def layer_by_layer(plan: Plan, of: Performance) -> str:
    """The time of every layer under its own schedule, and how many times that a plan takes."""
    own = layerwise_cycles(plan)
    alone = f"layer by layer, {own:,} cycles in closed form = {1e3 * own / plan.machine.clock_hz:,.2f} ms"
    return f"{alone}: this takes {of.cycles / own if own else 0:.4f} x as long"


def shares_lines(of: Performance) -> list[str]:
    """What a time is spent on, in percent, the largest share first; less than 0.05 % is left out."""
    shares = {name: getattr(of.shares, name) for name in SHARES}
    spent = sorted(((value, _SHARE.get(name, name)) for name, value in shares.items()), reverse=True)
    parts = [f"{name} {percent(value, of.cycles)}" for value, name in spent if value >= of.cycles / 2000 > 0]
    return [", ".join(parts[first : first + 4]) for first in range(0, len(parts), 4)]


_SHARE = {
    "idle_units": "units idle",
    "idle_planes": "passes not full",
    "idle_traces": "traces not full",
    "first_load": "first loads",
    "dram": "waiting for DRAM",
    "on_chip": "waiting for pools and moves",
    "last_store": "last stores",
}


def verdict(plan: Plan) -> str:
    """What was minimised on what, and whether that is proven of every layer."""
    proven = sum(layer.proof.status == "optimal" for layer in plan.on_array)
    count = len(plan.on_array)
    word = "all proven optimal" if proven == count else f"{proven} proven optimal, {count - proven} not"
    found = groups(plan)
    if plan.network:
        inside = sum(len(group.layers) for group in found)
        word += f" by themselves; {inside:,} of them in {plural(len(found), 'group')}" if found else " by themselves"
    return f"{plan.machine.name}, objective {plan.objective}: {plural(count, 'layer')} on the array, {word}"


def traffic_grid(plan: Plan) -> Grid:
    """Bytes by role, read and written, over all layers of the array."""
    moved = [layer.traffic for layer in plan.on_array]
    sums = {role: [sum(traffic[role][way] for traffic in moved) for way in (0, 1)] for role in TRAFFIC_ROLES}
    rows = tuple((_spaced(role), megabytes(r), megabytes(w)) for role, (r, w) in sums.items() if r or w)
    return Grid(("DRAM bytes", "read MB", "written MB"), rows, frozenset({"DRAM bytes"}))


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def host_grid(layers: Iterable[HostLayer]) -> Grid:
    """The nodes that the array does not run, with the reason of each."""
    headings = ("on the host", "operator", "read MB", "written MB", "because")
    rows = tuple((h.name, h.operator, megabytes(h.read_bytes), megabytes(h.write_bytes), h.reason) for h in layers)
    text = frozenset({"on the host", "operator", "because"})
    return Grid(headings, rows, text, frozenset({"on the host", "because"}))


def html_table(plan: Plan, timing: Timing | None = None) -> str:
    """A plan for a notebook: verdict, totals and the table of layers as HTML."""
    lines = (verdict(plan), *totals_lines(plan, timing))
    grids = [layers_grid(plan, timing), *([host_grid(plan.on_host)] if plan.on_host else [])]
    return f"<pre>{escape(chr(10).join(lines))}</pre>" + "".join(grid.html() for grid in grids)


# -- machines ------------------------------------------------------------------------------------------------------


def machine_lines(machine: Machine) -> tuple[str, ...]:
    """Every figure of a machine."""
    levels, dram, macs = machine.levels, machine.dram, machine.macs_per_cycle
    words = f"Q{machine.word_bits - machine.fraction_bits}.{machine.fraction_bits} in {machine.word_bits} bits"
    facts = [
        ("array", " x ".join(f"{level.count} {level.name}" for level in levels) + f" = {macs} MAC"),
        ("clock", f"{machine.clock_hz / 1e6:g} MHz, {macs * machine.clock_hz / 1e9:g} GMAC/s at most"),
        ("words", f"{words}, sums in {machine.accumulator_bits} bits"),
        *((f"{m.name} memory", _memory(machine, m)) for m in machine.memories),
        *((f"mode {m.name}", _spread(m.spread, [level.name for level in levels])) for m in machine.modes),
        ("DRAM", f"{dram.bytes_per_second / 1e9:g} GB/s, bursts of {dram.burst_bytes} B, transfers up to "
                 f"{capacity(dram.longest_transfer_bytes)}, maps as {dram.layout}"),
        ("channels", f"in multiples of {machine.channel_granularity}"),
        ("fuses", ", ".join(map(_spaced, sorted(machine.fuses))) or "nothing"),
        ("pools", f"{plural(machine.pool_comparisons_per_cycle, 'comparison')} a cycle"),
        ("units", _sending(machine)),
    ]  # fmt: skip
    width = max(len(name) for name, _ in facts)
    return (f"{machine.name}: {machine.description}", *(f"  {name:<{width}}  {fact}" for name, fact in facts))


def _sending(machine: Machine) -> str:
    if not machine.units_can_send:
        return "cannot send to each other"
    return f"can send to each other, {plural(machine.words_sent_per_cycle, 'word')} a cycle"


def _memory(machine: Machine, memory: Memory) -> str:
    many = machine.instances(memory)
    size = capacity(memory.bytes)
    if many > 1:
        size = f"{many} x {size} = {capacity(many * memory.bytes)}"
    roles = ", ".join(_spaced(role) for role, name in machine.roles if name == memory.name)
    return f"{size}, one in every {machine.levels[memory.level].name}; holds {roles or 'nothing'}"


def _spread(spread: Sequence[str], levels: Sequence[str]) -> str:
    return ", ".join(f"{dim} over {level}" for dim, level in zip(spread, levels, strict=True))


def window_text(window: Window) -> str:
    """One axis of a sliding window in words, what is not the rule only."""
    words = [f"{window.size} -> {window.out}", f"kernel {window.kernel}", f"stride {window.stride}"]
    words += [f"dilation {window.dilation}"] if window.dilation > 1 else []
    words += [f"padding {window.pad}+{window.pad_after}"] if window.pad or window.pad_after else []
    return ", ".join(words)
