"""Emits what happens to an output tile: its share in every unit, the fused pool, partial sums, residual and store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dnnc.emit_planes import Box
from dnnc.emit_rows import RowSide
from dnnc.nest import Index, Nest
from dnnc.places import Range, Unit, axis, interval
from dnnc.traffic import beside
from dnnc_runtime.program import Instruction, Load, Move, Part, PoolTile, Role, Store, Width
from dnnc_runtime.tensor import Axis, Piece, Region, extent


@dataclass(frozen=True, slots=True)
class Share:
    """What one unit holds of an output tile: a box of planes, ``at`` planes into ``planes`` of its share."""

    unit: Unit
    instance: int
    box: Box
    at: int
    planes: int


class OutputSide:
    """The output tiles of one layer."""

    def __init__(self, nest: Nest, rows: RowSide | None = None) -> None:
        self.nest, self.rows = nest, rows
        self.on_chip = nest.layer.shape.on_chip
        self.memory = nest.machine.memory_of("output").name
        self.level = nest.model.level("output")
        self.wide = nest.machine.accumulator_bytes // nest.machine.word_bytes
        self._base = nest.places.base["output"]
        self._slot = nest.places.words["output"] // nest.schedule.buffers[2]
        self._stores = 0
        self._shares: dict[tuple[int, int, int], list[Share]] = {}
        self.pool = PoolSide(nest, self) if nest.layer.shape.pool else None

    @property
    def base(self) -> int:
        """Where the current output tile starts."""
        return self._base + self._slot * (self._stores % self.nest.schedule.buffers[2])

    def shares(self, index: Index) -> list[Share]:
        """The shares of a tile, unit by unit; units whose block has ended have none."""
        nest = self.nest
        _, step = nest.image(index)
        key = step, index["g"], index["k"]
        if key not in self._shares:
            self._shares[key] = self._dealt(index, step)
        return self._shares[key]

    def _dealt(self, index: Index, step: int) -> list[Share]:
        nest = self.nest
        g, k = nest.plane("g", index["g"]), nest.plane("k", index["k"])
        out: list[Share] = []
        for unit, instance in nest.homes["output"].items():
            if not nest.out_rows(unit.row, step):
                continue
            boxes = nest.dealt.planes(unit, self.level, g, k)
            planes = sum(b[0][1] * b[1][1] for b in boxes)
            at = 0
            for box in boxes:
                out.append(Share(unit, instance, box, at, planes))
                at += box[0][1] * box[1][1]
        return out

    def region(self, index: Index, share: Share) -> Region:
        """The convolution rows and columns of a share, as a region."""
        n, step = self.nest.image(index)
        rows, columns = self.nest.out_rows(share.unit.row, step), self.nest.out_columns(index["x"])
        return (interval((n, 1)), _axis(rows), _axis(columns), interval(share.box[0]), interval(share.box[1]))

    def piece(self, share: Share, region: Region, base: int, columns: int, width: Width = "word") -> Piece:
        """The piece of a region laid out densely: rows, columns, planes of the share."""
        words = self.wide if width == "accumulator" else 1
        pixel = share.planes * words
        pitch = (0, columns * pixel, pixel, share.box[1][1] * words, words)
        return Piece((share.instance,), base + share.at * words, pitch, region)

    def tile(self, share: Share, region: Region, width: Width = "word") -> Piece:
        """The piece of a share's region in the current tile."""
        return self.piece(share, region, self.base, extent(region[2]), width)

    def in_rows(self, role: Role, index: Index, share: Share, box: Box, words: int = 1) -> tuple[Piece, ...]:
        """The pieces, in rows on chip, of a box of a share's planes, some words from one to the next."""
        assert self.rows
        image, step = self.nest.image(index)
        rows, columns = tuple(self.nest.out_rows(share.unit.row, step)), tuple(self.nest.out_columns(index["x"]))
        return self.rows.pieces(role, share.instance, image, rows, columns, box, words)

    @property
    def _into_rows(self) -> bool:
        """Whether what is computed goes into rows on chip, with no pool before."""
        return "output" in self.on_chip and not self.pool

    def finished(self, index: Index, share: Share) -> tuple[Piece, ...]:
        """Where the finished words of a share go: into rows on chip, or the current tile."""
        if self._into_rows:
            return self.in_rows("output", index, share, share.box)
        return (self.tile(share, self.region(index, share)),)

    def sums(self, index: Index, share: Share) -> tuple[Piece, ...]:
        """Where the accumulators of a share lie: in the current tile, or where it goes into rows on chip in these.

        There, as many planes have room as the finished words will take; the others lie beside them.
        """
        if not self._into_rows:
            return (self.tile(share, self.region(index, share), "accumulator"),)
        groups, (first, count) = share.box
        there = count - beside(count, self.wide)
        box, rest = (groups, (first, there)), (groups, (first + there, count - there))
        pieces = self.in_rows("output", index, share, box, self.wide) if there else ()
        if there == count:
            return pieces
        other = replace(share, box=rest, planes=groups[1] * rest[1][1])
        return (*pieces, self.tile(other, self.region(index, other), "accumulator"))

    def residual(self, index: Index, share: Share) -> tuple[Piece, ...]:
        """The residual for a share."""
        if "residual" in self.on_chip:
            return self.in_rows("residual", index, share, share.box)
        region = self.region(index, share)
        return (self.piece(share, region, self.nest.places.base["residual"], extent(region[2])),)

    def load_residual(self, index: Index) -> Load:
        """The residual tile, read at the visit that finishes its output."""
        pieces = tuple(piece for share in self.shares(index) for piece in self.residual(index, share))
        memory = self.nest.machine.memory_of("residual").name
        return Load("residual", memory, "word", tuple(self._transfers(index)), pieces)

    def partial_sums(self, index: Index, kind: type[Load] | type[Store]) -> Load | Store:
        """The accumulators of the current tile leave, or return."""
        pieces = tuple(piece for share in self.shares(index) for piece in self.sums(index, share))
        transfers = tuple(self._transfers(index))
        return kind("partial_sums", self.memory, "accumulator", transfers, pieces)

    def _transfers(self, index: Index) -> Iterator[Region]:
        """The tile's convolution rows in DRAM, one region for each block of rows."""
        n, step = self.nest.image(index)
        g, k = self.nest.plane("g", index["g"]), self.nest.plane("k", index["k"])
        for u in self.nest.row_units:
            if rows := self.nest.out_rows(u, step):
                columns = self.nest.out_columns(index["x"])
                yield interval((n, 1)), _axis(rows), _axis(columns), interval(g), interval(k)

    def finish(self, index: Index) -> Iterator[Instruction]:
        """Pools and stores the finished tile."""
        if self.pool:
            yield from self.pool.visit(index)
        elif not self._into_rows:
            pieces = tuple(self.tile(share, self.region(index, share)) for share in self.shares(index))
            yield Store("output", self.memory, "word", tuple(self._transfers(index)), pieces)
        self._stores += 1


class PoolSide:
    """The fused pool of one layer: complete windows, and partial results that wait for the next rows."""

    def __init__(self, nest: Nest, output: OutputSide) -> None:
        assert nest.layer.shape.pool
        self.nest, self.output, self.window = nest, output, nest.layer.shape.pool
        self.width: Width = "accumulator" if self.window.kind == "average" else "word"
        self.words = output.wide if self.width == "accumulator" else 1
        self._base = nest.places.base["pending"]
        self._slots = int(nest.tiles.at("y", "slots"))
        self._key: object = None
        self._blocks: dict[tuple[int, int], int] = {}
        self._top = 0
        self._held: dict[tuple[int, int, int], dict[int, list[int]]] = {}

    def visit(self, index: Index) -> Iterator[Instruction]:
        """Pools the current tile, sends what belongs to the unit above, and stores complete rows."""
        n, step = self.nest.image(index)
        self._restart(index, n)
        steps = self.nest.pool
        assert steps
        shares = self.output.shares(index)
        stored: list[Piece] = []
        rows = sorted({share.unit.row for share in shares}, reverse=True)
        together = [rows] if not steps.heads else [[u] for u in rows]
        for units in together:
            mine = [share for share in shares if share.unit.row in units]
            yield self._tile(index, mine, stored)
            yield from self._send(index, n, step, units)
        if stored and "output" not in self.output.on_chip:
            complete = (steps.complete[u][step] for u in sorted(rows))
            transfers = tuple(self._region(n, windows, *self._planes(index)) for windows in complete if windows)
            yield Store("output", self.output.memory, "word", transfers, tuple(stored))

    def _planes(self, index: Index) -> tuple[Range, Range]:
        return self.nest.plane("g", index["g"]), self.nest.plane("k", index["k"])

    def _restart(self, index: Index, n: int) -> None:
        key = (*self.nest.outside("y", index), n)
        inside = self.nest.model.structure.inside
        if not inside("k", "y"):
            key = (*key, index["k"])
        if not inside("g", "y"):
            key = (*key, index["g"])
        if key != self._key:
            self._key, self._blocks, self._top, self._held = key, {}, 0, {}

    def _tile(self, index: Index, shares: Sequence[Share], stored: list[Piece]) -> PoolTile:
        """The pool instruction of some units' tiles."""
        n, step = self.nest.image(index)
        steps = self.nest.pool
        assert steps
        parts: list[Part] = []
        before: list[tuple[Piece, ...]] = []
        after: list[tuple[Piece, ...]] = []
        begun = {u: self._take(index, u) for u in {share.unit.row for share in shares}}
        for share in shares:
            u = share.unit.row
            before.append(tuple(self._pending(index, share, w, s) for w, ss in begun[u].items() for s in ss))
        for u in begun:
            leaving = [w for when, source, _, ws in steps.heads if (when, source) == (step, u) for w in ws]
            self._keep(index, u, begun[u], sorted({*steps.pending[u][step], *leaving}))
        for share in shares:
            u, region = share.unit.row, self.output.region(index, share)
            operands: list[tuple[Role, tuple[Piece, ...]]] = [("tile", (self.output.tile(share, region),))]
            if complete := steps.complete[u][step]:
                done = self._region(n, complete, *share.box)
                pieces = self._finished(share, n, complete, done)
                operands.append(("output", pieces))
                stored += pieces
            parts.append(Part(region, tuple(operands)))
            kept = self._slots_of(index, u)
            after.append(tuple(self._pending(index, share, w, ss[0]) for w, ss in kept.items()))
        return PoolTile(tuple(parts), tuple(before), tuple(after))

    def _finished(self, share: Share, n: int, rows: tuple[int, ...], done: Region) -> tuple[Piece, ...]:
        """Where complete windows go: into rows on chip, or over the tile."""
        if "output" not in self.output.on_chip:
            return (self.output.piece(share, done, self.output.base, self.window.x.out),)
        assert self.output.rows
        columns = tuple(range(self.window.x.out))
        return self.output.rows.pieces("output", share.instance, n, rows, columns, share.box)

    def _slots_of(self, index: Index, u: int) -> dict[int, list[int]]:
        """Window -> slots of its partial results, for one unit and plane tile."""
        return self._held.setdefault((u, index["g"], index["k"]), {})

    def _take(self, index: Index, u: int) -> dict[int, list[int]]:
        return {w: list(slots) for w, slots in sorted(self._slots_of(index, u).items())}

    def _keep(self, index: Index, u: int, begun: dict[int, list[int]], windows: Sequence[int]) -> None:
        """Windows keep their (first) slot, new ones take a free one: everything is read before it is written."""
        kept = {w: [begun[w][0]] for w in windows if w in begun}
        taken = {slots[0] for slots in kept.values()}
        free = (s for s in range(self._slots) if s not in taken)
        held = self._slots_of(index, u)
        held.clear()
        held.update({w: kept[w] if w in kept else [next(free)] for w in windows})

    def _send(self, index: Index, n: int, step: int, units: Sequence[int]) -> Iterator[Instruction]:
        """Moves windows begun below a block's edge up to the unit that stores them."""
        steps = self.nest.pool
        assert steps
        for when, source, target, windows in steps.heads:
            if when != step or source not in units:
                continue
            here, there = self._slots_of(index, source), self._slots_of(index, target)
            pairs: list[tuple[Piece, Piece]] = []
            for w in windows:
                taken = {s for slots in there.values() for s in slots}
                slot = next(s for s in range(self._slots) if s not in taken)
                for a, b in zip(self._units(index, source), self._units(index, target), strict=True):
                    pairs.append((self._pending(index, a, w, here[w][0]), self._pending(index, b, w, slot)))
                there.setdefault(w, []).append(slot)
                del here[w]
            yield Move(
                "pending", self.output.memory, self.width, tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
            )

    def _units(self, index: Index, row: int) -> list[Share]:
        """The shares of a row unit, whether or not it has rows in this step."""
        nest, output = self.nest, self.output
        out: list[Share] = []
        for unit, instance in nest.homes["output"].items():
            if unit.row == row:
                boxes = nest.dealt.planes(unit, output.level, *self._planes(index))
                planes, at = sum(b[0][1] * b[1][1] for b in boxes), 0
                for box in boxes:
                    out.append(Share(unit, instance, box, at, planes))
                    at += box[0][1] * box[1][1]
        return out

    def _pending(self, index: Index, share: Share, window: int, slot: int) -> Piece:
        key = index["g"], index["k"]
        if key not in self._blocks:
            self._blocks[key] = self._top
            g, k = (size for _, size in self._planes(index))
            self._top += int(self.nest.model.structure.deal.held_planes(g, k, self.output.level))
        row = self.window.x.out * share.planes * self.words
        room = self._slots * self.window.x.out * self.words
        base = self._base + self._blocks[key] * room + slot * row
        n, _ = self.nest.image(index)
        region = self._region(n, (window,), *share.box)
        return self.output.piece(share, region, base, self.window.x.out, self.width)

    def _region(self, n: int, windows: tuple[int, ...], g: Range, k: Range) -> Region:
        columns = interval((0, self.window.x.out))
        return interval((n, 1)), axis(tuple(windows)), columns, interval(g), interval(k)


def _axis(points: range) -> Axis:
    return interval((points.start, len(points)))
