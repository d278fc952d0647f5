"""Hypothesis strategies of the domain: windows, layers, small machines, and legal schedules of a layer on a machine.

Shapes keep to small extents, where corners are frequent: ragged tiles, groups, dilation, asymmetric padding, strides
over the kernel, windows of nothing but padding, fused pools, broadcast operands, gaps between rows in DRAM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from hypothesis import assume
from hypothesis import strategies as st

from dnnc.axis import Cut, cuts, halo, pool_steps
from dnnc.layer import Layer, Operand, Shape, dense_axes
from dnnc.schedule import Deal, Dim, Pin, Schedule, deals
from dnnc.space import locate
from dnnc_runtime.machine import Dram, Level, Machine, Memory, Mode
from dnnc_runtime.program import Activation, Kernel, Pool, Role, Window
from dnnc_runtime.tensor import View

FUSES = frozenset({"bias", "scale", "activation", "residual", "max_pool", "average_pool"})
ACTIVATIONS = (Activation("Relu"), Activation("Clip", (-1.0, 1.0)), Activation("Sigmoid"), Activation("PRelu"))
MODES = {
    "combined": ("y", "k", "c"),
    "cooperative": ("k", "k", "c"),
    "independent": ("y", "k", "k"),
    "planes": ("k", "k", "k"),
    "groups": ("g", "k", "c"),
    "groups inside": ("y", "g", "k"),
}
PLENTY = 1 << 24
"""Bytes of a memory that no layer here fills."""


@dataclass(frozen=True, slots=True)
class Case:
    """A layer, a machine, and a schedule that is legal there."""

    layer: Layer
    machine: Machine
    schedule: Schedule


# -- windows and shapes -----------------------------------------------------------------------------------------------


@st.composite
def windows(draw: st.DrawFn, largest: int = 9, kernels: tuple[int, ...] = (1, 1, 2, 3, 3, 5)) -> Window:
    """Any window; outputs may lie in the padding altogether."""
    size, kernel = draw(st.integers(1, largest)), draw(st.sampled_from(kernels))
    stride, dilation = draw(st.sampled_from((1, 1, 2, 3, 4))), draw(st.sampled_from((1, 1, 2)))
    most = min((kernel - 1) * dilation, 3)
    pad, after = draw(st.integers(0, most)), draw(st.integers(0, most))
    reach = (kernel - 1) * dilation + 1
    if reach > size + pad + after:
        size = reach - pad - after
    return Window(size, (size + pad + after - reach) // stride + 1, kernel, stride, dilation, pad, after)


@st.composite
def overlapping(draw: st.DrawFn) -> Window:
    """Windows that slide by less than they reach, over enough rows to be shared out."""
    kernel, size = draw(st.sampled_from((2, 3, 4))), draw(st.integers(5, 12))
    stride, pad = draw(st.integers(1, kernel - 1)), draw(st.integers(0, 1))
    return Window(size, (size + pad - kernel) // stride + 1, kernel, stride, 1, pad, 0)


@st.composite
def touching(draw: st.DrawFn, window: st.SearchStrategy[Window]) -> Window:
    """Windows of which every output touches some input: a pool's."""
    made = draw(window)
    assume(all(made.touched(o, o) for o in range(made.out)))
    return made


@st.composite
def _pool_axis(draw: st.DrawFn, size: int) -> Window:
    kernel = draw(st.integers(1, min(3, size)))
    pad, after = draw(st.integers(0, kernel - 1)), draw(st.integers(0, kernel - 1))
    stride = draw(st.integers(1, 3))
    return Window(size, (size + pad + after - kernel) // stride + 1, kernel, stride, 1, pad, after)


@st.composite
def pools(draw: st.DrawFn, y: Window, x: Window) -> Pool:
    """A pool behind a convolution."""
    kind = draw(st.sampled_from(("max", "average")))
    return Pool(kind, draw(_pool_axis(y.out)), draw(_pool_axis(x.out)), draw(st.booleans()))


# -- layers -----------------------------------------------------------------------------------------------------------


@st.composite
def layers(draw: st.DrawFn, largest: int = 9, planes: int = 9) -> Layer:
    """A layer of either kind."""
    return draw(st.one_of(arrays(largest, planes), arrays(largest, planes), vectors(largest, planes)))


@st.composite
def arrays(
    draw: st.DrawFn, largest: int = 9, planes: int = 9, rows: st.SearchStrategy[Window] | None = None
) -> Layer:
    """A layer that multiplies and accumulates."""
    packed = rows is not None or draw(st.sampled_from((True, True, True, False)))
    y, x = draw(windows(largest) if rows is None else rows), draw(windows(largest - 2))
    if not packed:  # a product of activations
        y, x = Window(y.size, y.size), Window(1, 1)
    n, g = draw(st.sampled_from((1, 1, 1, 2, 3))), draw(st.sampled_from((1, 1, 1, 2, 3, 6)))
    k, c = draw(st.integers(1, planes)), draw(st.integers(1, planes))
    pool = draw(pools(y, x)) if draw(st.integers(0, 2)) == 0 else None
    activation = draw(st.none() | st.sampled_from(ACTIVATIONS))
    shape = Shape("array", n, g, k, c, y, x, pool=pool, packed=packed)
    roles: list[Role] = ["input", "weights"]
    roles += [role for role in ("bias", "residual") if draw(st.booleans())]
    return draw(_placed(shape, Kernel("conv", y, x, activation, pool), roles))


@st.composite
def vectors(draw: st.DrawFn, largest: int = 9, planes: int = 9) -> Layer:
    """A pool, an elementwise operation, a copy or a padding, as a layer of its own."""
    operation = draw(st.sampled_from(("pool", "pool", "add", "sub", "mul", "scale", "identity")))
    n, k = draw(st.sampled_from((1, 1, 2, 3))), draw(st.integers(1, planes))
    activation = draw(st.none() | st.sampled_from(ACTIVATIONS))
    roles: list[Role] = ["input"]
    pool, second, fill = None, None, 0.0
    if operation == "pool":
        y, x = draw(touching(windows(largest))), draw(touching(windows(largest - 2)))
        pool = Pool(draw(st.sampled_from(("max", "average"))), y, x, draw(st.booleans()))
    elif operation == "identity":
        y, x, fill = draw(_padded(largest)), draw(_padded(largest - 2)), draw(st.sampled_from((0.0, 1.5)))
    else:
        y, x = (Window(e, e) for e in (draw(st.integers(1, largest)), draw(st.integers(1, largest - 2))))
    if operation == "scale":
        roles += ["scale", "bias"]
    elif operation in ("add", "sub", "mul"):
        roles += ["second"]
        second = (draw(st.booleans()), draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))
    shape = Shape("vector", n, 1, k, 1, y, x, second=second)
    return draw(_placed(shape, Kernel(operation, y, x, activation, pool, fill), roles))


@st.composite
def _padded(draw: st.DrawFn, largest: int) -> Window:
    """A copy's axis, padded or not."""
    size, pad, after = draw(st.integers(1, largest)), draw(st.sampled_from((0, 0, 1, 3))), draw(st.sampled_from((0, 0, 2)))
    return Window(size, size + pad + after, pad=pad, pad_after=after)


@st.composite
def _placed(draw: st.DrawFn, shape: Shape, kernel: Kernel, roles: list[Role]) -> Layer:
    """The layer of these operands, each in a tensor of its own, some with gaps between rows, pixels or channels."""
    if kernel.activation and kernel.activation.name == "PRelu":
        roles = [*roles, "slope"]
    parameters = sum(role in PARAMETERS for role in roles)
    shape = replace(shape, parameters=parameters, residual="residual" in roles)
    operands: list[Operand] = []
    for role in (*roles, "output"):
        gap = draw(st.sampled_from((0, 0, 0, 1, 2, 3, 4, 5))) if role in MAPS or not _constant(role, shape) else 0
        operands.append(Operand(role, role, strided(role, extents(shape)[role], gap)))
    return located(shape, kernel, tuple(operands))


def located(shape: Shape, kernel: Kernel, operands: tuple[Operand, ...]) -> Layer:
    """The layer whose shape says how its operands lie."""
    dense = tuple((o.role, dense_axes(o.view)) for o in operands if o.role in MAPS or not _constant(o.role, shape))
    return Layer("layer", kernel.operation, ("layer",), replace(shape, dense=dense), kernel, operands)


PARAMETERS: tuple[Role, ...] = ("bias", "scale", "slope")
MAPS: tuple[Role, ...] = ("input", "second", "residual", "output")


def _constant(role: Role, shape: Shape) -> bool:
    return role in PARAMETERS or (role == "weights" and shape.packed)


def constants(layer: Layer) -> tuple[Role, ...]:
    """The operands known at compile time."""
    return tuple(o.role for o in layer.operands if _constant(o.role, layer.shape))


def extents(s: Shape) -> dict[Role, tuple[int, ...]]:
    """Extents of every operand that a layer of this shape may have."""
    has = s.second or (False, False, False, False)
    n, y, x, k = (e if mine else 1 for e, mine in zip((s.n, s.y.out, s.x.out, s.k), has, strict=True))
    return {
        "input": (s.n, s.y.size, s.x.size, s.g, s.c if s.kind == "array" else s.k),
        "weights": (s.g, s.k, s.y.kernel, s.x.kernel, s.c),
        "residual": (s.n, s.y.out, s.x.out, s.g, s.k),
        "second": (n, y, x, 1, k),
        "output": (s.n, s.out_rows, s.out_columns, s.g, s.k),
        "bias": (s.g, s.k), "scale": (s.g, s.k), "slope": (s.g, s.k),
    }  # fmt: skip


def strided(tensor: str, shape: tuple[int, ...], gap: int = 0) -> View:
    """A view with room for one more on axis ``-gap`` (none on axis 0): every axis outside it has a gap."""
    room = [size + (a == len(shape) - gap) for a, size in enumerate(shape)]
    strides = tuple(prod(room[a + 1 :]) * (2 if gap == 1 and len(shape) == 5 else 1) for a in range(len(shape)))
    return View(tensor, 0, shape, strides)


# -- machines ---------------------------------------------------------------------------------------------------------


@st.composite
def machines(
    draw: st.DrawFn, sizes: tuple[int, ...] = (PLENTY,), modes: tuple[str, ...] = tuple(MODES), most: int = 2
) -> Machine:
    """A small array: one to four units a level, memories here or there, words of 8 or 16 bits.

    Args:
        sizes: bytes that a memory may have.
        modes: names of the modes that it may have, and how many at ``most``.
    """
    names = draw(st.lists(st.sampled_from(modes), min_size=1, max_size=most, unique=True))
    word = draw(st.sampled_from((16, 16, 8)))
    memories = tuple(Memory(f"m{i}", level, draw(st.sampled_from(sizes))) for i, level in enumerate((0, 1, 0)))
    maps, weights, parameters = draw(st.sampled_from(((0, 1, 0), (0, 1, 1), (0, 0, 0), (0, 2, 2), (1, 1, 1))))
    homes = {"weights": weights, "parameters": parameters, "second": draw(st.sampled_from((maps, parameters)))}
    roles = ("input", "second", "weights", "parameters", "residual", "output", "partial_sums")
    return Machine(
        name="random",
        description="",
        clock_hz=250e6,
        word_bits=word,
        fraction_bits=word // 2,
        accumulator_bits=draw(st.sampled_from((2, 4))) * word,
        channel_granularity=draw(st.sampled_from((1, 1, 2, 4))),
        levels=tuple(
            Level(name, draw(st.sampled_from((2, 3, 1, 4))), spreads)
            for name, spreads in (("outer", ("k", "y", "g")), ("inner", ("k", "g")), ("lane", ("k", "c")))
        ),
        memories=memories,
        roles=tuple((role, f"m{homes.get(role, maps)}") for role in roles),
        modes=tuple(Mode(name, MODES[name]) for name in names),
        dram=Dram(4.2e9, draw(st.sampled_from((4, 16, 64))), 4096, "NHWC"),
        fuses=FUSES,
        units_can_send=draw(st.sampled_from((True, True, False))),
        pool_comparisons_per_cycle=draw(st.sampled_from((1, 16))),
    )


# -- schedules --------------------------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A layer, a schedule, and a machine whose memories it fills to the last word."""
    layer, machine = draw(layers()), draw(machines())
    schedule = draw(schedules(layer.shape, machine))
    return Case(layer, fitted(layer.shape, machine, schedule), schedule)


@st.composite
def sharing_cases(draw: st.DrawFn) -> Case:
    """The same of convolutions whose units share rows: most have rows moved over, or tiles pinned."""
    layer, machine = draw(arrays(rows=overlapping())), draw(machines(modes=("combined", "independent", "groups inside")))
    schedule = draw(schedules(layer.shape, machine))
    return Case(layer, fitted(layer.shape, machine, schedule), schedule)


def fitted(shape: Shape, machine: Machine, schedule: Schedule) -> Machine:
    """The machine with memories of exactly the bytes that a schedule uses."""
    model, tiles = locate(shape, machine, schedule)
    for name, used in model.memory(tiles).items():
        machine = machine.with_memory(name, max(int(used), machine.word_bytes))
    return machine


@st.composite
def schedules(draw: st.DrawFn, shape: Shape, machine: Machine) -> Schedule:
    """A schedule that is legal where memories are large enough: any cut, order, buffering, halo and pin."""
    found = deals(shape, machine)
    assume(found)
    deal = draw(st.sampled_from(found))
    y, move = draw(_row_cuts(shape, machine, deal))
    x = draw(st.sampled_from(cuts(shape.x, 1, draw(_styles()))[: 1 if shape.pool else None]))
    planes = deal.granules(shape, machine)
    k, c, g = (draw(_tile_sizes(total, planes[d])) for d, total in _totals(shape))
    k = shape.k if deal.joint else k
    buffers = draw(st.tuples(*[st.sampled_from((1, 1, 2))] * 3))
    follow = shape.parameters > 0 and draw(st.booleans())
    bare = Schedule(deal.mode, y, x, k, c, g, (), draw(st.booleans()), move, buffers, None, follow)
    trips = bare.trips(shape)
    order = tuple(draw(st.permutations([d for d, n in trips.items() if n > 1])))
    options = pins(shape, order, move)
    pin = None
    if options and draw(st.sampled_from((True, True, False))):
        operand, loop, dim = draw(st.sampled_from(options))
        pin = Pin(operand, loop, dim, draw(st.integers(1, trips[dim] - 1)))  # type: ignore[arg-type]
    return replace(bare, order=order, pin=pin)


def pins(shape: Shape, order: tuple[Dim, ...], move: bool) -> list[tuple[str, Dim, Dim]]:
    """(operand, loop, dim): the loop re-reads the operand, whose tiles along a loop inside it may be pinned."""
    if shape.kind == "vector":
        return []
    rows = [("weights", loop, dim) for loop in "yx" for dim in "kcg"]
    if not move:
        rows += [("input", "k", dim) for dim in "yxcg"]
    return [
        (operand, loop, dim)  # type: ignore[misc]
        for operand, loop, dim in rows
        if loop in order and dim in order and order.index(loop) < order.index(dim)  # type: ignore[arg-type]
    ]


def _styles() -> st.SearchStrategy[str]:
    return st.sampled_from(("footprint", "footprint", "uniform"))


def _totals(shape: Shape) -> tuple[tuple[Dim, int], ...]:
    return ("k", shape.k), ("c", shape.c), ("g", shape.g)


@st.composite
def _tile_sizes(draw: st.DrawFn, total: int, granule: int) -> int:
    """Multiples of the granule mostly; any size that a user might ask for."""
    if draw(st.integers(0, 3)):
        return min(total, granule * draw(st.integers(1, -(-total // granule))))
    return draw(st.integers(1, total))


@st.composite
def _row_cuts(draw: st.DrawFn, shape: Shape, machine: Machine, deal: Deal) -> tuple[Cut, bool]:
    cut = draw(st.sampled_from(cuts(shape.y, deal.rows, draw(_styles()))))
    steps = pool_steps(shape.pool.y, cut) if shape.pool else None
    assume(shape.pool is None or (steps is not None and (machine.units_can_send or not steps.heads)))
    sends = machine.units_can_send and deal.rows > 1 and halo(shape.y, cut, True) is not None
    return cut, sends and draw(st.sampled_from((True, True, False)))
