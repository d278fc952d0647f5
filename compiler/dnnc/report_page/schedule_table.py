"""The table of schedules: a row for each layer, sorted by whatever heading is clicked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dnnc import report
from dnnc.layer import HostLayer
from dnnc.report_page.figures import Line, Network, intensity
from dnnc.report_page.markup import NOTHING, Markup, element, join, text

Cell = tuple[str, float | None]
"""What is read, and what a number sorts by; None for text."""


@dataclass(frozen=True, slots=True)
class Column:
    """A heading with its unit, and the cell of a layer."""

    heading: str
    cell: Callable[[Line], Cell]


def _megabytes(of: Callable[[Line], int]) -> Callable[[Line], Cell]:
    return lambda line: (report.megabytes(of(line)), of(line))


def _factor(line: Line) -> Cell:
    moved, least = line.plan.figures.dram_bytes, line.plan.compulsory_bytes
    return report.factor(moved, least), moved / least if least else 0.0


def _channels(line: Line) -> Cell:
    shape = line.plan.layer.shape
    return (f"{shape.c:,}", shape.c) if shape.kind == "array" else ("-", 0)


def _output(line: Line) -> Cell:
    shape = line.plan.layer.shape
    return f"{shape.g * shape.k}x{shape.y.out}x{shape.x.out}", shape.g * shape.k * shape.y.out * shape.x.out


def _rate(line: Line) -> float:
    return line.performance.ops_per_second


def _floor(line: Line) -> float:
    return line.performance.floor / line.performance.machine.clock_hz


COLUMNS = (
    Column("operator", lambda line: (report.operator(line.plan), None)),
    Column("output", _output),
    Column("c", _channels),
    Column("kernel", lambda line: (report.kernel(line.plan.layer.shape), None)),
    Column("mode", lambda line: (line.mode, None)),
    Column("loops", lambda line: (line.loops, None)),
    Column("DRAM MB", _megabytes(lambda line: line.plan.figures.dram_bytes)),
    Column("compulsory MB", _megabytes(lambda line: line.plan.compulsory_bytes)),
    Column("x compulsory", _factor),
    Column("on bus MB", _megabytes(lambda line: line.plan.figures.bus_bytes)),
    Column("Mop", lambda line: (f"{line.plan.valid_ops / 1e6:,.3f}", line.plan.valid_ops)),
    Column("op/B", lambda line: (f"{intensity(line.performance):,.1f}", intensity(line.performance))),
    Column("ms", lambda line: (f"{1e3 * line.seconds:,.3f}", line.seconds)),
    Column("floor ms", lambda line: (f"{1e3 * _floor(line):,.3f}", _floor(line))),
    Column("Gop/s", lambda line: (f"{_rate(line) / 1e9:,.2f}", _rate(line))),
    Column("bound by", lambda line: (line.time.shares.bound, None)),
    Column("proof", lambda line: (report.layer_proof(line.plan), None)),
)
"""What follows the layer's name."""


def schedule_table(network: Network) -> Markup:
    """The layers of the array, in execution order until a heading is clicked; host nodes stand in a table of theirs."""
    headings = [("#", True), ("layer", False), *((c.heading, _is_numeric(network, c)) for c in COLUMNS)]
    head = element("thead", element("tr", join(_heading(name, numeric) for name, numeric in headings)))
    body = element("tbody", join(_row(i, line) for i, line in enumerate(network.layers, 1)))
    count = report.plural(len(network.layers), "layer")
    caption = element("caption", text(f"{count} on the array; click a heading to sort by it"))
    return element("table", caption, head, body, class_="sortable")


def _is_numeric(network: Network, column: Column) -> bool:
    return any(column.cell(line)[1] is not None for line in network.layers)


def _heading(name: str, numeric: bool) -> Markup:
    button = element("button", text(name), type="button")
    return element("th", button, scope="col", class_="number" if numeric else None)


def _row(index: int, line: Line) -> Markup:
    name = element("th", text(line.name), scope="row")
    cells = (_cell(column.cell(line)) for column in COLUMNS)
    return element("tr", _cell((str(index), index)), name, *cells)


def _cell(cell: Cell) -> Markup:
    written, value = cell
    if value is None:
        return element("td", text(written))
    return element("td", text(written), class_="number", data_value=repr(value))


# -- tables that are not sorted --------------------------------------------------------------------------------------


def plain_table(
    caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[str]
) -> Markup:
    """A table whose first column names its rows."""
    kinds = ["number" if heading in numbers else None for heading in headings]
    head = join(element("th", text(h), scope="col", class_=kind) for h, kind in zip(headings, kinds, strict=True))
    lines: list[Markup] = []
    for first, *rest in rows:
        cells = (element("td", text(c), class_=kind) for c, kind in zip(rest, kinds[1:], strict=True))
        lines.append(element("tr", element("th", text(first), scope="row"), *cells))
    body = element("tbody", join(lines))
    return element("table", element("caption", text(caption)), element("thead", element("tr", head)), body)


def host_table(layers: Sequence[HostLayer]) -> Markup:
    """The nodes that the array does not run."""
    if not layers:
        return NOTHING
    grid = report.host_grid(layers)
    return plain_table("On the host, not timed", grid.headings, grid.rows, frozenset(grid.headings) - grid.text)


def network_table(networks: Sequence[Network]) -> Markup:
    """A row for each network."""
    headings = (
        "network", "machine", "objective", "plan", "layers", "proven", "DRAM MB", "x compulsory", "Gop", "op/B",
        "ms", "Gop/s", "% of peak", "host MB",
    )  # fmt: skip
    rows = [_network_row(network) for network in networks]
    return plain_table("Networks", headings, rows, frozenset(headings[4:]))


def _network_row(network: Network) -> tuple[str, ...]:
    plan, totals, of = network.plan, network.plan.totals, network.performance
    proven = sum(layer.proof.status == "optimal" for layer in plan.on_array)
    return (
        network.name,
        network.machine.name,
        str(plan.objective),
        plan.network.scope if plan.network else "layerwise",
        f"{len(plan.on_array):,}",
        f"{proven:,}",
        report.megabytes(totals.dram_bytes),
        report.factor(totals.dram_bytes, totals.compulsory_bytes),
        f"{of.ops / 1e9:,.3f}",
        f"{intensity(of):,.1f}",
        f"{1e3 * of.seconds:,.3f}",
        f"{of.ops_per_second / 1e9:,.2f}",
        f"{100 * of.efficiency:.1f}",
        report.megabytes(totals.host_bytes),
    )
