"""A timeline as a trace in the JSON form that Perfetto and chrome://tracing open.

A track for layers, one for each unit and one for each memory; counters for the channel and for how full memories are.
Times are microseconds, rounded to whole nanoseconds, so that what follows on a track cannot seem to overlap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dnnc.layer import HostLayer
from dnnc.report_page.figures import Line, Network
from dnnc.report_page.series import channel_bytes, envelope
from dnnc.summary import Data
from dnnc_runtime.jobs import UNITS, Job, Unit
from dnnc_runtime.timeline import Slice

LAYERS = "layers"
"""The first track."""

BINS = 2000
"""Steps of the channel's counter."""


def trace(network: Network) -> str:
    """The trace of a network as JSON text."""
    events = [*_names(network), *_layer_events(network)]
    events += [event for unit in UNITS for event in _unit_events(network, unit)]
    events += [event for memory in network.machine.memories for event in _memory_events(network, memory.name)]
    events += [*_bandwidth(network)]
    about = {"network": network.name, "target": network.machine.name, "clock_hz": network.machine.clock_hz}
    whole = {"displayTimeUnit": "ms", "otherData": about, "traceEvents": events}
    return json.dumps(whole, separators=(",", ":"), allow_nan=False) + "\n"


def tracks(network: Network) -> tuple[str, ...]:
    """The names of the tracks; a track's thread is its place, counted from 1."""
    return (LAYERS, *UNITS, *(f"{memory.name} memory" for memory in network.machine.memories))


def merged(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    """Slices of one unit, those of a job that follow one another without a gap as one."""
    out: list[Slice] = []
    for part in slices:
        if out and out[-1].job == part.job and out[-1].end == part.start:
            out[-1] = Slice(part.job, out[-1].start, part.end)
        else:
            out.append(part)
    return tuple(out)


# -- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Clock:
    """Microseconds of ticks."""

    network: Network

    def __call__(self, ticks: float) -> float:
        return round(1e6 * self.network.milliseconds(ticks)) / 1e3


def _complete(network: Network, track: str, name: str, start: int, end: int, args: Data) -> Data:
    clock = _Clock(network)
    begun = clock(start)
    tid = 1 + tracks(network).index(track)
    return {
        "ph": "X",
        "pid": 1,
        "tid": tid,
        "name": name,
        "ts": begun,
        "dur": round(clock(end) - begun, 3),
        "args": args,
    }


def _counter(name: str, time: float, values: Data) -> Data:
    return {"ph": "C", "pid": 1, "name": name, "ts": time, "args": values}


def _names(network: Network) -> Iterator[Data]:
    process = f"{network.name} on {network.machine.name}"
    yield {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": process}}
    for tid, name in enumerate(tracks(network), 1):
        yield {"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}}
        yield {"ph": "M", "pid": 1, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}


def _layer_events(network: Network) -> Iterator[Data]:
    """Every layer's span; a host node is a moment, for it is not timed."""
    clock = _Clock(network)
    for line, start, end in network.spans:
        if isinstance(line, HostLayer):
            name = f"{line.name}: on the host, not timed"
            args = {"reason": line.reason, "read_bytes": line.read_bytes, "write_bytes": line.write_bytes}
            yield {"ph": "i", "s": "t", "pid": 1, "tid": 1, "name": name, "ts": clock(end), "args": args}
        else:
            yield _complete(network, LAYERS, line.name, start, end, _layer_args(line))


def _layer_args(line: Line) -> Data:
    figures = line.plan.figures
    return {
        "bytes": figures.dram_bytes,
        "bus_bytes": figures.bus_bytes,
        "compulsory_bytes": line.plan.compulsory_bytes,
        "cycles": line.time.cycles,
        "bound": line.time.shares.bound,
    }


def _unit_events(network: Network, unit: Unit) -> Iterator[Data]:
    timing = network.timing
    done: dict[int, int] = {}
    for part in merged(timing.slices[unit]):
        job, before = timing.jobs[part.job], done.get(part.job, 0)
        done[part.job] = before + part.end - part.start
        args = {"layer": network.plan.layer_of(timing.sections[job.section]), "instruction": job.instruction}
        args |= (
            _moved(job, before, done[part.job]) if unit == "dram" else {"cycles": job.ticks / timing.ticks_per_cycle}
        )
        yield _complete(network, unit, job.name, part.start, part.end, args)


def _moved(job: Job, before: int, after: int) -> Data:
    """Bytes of a job between two of its ticks; those of all its slices add up to the job's."""
    whole, ticks = {"bytes": job.moved.payload, "bus_bytes": job.moved.bus}, max(1, job.ticks)
    return {name: moved * after // ticks - moved * before // ticks for name, moved in whole.items()}


def _memory_events(network: Network, memory: str) -> Iterator[Data]:
    """While a layer uses a memory: a slice with the most that it holds; and a counter of what it holds."""
    steps, size = network.timing.occupancy[memory], network.machine.memory(memory).bytes
    clock = _Clock(network)
    for line, start, end in network.spans:
        ((_, largest),) = envelope(steps, np.array((start, end), dtype=np.float64))
        if largest:
            args = {"largest_bytes": largest, "memory_bytes": size}
            name = f"{line.name}: {100 * largest / size:.1f} % at most"
            yield _complete(network, f"{memory} memory", name, start, end, args)
    for time, value in zip(steps.times, steps.values, strict=True):
        yield _counter(f"{memory} bytes in use", clock(time), {"bytes": value})


def _bandwidth(network: Network) -> Iterator[Data]:
    """GB/s on the bus, averaged over bins, by tensor."""
    last = network.timing.ends[-1] if network.timing.ends else 0
    if not last:
        return
    edges = np.linspace(0, last, min(BINS, last) + 1)
    seconds = network.milliseconds(edges[1]) / 1e3
    rates = {role: moved / seconds / 1e9 for role, moved in channel_bytes(network.timing, edges).items()}
    clock = _Clock(network)
    for i, start in enumerate(edges[:-1].tolist()):
        yield _counter("DRAM GB/s", clock(start), {role: round(float(rate[i]), 6) for role, rate in rates.items()})
    yield _counter("DRAM GB/s", clock(last), dict.fromkeys(rates, 0))
