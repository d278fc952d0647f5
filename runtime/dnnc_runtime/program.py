"""Programs: frozen instructions over regions, views and on-chip addresses.

Operands have fixed axes by role, so that an instruction means the same for every operator:

    input      (n, y, x, g, c)    vector layers: (n, y, x, g, k)
    weights    (g, k, r, q, c)
    bias, scale, slope  (g, k)    one parameter tensor each
    residual, second, partial_sums, accumulator, tile  (n, y, x, g, k), at convolution rows and columns
    output, pending     (n, y, x, g, k), at pooled rows and columns where a pool is fused

Addresses and pitches are in machine words; an element of accumulator width takes ``accumulator // word`` words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from numpy.typing import NDArray

from dnnc_runtime.machine import Machine
from dnnc_runtime.tensor import Piece, Region, View

Role = Literal[
    "input", "second", "weights", "bias", "scale", "slope", "residual", "output", "partial_sums",
    "accumulator", "tile", "pending",
]  # fmt: skip
Width = Literal["word", "accumulator"]


@dataclass(frozen=True, slots=True)
class Window:
    """One spatial axis of a sliding window: input = output * stride + tap * dilation - pad.

    ``size`` and ``out`` are the input and output extents; taps that fall outside [0, size) are padding,
    neither loaded nor multiplied. ``pad_after`` matters only to averages that count padding.
    """

    size: int
    out: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    pad: int = 0
    pad_after: int = 0

    def touched(self, first: int, last: int) -> list[int]:
        """The sorted input coordinates that the outputs first..last (inclusive) touch."""
        points = {
            o * self.stride + t * self.dilation - self.pad for o in range(first, last + 1) for t in range(self.kernel)
        }
        return sorted(p for p in points if 0 <= p < self.size)


@dataclass(frozen=True, slots=True)
class Pool:
    """A pooling window over the rows and columns of a convolution's (or an input's) output."""

    kind: Literal["max", "average"]
    y: Window
    x: Window
    count_include_pad: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """A named elementwise function with its parameters, e.g. ("Clip", (0.0, 6.0))."""

    name: str
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Kernel:
    """What a section computes, untiled: the definition that every tile of it must agree with.

    ``operation``: conv (weights, multiply-accumulate; matmul is a conv of one tap), pool, add, sub, mul,
    scale (input * scale + bias per plane), identity (activations and copies; padding reads ``fill``).
    ``pool`` is the pool fused behind it, or the pool itself where the operation is pool.
    """

    operation: Literal["conv", "pool", "add", "sub", "mul", "scale", "identity"]
    y: Window
    x: Window
    activation: Activation | None = None
    pool: Pool | None = None
    fill: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """DRAM to on-chip. ``transfers`` are the DRAM regions read, ``pieces`` where they land: the same elements equally
    often, for units that both need a row may each load it. A piece with several instances is one broadcast read.

    ``packed``: a constant stored in the order it is loaded, so that each transfer is one contiguous run.
    """

    role: Role
    memory: str
    width: Width
    transfers: tuple[Region, ...]
    pieces: tuple[Piece, ...]
    packed: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """On-chip to DRAM. ``pieces`` (one instance each) hold exactly the disjoint regions of ``transfers``."""

    role: Role
    memory: str
    width: Width
    transfers: tuple[Region, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """From one unit's memory to another's: source and target pieces correspond one to one, same regions."""

    role: Role
    memory: str
    width: Width
    source: tuple[Piece, ...]
    target: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """The words of these pieces are dead: reading them before they are written again is a fault."""

    memory: str
    width: Width
    pieces: tuple[Piece, ...]


class Part(NamedTuple):
    """One unit's share of a compute instruction: operand pieces by role, in the memories of its roles.

    ``region`` is the output region computed here, at convolution rows and columns.
    """

    region: Region
    operands: tuple[tuple[Role, tuple[Piece, ...]], ...]


@dataclass(frozen=True, slots=True)
class Compute:
    """Every part at once: multiply-accumulate (or a vector operation) on the tiles held.

    ``first``: nothing was accumulated before. ``last``: parameters and residual are added, the result is
    rounded once, activated and written at word width to role ``tile`` (a pool follows) or ``output``, in
    place of its accumulators; otherwise sums stay in role ``accumulator`` at accumulator width.
    ``reduce`` is the range of input channels (start, stop) summed.
    """

    parts: tuple[Part, ...]
    reduce: tuple[int, int]
    first: bool = True
    last: bool = True


@dataclass(frozen=True, slots=True)
class PoolTile:
    """The fused pool: finished convolution rows in, pooled rows out.

    For part i, a window's value so far combines the rows of role ``tile`` that it covers (the part's ``region``,
    at convolution rows and columns) with every partial result of that window held in ``before[i]`` (pieces
    of role ``pending``; the same window may be there twice, begun above by this unit and below by its neighbour).
    The windows in the region of role ``output`` are complete: averages are divided and rounded, and they
    overwrite the tile in place. Those in the region of ``after[i]`` are kept as partial results: maxima at
    word width, sums at accumulator width. All of ``before`` and ``tile`` are read before anything is written;
    a part that completes no window has no ``output`` operand, and one whose unit has no rows in this step is absent.
    """

    parts: tuple[Part, ...]
    before: tuple[tuple[Piece, ...], ...]
    after: tuple[tuple[Piece, ...], ...]


Constants = Mapping[str, Callable[[], NDArray[Any]]]
"""Constant tensor -> loader of its values, in the order of its words."""


@dataclass(frozen=True, slots=True)
class Host:
    """A node that the array does not run: whole DRAM tensors in, whole DRAM tensors out."""

    node: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reason: str


HostRun = Callable[[Host, Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
"""Runs one host instruction: named input values to named output values."""

Instruction = Load | Store | Move | Release | Compute | PoolTile | Host


@dataclass(frozen=True, slots=True)
class Tensor:
    """A DRAM allocation of ``words`` machine words. Constants are filled before the program starts."""

    name: str
    words: int
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """Words [first, end) of one unit's memory that still hold at a section's end what they hold, in ascending order."""

    memory: str
    unit: int
    ranges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        bounds = [0, *(bound for words in self.ranges for bound in words)]
        if bounds != sorted(bounds) or any(first == end for first, end in self.ranges):
            raise ValueError(f"kept words of {self.memory!r} need ascending, disjoint ranges, not {self.ranges}")


@dataclass(frozen=True, slots=True)
class Section:
    """Instructions of one layer, with the views of its operands and what it computes (None: host).

    A layer may run in several sections of its name, kernel and views, which compute disjoint parts of its output.

    ``mode`` names the machine's mode in which the array runs it: it decides how long that takes, and no number.
    ``kept`` are the words on chip that outlast the section; all others are emptied at its end.
    """

    name: str
    kernel: Kernel | None
    views: tuple[tuple[Role, View], ...]
    instructions: tuple[Instruction, ...]
    mode: str = ""
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a named value of the model lies in DRAM: the words of ``view``, in order, reshaped to ``shape``."""

    name: str
    shape: tuple[int, ...]
    view: View


class Checked(Protocol):
    """What the structural checks have found of a whole program; :mod:`dnnc_runtime.checks` makes them."""

    def hold(self, program: Program) -> bool:
        """Whether they are done, and were those of all that a program does."""
        ...

    def stored(self, tensor: str) -> NDArray[Any]:
        """Which words of a tensor have been written in DRAM."""
        ...

    def computed(self, view: View) -> bool:
        """Whether every word of a view is an input or was computed, be it in DRAM or not."""
        ...


@dataclass(frozen=True, slots=True)
class Program:
    """Sections in execution order over DRAM tensors, and where the model's values lie.

    ``constants`` (loaders of the constant tensors) and ``host`` (runs what the array does not) are what a program
    needs to compute numbers; they are no part of its text, nor of what it is equal to. Nor is ``checked``, with which
    it need not be checked again where it is executed; :func:`dnnc_runtime.walk.checked` gives it.
    """

    machine: Machine
    tensors: tuple[Tensor, ...]
    sections: tuple[Section, ...]
    values: tuple[Placement, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Constants = field(default_factory=dict[str, "Callable[[], NDArray[Any]]"], compare=False, repr=False)
    host: HostRun | None = field(default=None, compare=False, repr=False)
    checked: Checked | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        from dnnc_runtime.program_text import write

        return write(self)

    @staticmethod
    def parse(text: str) -> Program:
        """The program that a text form describes.

        Raises:
            UsageFault: the text is malformed; the message names the line.
        """
        from dnnc_runtime.program_parse import read

        return read(text)
