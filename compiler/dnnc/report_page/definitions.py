"""How every figure of the page is defined."""

from __future__ import annotations

DEFINITIONS: tuple[tuple[str, str], ...] = (
    ("B, KiB, MB, GB", "Bytes; 1,024, 10⁶ and 10⁹ of them."),
    (
        "DRAM payload",
        "Bytes that the program asks to be read from or written to DRAM. They are predicted by closed forms, and "
        "counted by walking the program; the two are equal, tensor by tensor, or there is no artifact.",
    ),
    (
        "tensors",
        "input, weights, residual (what is added before the activation), output; bias: all vectors of parameters; "
        "partial sums: unfinished outputs that go to DRAM and come back; second operand: of sums and products of two "
        "tensors.",
    ),
    ("on bus", "DRAM payload with every contiguous run rounded up to whole bursts of the channel."),
    (
        "compulsory",
        "Every element that is touched, of every operand of a layer by itself, once. x compulsory: DRAM payload "
        "divided by it, which may be less than 1 where layers run together; a dash where nothing is compulsory.",
    ),
    (
        "proof",
        "What shows that no schedule of the space is better. bound: the schedule meets a lower bound; cp-sat: the "
        "solver found that the space holds nothing smaller; search: every schedule was looked at; gap: not proven, and "
        "at most so far from the best. A dash: the layer is in a group, and what is proven is said of the whole plan.",
    ),
    (
        "op, Mop, Gop",
        "Two operations for each multiply-accumulate that is not in the padding; 10⁶ and 10⁹ of them. Pools, sums and "
        "copies have none.",
    ),
    ("op/B", "Operations divided by DRAM payload bytes."),
    (
        "time (ms)",
        "From the timeline: every instruction is a job of the DRAM channel, the array, the vector unit or the links, "
        "and starts when its unit is idle, what it reads has arrived and what it overwrites is no longer needed. A "
        "layer starts when the one before has ended; in a group, the time of a layer is that of all its sections, and "
        "a section's last stores fall into the time of the next. Cycles are divided by the clock.",
    ),
    (
        "floor",
        "Time that no schedule of the layer beats: of its operations with everything in one tile, or of its compulsory "
        "traffic on the channel, whichever is longer. Of a layer in a group: of its operations.",
    ),
    ("Gop/s", "Operations divided by time. % of peak: of 2 x multipliers x clock."),
    ("roofs", "Peak: 2 x multipliers x clock. DRAM: bytes per second of the machine file, times op/B."),
    ("computing", "Cycles that the valid operations would take if all units were busy with them."),
    ("units idle", "Cycles that units wait for the slowest one, having fewer rows or planes."),
    ("passes not full", "Cycles of passes that do not fill the units, for want of output planes."),
    ("traces not full", "Cycles for traces rounded up to the machine's channel granularity."),
    ("first load, last store", "Cycles of a layer before its first computation, and after its last."),
    ("waiting for DRAM, for pools and moves", "Cycles between computations that wait for these."),
    (
        "bound by",
        "What takes most of a layer's time: compute (computing), idle lanes (units idle, passes and traces not "
        "full), DRAM (waiting for DRAM), latency (first load and last store), on chip (waiting for pools and moves).",
    ),
    (
        "occupancy",
        "Bytes of a memory in use. The memories of all units are laid over one another: a word is in use if any unit "
        "holds something there, from when what writes it starts until what last reads it has ended.",
    ),
    (
        "group, strip, section",
        "Layers of a group run in turn for some rows of their outputs, a strip, and then for the next. What a layer "
        "does in one strip is a section of the program. Rows that another layer of the group, or a later one, reads "
        "stay on chip as far as there is room; the others go to DRAM.",
    ),
    (
        "bytes against cycles",
        "DRAM payload and cycles of the closed form, which is not the timeline: transfers overlap with computing where "
        "buffers are doubled, and the first load and the last store do not.",
    ),
    (
        "loops",
        "The tile loops, outermost first: loop, number of tiles, and the largest tile. y and x are output rows and "
        "columns, k output planes, c input channels, g groups. Or: in how many strips of which group the layer runs.",
    ),
    (
        "output, c, kernel",
        "Planes x rows x columns of outputs before a fused pool; input channels of a group; taps/stride.",
    ),
    (
        "on the host",
        "Nodes for which the machine has no unit. They are not timed, and their bytes are in no other figure.",
    ),
)
"""(term, what it means)."""
