"""Bytes and time of every layer as bars."""

from __future__ import annotations

from dnnc.layer import HostLayer
from dnnc.plan import TRAFFIC_ROLES
from dnnc.report import factor, megabytes
from dnnc.report_page.bars import Bar, bars
from dnnc.report_page.figures import Line, Network
from dnnc.report_page.legends import ROLE_CLASS, SHARE_CLASS, SHARE_NAMES, role_name
from dnnc.report_page.picture import Picture
from dnnc_runtime.time_shares import SHARES

_TRAFFIC = (
    "DRAM payload of every layer, by tensor, in MB = 10⁶ bytes; the thin bar below is compulsory traffic of the layer "
    "by itself: every element once. At the end of the row: the layer's bytes, and how many times its compulsory bytes "
    "that is; less than once where other layers keep something of it on chip."
)
_TIME = (
    "Time of every layer in the timeline, by what it is spent on; the parts add up to all of it. The thin bar below is "
    "a floor that no schedule of the layer beats; of computing alone where the layer is in a group. At the end of the "
    "row: the layer's time, and what takes most of it."
)


def traffic(network: Network) -> Picture:
    """DRAM bytes of every layer by tensor, beside what is compulsory."""
    roles = [role for role in TRAFFIC_ROLES if any(sum(line.plan.traffic[role]) for line in network.layers)]
    entries = [*((ROLE_CLASS[role], role_name(role)) for role in roles), ("bound", "compulsory")]
    rows = [_host(line, "apart") if isinstance(line, HostLayer) else _moved(line) for line in network.lines]
    drawn = bars(rows, entries, "DRAM payload (MB)")
    return Picture(
        f"{network.slug}-traffic", network.name, "DRAM traffic of each layer", _TRAFFIC, drawn.height, drawn.body
    )


def time(network: Network) -> Picture:
    """Time of every layer by what it is spent on."""
    shares = [share for share in SHARES if any(getattr(line.time.shares, share) for line in network.layers)]
    entries = [*((SHARE_CLASS[share], SHARE_NAMES[share]) for share in shares), ("bound", "floor")]
    rows = [_host(at, "not timed") if isinstance(at, HostLayer) else _taken(network, at) for at in network.lines]
    drawn = bars(rows, entries, "time (ms)")
    return Picture(
        f"{network.slug}-time", network.name, "time of each layer, and what bounds it", _TIME, drawn.height, drawn.body
    )


def _host(layer: HostLayer, note: str) -> Bar:
    moved = f"{megabytes(layer.read_bytes)} MB read, {megabytes(layer.write_bytes)} MB written, in no other figure"
    return Bar(
        layer.name,
        (),
        None,
        "on the host",
        note,
        f"{layer.name}: {layer.operator} on the host, not timed\n{layer.reason}\n{moved}",
    )


def _moved(line: Line) -> Bar:
    plan, dram = line.plan, line.plan.figures.dram_bytes
    times = factor(dram, plan.compulsory_bytes)
    facts = [
        f"{line.name}: {megabytes(dram)} MB = {dram:,} B",
        f"{times} x compulsory ({megabytes(plan.compulsory_bytes)} MB)",
        *(f"{role_name(role)}: {r:,} B read, {w:,} B written" for role, (r, w) in plan.traffic.items() if r or w),
    ]
    parts = tuple((ROLE_CLASS[role], (r + w) / 1e6) for role, (r, w) in plan.traffic.items() if r or w)
    return Bar(line.name, parts, plan.compulsory_bytes / 1e6, f"{megabytes(dram)} MB", f"{times} x", "\n".join(facts))


def _taken(network: Network, line: Line) -> Bar:
    shares, whole = line.time.shares, line.time.cycles
    spent = [(share, getattr(shares, share)) for share in SHARES if getattr(shares, share)]
    facts = [
        f"{line.name}: {1e3 * line.seconds:,.3f} ms = {whole:,.0f} cycles, bound by {shares.bound}",
        *(f"{SHARE_NAMES[share]}: {cycles:,.0f} cycles, {100 * cycles / whole:.1f} %" for share, cycles in spent),
        f"floor: {line.performance.floor:,} cycles",
    ]
    parts = tuple((SHARE_CLASS[share], 1e3 * network.seconds(cycles)) for share, cycles in spent)
    floor = 1e3 * network.seconds(line.performance.floor)
    return Bar(line.name, parts, floor, f"{1e3 * line.seconds:,.3f} ms", shares.bound, "\n".join(facts))
