"""The untiled reference: every layer's kernel on whole tensors, without memories or tiles.

It shares the kernels and the number systems with the executor and nothing else, so that equal results say that
the tiling is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from dnnc_runtime import kernels
from dnnc_runtime.dram import Dram, Result
from dnnc_runtime.frame import touched
from dnnc_runtime.numbers import Float32, Numbers, Tally, Words
from dnnc_runtime.program import Constants, Host, HostRun, Kernel, Program, Role, Section
from dnnc_runtime.regions import listed
from dnnc_runtime.tensor import Region, span


def refer(
    program: Program,
    inputs: Mapping[str, NDArray[Any]],
    constants: Constants | None = None,
    numbers: Numbers | None = None,
    host: HostRun | None = None,
    keep_values: bool = False,
) -> Result:
    """What a program's sections mean: the arguments and the result of :func:`dnnc_runtime.execute`."""
    system = numbers or Float32()
    dram = Dram(program, program.constants if constants is None else constants, system)
    dram.feed(program.inputs, inputs)
    tallies: dict[str, Tally] = {}
    for section in program.sections:
        again = section.name in tallies
        tally = tallies.setdefault(section.name, Tally())
        for instruction in section.instructions:
            if isinstance(instruction, Host):
                dram.run(instruction, host or program.host, tally)
        # A layer runs whole where its first section stands.
        if section.kernel is not None and not again:
            _section(dram, section, section.kernel, system, tally)
        dram.drop_constants()
    return dram.result(program, [place.name for place in program.values if keep_values], tallies)


def _section(dram: Dram, section: Section, kernel: Kernel, numbers: Numbers, tally: Tally) -> None:
    views = dict(section.views)
    operands: dict[Role, Words] = {
        role: dram.whole(view) for role, view in views.items() if role not in ("output", "partial_sums")
    }
    output = dram.whole(views["output"])
    n, _, _, g, k = output.shape
    region: Region = (span(0, n), span(0, kernel.y.out), span(0, kernel.x.out), span(0, g), span(0, k))
    output[...] = evaluate(kernel, numbers, operands, region, tally)


def evaluate(kernel: Kernel, numbers: Numbers, operands: Mapping[Role, Words], region: Region, tally: Tally) -> Words:
    """A kernel on whole operands, with the pool behind it if there is one: ``[n, y, x, g, k]`` words."""
    held = _touched(kernel, operands, region)
    if kernel.operation != "conv":
        words = kernels.vector(kernel, numbers, held, region, tally)
    else:
        sums = numbers.accumulate(None, kernels.visit(kernel, numbers, held, region), tally)
        words = kernels.finish(kernel, numbers, sums, held, tally)
    if kernel.pool is None or kernel.operation == "pool":
        return words
    rows, columns = span(0, kernel.pool.y.out), span(0, kernel.pool.x.out)
    return kernels.pool(kernel.pool, numbers, words, (rows, columns), (region[1], region[2]))


def _touched(kernel: Kernel, operands: Mapping[Role, Words], region: Region) -> dict[Role, Words]:
    """The operands with the input cut down to the rows and columns that the kernel touches."""
    rows, columns = listed(touched(kernel.y, region[1])), listed(touched(kernel.x, region[2]))
    return {**operands, "input": operands["input"][:, rows[:, None], columns]}
