"""Whole networks beside what was published of them: ResNet-50 by stage, frames per second, the roofline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from comparison import Check, Section, paragraph
from published_tables import ALEXNET, ALEXNET_KIB, FRAMES, GOOGLENET_MS, PEAK_GOPS, RESNET50, ROOFLINE
from timed_networks import CYCLES_PER_MS, Network, Runs, Timed, but, together

# -- ResNet-50, stage by stage ----------------------------------------------------------------------------------------

NARROW = (1, 3, 4)
"""Stages (conv_2, conv_4, conv_5) in which the table counts every block's first 1x1 with the stage's input width."""


def stages(network: Network, as_counted: bool) -> dict[str, Timed]:
    """ResNet-50's convolutions by stage, and in total.

    Args:
        network: with all its layers.
        as_counted: whether blocks' first 1x1 are those that the table counts: one with the stage's input width does
            what that of the first block does, with as many channels and outputs.
    """
    found = {"conv_1": [network["conv1"]]}
    for layer in network.values():
        if layer.name.startswith("layer"):
            stage, _, rest = layer.name.removeprefix("layer").partition(".")
            narrow = as_counted and int(stage) in NARROW and rest.endswith("conv1")
            counted = network[f"layer{stage}.0.conv1"] if narrow else layer
            found.setdefault(f"conv_{int(stage) + 1}", []).append(counted)
    each = {name: together(layers, name) for name, layers in found.items()}
    return {**each, "total": together(each.values())}


def resnet_stages(run: Runs) -> Section:
    """ResNet-50 with its convolutions as the table counts them, by stage."""
    counted, true = stages(run.resnet50, True), stages(run.resnet50, False)
    table = [
        "stage            Mop     theoretical ms   measured ms: by its   here    efficiency %    true:",
        "         table    here   table    here  printed  efficiency    (ms)   table    here     Mop      ms",
        *(_stage_line(counted[name], true[name]) for name in RESNET50),
        "",
        "in cycles  computing   traces    units   planes   first load  between them waits for:  last store",
        "                                                              DRAM    pools and moves",
        *(_shares_line(counted[name]) for name in RESNET50),
    ]
    checks = [
        Check(f"{name}, efficiency %", counted[name].efficiency_percent, row.efficiency_percent, 5)
        for name, row in RESNET50.items()
    ]
    checks += [
        Check("operations as counted, million", counted["total"].ops / 1e6, RESNET50["total"].ops_million, 0.05),
        Check("total, ms", counted["total"].ms, RESNET50["total"].measured_ms, 5),
    ]
    remarks = tuple(_resnet_remarks(counted, true["total"]))
    return Section("2. ResNet-50 by stage, fewest cycles", tuple(table), remarks, tuple(checks))


def _stage_line(layer: Timed, true: Timed) -> str:
    row = RESNET50[layer.name]
    return (
        f"{layer.name:7}{row.ops_million:7.0f}{layer.ops / 1e6:8.1f}"
        f"{row.theoretical_ms:8.2f}{layer.theoretical_ms:8.3f}{row.measured_ms:9.2f}{row.by_efficiency_ms:12.2f}{layer.ms:8.3f}{row.efficiency_percent:8.1f}"
        f"{layer.efficiency_percent:8.1f}{true.ops / 1e6:8.1f}{true.ms:8.3f}"
    )


def _shares_line(layer: Timed) -> str:
    s = layer.shares
    return (
        f"{layer.name:9}{s.computing:11,.0f}{s.idle_traces:9,.0f}{s.idle_units:9,.0f}{s.idle_planes:9,.0f}"
        f"{s.first_load:13,.0f}{s.dram:11,.0f}{s.on_chip:14,.0f}{s.last_store:13,.0f}"
    )


def _resnet_remarks(counted: Mapping[str, Timed], true: Timed) -> Iterator[str]:
    fitting = sum(RESNET50[name].measured_ms for name in ("conv_1", "conv_2", "conv_3"))
    fitting += sum(RESNET50[name].by_efficiency_ms for name in ("conv_4", "conv_5"))
    whole = sum(row.measured_ms for name, row in RESNET50.items() if name != "total")
    traces = counted["conv_1"].shares.idle_traces
    yield paragraph(
        f"The table contradicts itself. Its times add up to {whole:.2f} ms, not 56.25: those of conv_4 and conv_5 do "
        f"not have the efficiency beside them. 19.24 and 9.95 ms do, and give {fitting:.2f} ms. Its operations of "
        "conv_2, conv_4 and conv_5 are those of a network in which every block's first 1x1 has the stage's input "
        "width and not that of the block before; conv_3's are those of the true one. The true valid taps are "
        f"{true.ops / 1e6:,.0f} Mop, not 6,879."
    )
    yield paragraph(
        f"These take {true.theoretical_ms:.2f} ms with every MAC at work all the time, more than the 56.25 ms "
        "measured: what was measured, or summed, is the network as counted. So it is timed above, each such 1x1 as "
        f"that of its stage's first block. The true network takes {true.ms:.3f} ms here, {1000 / true.ms:.1f} "
        f"frames/s, its wider 1x1 being {true.cycles - counted['total'].cycles:,.0f} cycles; the abstract of [P] has "
        "17."
    )
    yield paragraph(
        f"conv_1 loses {traces:,.0f} cycles to traces of 7 x 3 = 21 words, rounded up to 32. Strides are as in the "
        "network's publication, in the first 1x1 of a stage; models/ has them in the 3x3. Residuals are added in each "
        "block's last convolution, their loads are in its time. The linear layer is left out."
    )


# -- frames per second ------------------------------------------------------------------------------------------------

CORRECTIONS = {
    "AlexNet": "convolutions only, as in its table",
    "GoogLeNet": "convolutions, and the pools inside modules",
    "ResNet-50": "convolutions only, as its table counts them",
}


def between_stages(layer: Timed) -> bool:
    """GoogLeNet's pools between stages, which are layers here; the first is fused into its convolution."""
    return layer.name in ("pool2", "pool3", "pool4")


def inside_modules(layer: Timed) -> bool:
    """GoogLeNet's pools inside inception modules."""
    return layer.operator == "MaxPool" and not between_stages(layer)


def classifies(layer: Timed) -> bool:
    """GoogLeNet's average over the image and its linear layer."""
    return layer.name in ("pool5", "fc")


def as_published(run: Runs) -> dict[str, Timed]:
    """The networks' layers that the published times are about."""
    return {
        "AlexNet": but(run.alexnet, lambda layer: layer.name not in ALEXNET),
        "GoogLeNet": but(run.googlenet, lambda layer: between_stages(layer) or classifies(layer)),
        "ResNet-50": stages(run.resnet50, True)["total"],
    }


def googlenet_theory(network: Network) -> tuple[float, float]:
    """Milliseconds of its convolutions at 128 G-ops/s, and of the comparisons of pools inside modules at 16 a cycle."""
    convolutions = sum(layer.theoretical_ms for layer in network.values() if layer.operator == "Conv")
    pools = sum(layer.shares.computing for layer in network.values() if inside_modules(layer))
    return convolutions, pools / CYCLES_PER_MS


def frames(run: Runs) -> Section:
    """Frames per second with what the search chooses for the least time."""
    found = as_published(run)
    table = [
        "network     frames/s      here    off %        ms    here   what of it",
        *(_frames_line(name, layer) for name, layer in found.items()),
    ]
    checks = [Check(f"{name}, frames/s", 1000 / layer.ms, FRAMES[name], 5) for name, layer in found.items()]
    theory = round(sum(googlenet_theory(run.googlenet)), 2)
    checks.append(Check("GoogLeNet, theoretical ms", theory, GOOGLENET_MS[0], 0))
    return Section("3. Frames per second, fewest cycles", tuple(table), tuple(_frames_remarks(run)), tuple(checks))


def _frames_line(name: str, layer: Timed) -> str:
    here, published = 1000 / layer.ms, FRAMES[name]
    return (
        f"{name:10}{published:10.1f}{here:10.1f}{100 * (here / published - 1):+9.2f}{1000 / published:10.2f}"
        f"{layer.ms:8.2f}   {CORRECTIONS[name]}"
    )


def _frames_remarks(run: Runs) -> Iterator[str]:
    network, (theory, measured) = run.googlenet, GOOGLENET_MS
    convolutions, comparing = googlenet_theory(network)
    pools, outer, behind = (
        together(filter(wanted, network.values())) for wanted in (inside_modules, between_stages, classifies)
    )
    whole, linear = but(network, classifies).ms, run.resnet50["fc"].cycles
    yield paragraph(
        f"GoogLeNet's published theoretical time, {theory} ms, is not that of its convolutions, {convolutions:.3f} ms "
        f"on valid taps. It is that and {comparing * CYCLES_PER_MS:,.0f} cycles, {comparing:.3f} ms, of the 3x3 pools "
        f"inside its nine modules at 16 comparisons a cycle: {convolutions + comparing:.4f} ms. So there these pools "
        f"are not hidden behind convolutions, nor are they here: {pools.cycles:,.0f} cycles with their transfers."
    )
    yield paragraph(
        "The pools between stages are not in that sum: there they are fused, as AlexNet's are. Here three cannot be "
        "(pool2, pool3, pool4), for a normalisation or a concatenation stands before each: a mechanism that this "
        f"machine's model lacks, of {outer.cycles:,.0f} cycles, {outer.ms:.3f} ms, which are left out above. With them "
        f"it is {whole:.2f} ms, {1000 / whole:.1f} frames/s. The average and the linear layer behind, "
        f"{behind.cycles:,.0f} cycles, are left out too, and the normalisations, which run on the host."
    )
    yield paragraph(
        f"Its measured {measured} ms are {1000 / measured:.1f} frames/s, where {FRAMES['GoogLeNet']} is published. "
        f"ResNet-50 in full is {together(run.resnet50.values()).ms:.2f} ms: the difference is in section 2, and "
        f"{linear:,.0f} cycles of its linear layer. AlexNet has the fewest cycles without its published schedule, "
        "pools fused."
    )


# -- roofline ---------------------------------------------------------------------------------------------------------


def roofline(run: Runs, linear: Timed) -> Section:
    """The points of the chart beside those of the networks' layers that the published times are about."""
    found = {**as_published(run), "Linear layer": linear}
    table = [
        "network       chart: ops/byte  G-ops/s  so MB    here: ops/byte  G-ops/s     MB",
        *(_roofline_line(name, layer) for name, layer in found.items()),
    ]
    return Section("4. Roofline", tuple(table), tuple(_roofline_remarks(run, found)))


def _roofline_line(name: str, layer: Timed) -> str:
    point = ROOFLINE[name]
    return (
        f"{name:14}{point.ops_per_byte:15.1f}{point.gops:9.1f}{layer.ops / point.ops_per_byte / 1e6:7.2f}"
        f"{layer.ops_per_byte:18.1f}{layer.gops:9.1f}{layer.dram_bytes / 1e6:7.2f}"
    )


def _roofline_remarks(run: Runs, found: Mapping[str, Timed]) -> Iterator[str]:
    table = ALEXNET["total"].ops_million * 1e6 / (sum(ALEXNET_KIB.values()) * 1024)
    replayed = but(run.replayed, lambda layer: layer.name not in ALEXNET)
    here = PEAK_GOPS * sum(googlenet_theory(run.googlenet)) / found["GoogLeNet"].ms
    there = PEAK_GOPS * GOOGLENET_MS[0] / GOOGLENET_MS[1]
    left = found["ResNet-50"].ops / ROOFLINE["ResNet-50"].ops_per_byte
    yield paragraph("'so MB': what the chart's ops/byte leave for the operations here. The chart is read to 3 %.")
    yield paragraph(
        f"AlexNet: the published traffic gives {table:.1f} ops/byte, and the schedule replayed here "
        f"{replayed.ops_per_byte:.1f} at {replayed.gops:.1f} G-ops/s. The chart's point is not that schedule's. The "
        "point here is that of the fewest cycles, which streams no kernels three times."
    )
    yield paragraph(
        "GoogLeNet: with the comparisons of its pools counted as time well spent, as in its published theoretical "
        f"time, it runs at {here:.1f} G-ops/s here; by the published times it is {there:.1f}. No published traffic "
        "says what the chart's bytes are. Those here are of each layer alone: its input read, its output stored."
    )
    yield paragraph(
        f"ResNet-50: the chart leaves {left / 1e6:.1f} MB, and the convolutions' weights alone, as counted, are "
        f"{resnet_weights() / 1e6:.1f} MB. So it leaves out the maps between layers, which here are written and read "
        "again."
    )
    linear, knee = found["Linear layer"], ROOFLINE["knee"].ops_per_byte
    yield paragraph(
        f"Linear layer: the channel is busy from the first load to the last, at {linear.gigabytes_per_second:.2f} "
        "GB/s. The chart has 3.8 of 4.2: what a DRAM loses to refreshes and to changing rows is not modelled. "
        f"Convolutions hide it. The knee is at 128 / 4.2 = {PEAK_GOPS / 4.2:.1f} ops/byte; the chart's {knee} is that "
        "of 4.2 GiB/s."
    )


def resnet_weights() -> int:
    """Bytes of the weights of ResNet-50's convolutions, as its table counts them."""
    words, width = 64 * 3 * 49, 64
    for stage, (blocks, planes) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        later = width if stage in NARROW else 4 * planes
        first = planes * (width + (blocks - 1) * later)
        words += first + blocks * planes * planes * (9 + 4) + width * 4 * planes
        width = 4 * planes
    return 2 * words
