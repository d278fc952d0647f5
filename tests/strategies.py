"""Hypothesis strategies of the domain: windows, layers, small machines, and legal schedules of a layer on a machine.

Shapes keep to small extents, where corners are frequent: ragged tiles, groups, dilation, asymmetric padding, strides
over the kernel, windows of nothing but padding, fused pools, broadcast operands, gaps between rows in DRAM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hypothesis import assume
from hypothesis import strategies as st

from dnnc.axis import Cut, Style, cuts, halo, pool_steps
from dnnc.layer import Layer, Operand, Shape
from dnnc.schedule import DIMS, Deal, Dim, Pin, Schedule, deals
from dnnc.space import locate
from dnnc_runtime.machine import Dram, Level, Machine, Memory, Mode
from dnnc_runtime.program import Activation, Kernel, Pool, Role, Window
from one_layer import MAPS, PARAMETERS, constant, extents, located, strided

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
ROWS: tuple[Dim, ...] = ("y", "x")
PLANES: tuple[Dim, ...] = ("k", "c", "g")
FINISHING: tuple[Dim, ...] = ("g", "k", "y", "x", "c")
PLENTY = 1 << 24
"""Bytes of a memory that no layer here fills."""


Problem = tuple[Layer, Machine]


@dataclass(frozen=True, slots=True)
class Case:
    """A layer, a machine, and a schedule that is legal there."""

    layer: Layer
    machine: Machine
    schedule: Schedule


KERNELS = (1, 1, 2, 3, 3, 5) * 3 + (7, 11)
"""Large ones are rare, for what they need of the input makes them slow."""


# -- windows and shapes ----------------------------------------------------------------------------------------------


@st.composite
def windows(draw: st.DrawFn, largest: int = 9, kernels: tuple[int, ...] = KERNELS) -> Window:
    """Any window; outputs may lie in the padding altogether. Strides and dilations may be more than the kernel."""
    size, kernel = draw(st.integers(1, largest)), draw(st.sampled_from(kernels))
    stride, dilation = draw(st.sampled_from((1, 1, 1, 2, 2, 3, 4, 6))), draw(st.sampled_from((1, 1, 1, 1, 2, 2, 4)))
    dilation = 1 if kernel > 5 else dilation  # larger than that would be slow
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


_KINDS: st.SearchStrategy[Literal["max", "average"]] = st.sampled_from(("max", "average"))


@st.composite
def _pool_axis(draw: st.DrawFn, size: int) -> Window:
    kernel = draw(st.integers(1, min(3, size)))
    pad, after = draw(st.integers(0, kernel - 1)), draw(st.integers(0, kernel - 1))
    stride = draw(st.integers(1, 3))
    return Window(size, (size + pad + after - kernel) // stride + 1, kernel, stride, 1, pad, after)


@st.composite
def pools(draw: st.DrawFn, y: Window, x: Window) -> Pool:
    """A pool behind a convolution."""
    return Pool(draw(_KINDS), draw(_pool_axis(y.out)), draw(_pool_axis(x.out)), draw(st.booleans()))


# -- layers ----------------------------------------------------------------------------------------------------------


@st.composite
def layers(draw: st.DrawFn, largest: int = 9, planes: int = 9) -> Layer:
    """A layer of either kind."""
    return draw(st.one_of(arrays(largest, planes), arrays(largest, planes), vectors(largest, planes)))


@st.composite
def arrays(draw: st.DrawFn, largest: int = 9, planes: int = 9, rows: st.SearchStrategy[Window] | None = None) -> Layer:
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
    more: tuple[Role, ...] = ("bias", "residual")
    roles: list[Role] = ["input", "weights", *(role for role in more if draw(st.booleans()))]
    return draw(_placed(shape, Kernel("conv", y, x, activation, pool), roles))


_VECTOR: st.SearchStrategy[Literal["pool", "add", "sub", "mul", "scale", "identity"]] = st.sampled_from(
    ("pool", "pool", "add", "sub", "mul", "scale", "identity")
)


@st.composite
def vectors(draw: st.DrawFn, largest: int = 9, planes: int = 9) -> Layer:
    """A pool, an elementwise operation, a copy or a padding, as a layer of its own."""
    operation = draw(_VECTOR)
    n, k = draw(st.sampled_from((1, 1, 2, 3))), draw(st.integers(1, planes))
    activation = draw(st.none() | st.sampled_from(ACTIVATIONS))
    roles: list[Role] = ["input"]
    pool, second, fill = None, None, 0.0
    if operation == "pool":
        y, x = draw(touching(windows(largest))), draw(touching(windows(largest - 2)))
        pool = Pool(draw(_KINDS), y, x, draw(st.booleans()))
    elif operation == "identity":
        y, x, fill = draw(_padded(largest)), draw(_padded(largest - 2)), draw(st.sampled_from((0.0, 1.5)))
    else:
        y, x = (Window(e, e) for e in (draw(st.integers(1, largest)), draw(st.integers(1, largest - 2))))
    if operation == "scale":
        roles.extend(("scale", "bias"))
    elif operation in ("add", "sub", "mul"):
        roles.append("second")
        second = (draw(st.booleans()), draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))
    shape = Shape("vector", n, 1, k, 1, y, x, second=second)
    return draw(_placed(shape, Kernel(operation, y, x, activation, pool, fill), roles))


@st.composite
def _padded(draw: st.DrawFn, largest: int) -> Window:
    """A copy's axis, padded or not."""
    size, pad = draw(st.integers(1, largest)), draw(st.sampled_from((0, 0, 1, 3)))
    after = draw(st.sampled_from((0, 0, 2)))
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
        gap = draw(st.sampled_from((0, 0, 0, 1, 2, 3, 4, 5))) if role in MAPS or not constant(role, shape) else 0
        operands.append(Operand(role, role, strided(role, extents(shape)[role], gap)))
    return located(shape, kernel, tuple(operands))


# -- machines --------------------------------------------------------------------------------------------------------


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
        words_sent_per_cycle=draw(st.sampled_from((1, 16))),
    )


# -- schedules -------------------------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A layer, a schedule, and a machine whose memories it fills to the last word."""
    layer, machine = draw(layers()), draw(machines())
    schedule = draw(schedules(layer.shape, machine))
    return Case(layer, fitted(layer.shape, machine, schedule), schedule)


@st.composite
def sharing_cases(draw: st.DrawFn) -> Case:
    """The same of convolutions whose units share rows: most have rows moved over, or tiles pinned."""
    layer = draw(arrays(rows=overlapping()))
    machine = draw(machines(modes=("combined", "independent", "groups inside")))
    schedule = draw(schedules(layer.shape, machine))
    return Case(layer, fitted(layer.shape, machine, schedule), schedule)


@st.composite
def problems(draw: st.DrawFn, largest: int = 5, planes: int = 6, modes: tuple[str, ...] = tuple(MODES)) -> Problem:
    """A layer and a machine where its smallest tiles fit, and larger ones soon do not."""
    layer, machine = draw(layers(largest, planes)), draw(machines(modes=modes))
    found = deals(layer.shape, machine)
    assume(found)
    smallest = _smallest(layer.shape, machine, draw(st.sampled_from(found)))
    machine = fitted(layer.shape, machine, smallest)
    for memory in machine.memories:
        words = memory.bytes // machine.word_bytes * draw(st.sampled_from((4, 5, 6, 8, 12, 20))) // 4
        machine = machine.with_memory(memory.name, words * machine.word_bytes)
    return layer, machine


def _smallest(shape: Shape, machine: Machine, deal: Deal) -> Schedule:
    """The smallest tiles under a mode, sums finished before the next output tile is begun."""
    fine = deal.granules(shape, machine)
    legal = [cut for cut in cuts(shape.y, deal.rows, "footprint") if _pools(shape, machine, cut)]
    assume(legal)
    y, x = legal[-1], cuts(shape.x, 1, "footprint")[0 if shape.pool else -1]
    tiles = Schedule(deal.mode, y, x, fine["k"], fine["c"], fine["g"], (), follow=shape.parameters > 0)
    return replace(tiles, order=tuple(d for d in FINISHING if tiles.trips(shape)[d] > 1))


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
    x = draw(st.sampled_from(cuts(shape.x, 1, draw(_STYLES))[: 1 if shape.pool else None]))
    planes = deal.granules(shape, machine)
    k = draw(_tile_sizes(shape.k, planes["k"]))
    c = draw(_tile_sizes(shape.c, planes["c"]))
    g = draw(_tile_sizes(shape.g, planes["g"]))
    k = shape.k if deal.joint else k
    buffers = draw(st.tuples(*[st.sampled_from((1, 1, 2))] * 3))
    follow = shape.parameters > 0 and draw(st.booleans())
    bare = Schedule(deal.mode, y, x, k, c, g, (), draw(st.booleans()), move, buffers, None, follow)
    trips = bare.trips(shape)
    active: list[Dim] = [d for d in DIMS if trips[d] > 1]
    order = tuple(draw(st.permutations(active)))
    options = pins(shape, order, move and trips["y"] > 1)
    pin = None
    if options and draw(st.sampled_from((True, True, False))):
        one = draw(st.sampled_from(options))
        pin = replace(one, tiles=draw(st.integers(1, trips[one.dim] - 1)))
    return replace(bare, order=order, pin=pin)


def pins(shape: Shape, order: tuple[Dim, ...], stepped: bool) -> list[Pin]:
    """One tile pinned, in every way that an order allows: along a loop inside the one that reads the operand again.

    An input is not, if rows are moved between units in more than one step.
    """
    if shape.kind == "vector":
        return []
    weights = [Pin("weights", loop, dim, 1) for loop in ROWS for dim in PLANES]
    inputs = [Pin("input", "k", dim, 1) for dim in DIMS if dim != "k" and not stepped]
    at = {dim: i for i, dim in enumerate(order)}
    return [p for p in (*weights, *inputs) if p.loop in at and p.dim in at and at[p.loop] < at[p.dim]]


_STYLES: st.SearchStrategy[Style] = st.sampled_from(("footprint", "footprint", "uniform"))


@st.composite
def _tile_sizes(draw: st.DrawFn, total: int, granule: int) -> int:
    """Multiples of the granule mostly; any size that a user might ask for."""
    if draw(st.integers(0, 3)):
        return min(total, granule * draw(st.integers(1, -(-total // granule))))
    return draw(st.integers(1, total))


@st.composite
def _row_cuts(draw: st.DrawFn, shape: Shape, machine: Machine, deal: Deal) -> tuple[Cut, bool]:
    cut = draw(st.sampled_from(cuts(shape.y, deal.rows, draw(_STYLES))))
    assume(_pools(shape, machine, cut))
    sends = machine.units_can_send and deal.rows > 1 and halo(shape.y, cut, True) is not None
    return cut, sends and draw(st.sampled_from((True, True, False)))


def _pools(shape: Shape, machine: Machine, cut: Cut) -> bool:
    """Whether a fused pool can be computed: over a block's edge, the lower unit sends up what it has begun."""
    steps = pool_steps(shape.pool.y, cut) if shape.pool else None
    return shape.pool is None or (steps is not None and (machine.units_can_send or not steps.heads))
