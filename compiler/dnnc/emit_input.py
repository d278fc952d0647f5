"""Emits the input's loads and moves, and finds the pieces of every tile: current, kept, received and pinned rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dnnc.nest import Index, Nest, listed
from dnnc.places import Area, Range, Ring, Unit, axis, interval
from dnnc.schedule import Dim
from dnnc_runtime.program import Instruction, Load, Move
from dnnc_runtime.tensor import Piece, Region


@dataclass(frozen=True, slots=True)
class Holding:
    """Channels that some units hold alike: one broadcast load for all of them."""

    units: tuple[Unit, ...]
    instances: tuple[int, ...]
    groups: Range
    channels: Range


class InputSide:
    """The input of one layer: what lies where, tile by tile."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.memory = nest.machine.memory_of("input").name
        self.level = nest.model.level("input")
        self.vector = nest.layer.shape.kind == "vector"
        self.relevant = sorted(nest.model.relevant["input"])
        self.pin = nest.schedule.pin if nest.schedule.pin and nest.schedule.pin.operand == "input" else None
        base = nest.places.base["input"]
        self._measure()
        self._loads = 0
        self._held: dict[tuple[int, int, int, int], list[Holding]] = {}
        self._current: tuple[int, ...] | None = None
        self._found: dict[tuple[object, ...], tuple[Piece, ...]] = {}
        self._areas = [Area(base, self._columns, self._channels) for _ in nest.row_units]
        self._spare = base + self._words
        pinned = base + nest.places.words["input"] - self._pinned_words - self._side_words
        self._sides = [
            Area(pinned + self._pinned_words, self._side_columns, self._side_channels) for _ in nest.row_units
        ]
        self._side_key: object = None
        self._sent: set[tuple[int, ...]] = set()
        self._side_offsets: dict[tuple[int, int], int] = {}
        self._side_top = 0
        self._pins = [Area(pinned, self._pin_columns, self._pin_channels) for _ in nest.row_units]
        self._pin_key: object = None
        self._pin_groups: dict[int, int] = {}
        self._pinned_tiles: set[tuple[int, ...]] = set()
        axis_of_halo = nest.model.halo_axis
        keeps = nest.schedule.keep and axis_of_halo is not None
        self._halo: Dim | None = axis_of_halo if keeps else None
        self._ring = [Ring(self._slots()) for _ in nest.row_units]

    # -- sizes ------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        """Extents of the buffers, as the closed forms count them."""
        model, t = self.nest.model, self.nest.tiles
        dim = self.pin.dim if self.pin else None
        self._rows = int(model.tile_extent(t, "y", dim))
        self._columns = int(model.tile_extent(t, "x", dim))
        self._channels = int(model.input_planes(t, model.unpinned(t, "c", dim), model.unpinned(t, "g", dim)))
        self._words = self._rows * self._columns * self._channels
        self._side_columns = int(model.side_columns(t))
        self._side_channels = int(model.side_planes(t))
        self._side_words = int(t.at("y", "side")) * self._side_columns * self._side_channels
        self._pinned_words = int(model.pinned_words(t)) if self.pin else 0
        self._pin_columns, self._pin_channels = 1, 1
        if self.pin:
            inside = model.structure.inside
            if self.pin.dim == "x":
                self._pin_columns = int(t.pins("x", "unit", t.pinned))
            else:
                self._pin_columns = int(t.at("x", "union_unit")) if inside("x", "k") else self._columns
            self._pin_width = self._pinned_depth()
            self._pin_channels = self._pin_width * int(model.pinned_groups(t))

    def _pinned_depth(self) -> int:
        """Channels of one group that stay."""
        assert self.pin
        nest = self.nest
        if self.pin.dim == "c":
            return self.pin.tiles * nest.schedule.c
        return nest.layer.shape.c if nest.model.structure.inside("c", "k") else nest.schedule.c

    def _slots(self) -> int:
        """Slots of a kept halo's ring: the tile, and whole rows (or columns) of the spare buffer."""
        room = self.nest.places.words["input"] - self._pinned_words - self._side_words - self._words
        across = (self._columns if self._halo == "y" else self._rows) * self._channels
        return (self._rows if self._halo == "y" else self._columns) + room // max(across, 1)

    # -- one visit --------------------------------------------------------------------------------------------

    def visit(self, index: Index) -> Iterator[Instruction]:
        """Loads and moves before the tile of an index is used."""
        if self._is_pinned(index):
            yield from self._load_pinned(index)
            return
        key = tuple(index[d] for d in self.relevant)
        if key == self._current:
            return
        self._found = {}
        yield from self._load(index)
        self._current = key

    def _is_pinned(self, index: Index) -> bool:
        return self.pin is not None and index[self.pin.dim] < self.pin.tiles

    def _holdings(self, index: Index, row: int) -> list[Holding]:
        """The distinct channel shares of a row unit's memories."""
        key = index["g"], index["c"], index["k"] if self.vector else 0, row
        if key not in self._held:
            self._held[key] = self._distinct(index, row)
        return self._held[key]

    def _distinct(self, index: Index, row: int) -> list[Holding]:
        nest, out = self.nest, dict[tuple[Range, Range], list[Unit]]()
        g, c = nest.plane("g", index["g"]), nest.plane("c", index["c"])
        for unit in nest.homes["input"]:
            if unit.row != row:
                continue
            if self.vector:
                boxes = nest.dealt.planes(unit, self.level, (0, 1), nest.plane("k", index["k"]))
                share = boxes[0] if boxes else ((0, 0), (0, 0))
            else:
                share = nest.dealt.groups(unit, self.level, g), c
            if share[0][1] and share[1][1]:
                out.setdefault(share, []).append(unit)
        homes = nest.homes["input"]
        return [Holding(tuple(us), tuple(homes[u] for u in us), *share) for share, us in out.items()]

    def _load(self, index: Index) -> Iterator[Instruction]:
        n, step = self.nest.image(index)
        columns = listed(self.nest.in_columns(index["x"]))
        transfers: list[Region] = []
        pieces: list[Piece] = []
        for u in self.nest.row_units:
            rows = self.nest.halo.need[u][step] if step < len(self.nest.halo.need[u]) else 0
            if not rows or not columns:
                self._areas[u].rows = {}
                continue
            load_rows, load_columns = self._place(u, index, rows, columns)
            own = load_rows & ~self.nest.halo.received[u] if self.nest.steps == 1 else load_rows
            if own and load_columns:
                self._transfer(index, u, self._areas[u], listed(own), load_columns, transfers, pieces)
        self._loads += 1
        if pieces:
            yield Load("input", self.memory, "word", tuple(transfers), tuple(pieces))
        yield from self._moves(index, n, step)

    def _place(self, u: int, index: Index, rows: int, columns: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """Gives the tile's rows and columns slots; returns those that have to be loaded."""
        n, step = self.nest.image(index)
        area = self._areas[u]
        if self._halo == "y":
            keep = self.nest.halo.need[u][step - 1] & rows if step else 0
            new = rows & ~keep
            kept = {(n, y): area.rows[n, y] for y in listed(keep) if (n, y) in area.rows}
            slots = self._ring[u].take(new.bit_count(), set(kept.values()))
            area.rows = kept | {(n, y): s for y, s in zip(listed(new), slots, strict=True)}
            area.columns = {x: i for i, x in enumerate(columns)}
            return new, columns
        if self._halo == "x":
            before = set(listed(self.nest.in_columns(index["x"] - 1))) if index["x"] else set[int]()
            left = {x: area.columns[x] for x in columns if x in before and x in area.columns}
            fresh = tuple(x for x in columns if x not in before)
            area.width = self._ring[u].size
            slots = self._ring[u].take(len(fresh), set(left.values()))
            area.columns = left | dict(zip(fresh, slots, strict=True))
            area.rows = {(n, y): i for i, y in enumerate(listed(rows))}
            return rows, fresh
        self._alternate(area, rows.bit_count())
        area.rows = {(n, y): i for i, y in enumerate(listed(rows))}
        area.columns = {x: i for i, x in enumerate(columns)}
        return rows, columns

    def _alternate(self, area: Area, rows: int) -> None:
        """Every other load goes to the spare buffer, where there is one that holds it."""
        places = self.nest.places
        room = places.base["input"] + places.words["input"] - self._pinned_words - self._side_words - self._spare
        fits = rows * self._columns * self._channels <= room
        area.base = self._spare if self._loads % 2 and fits else places.base["input"]

    def _transfer(
        self, index: Index, u: int, area: Area, rows: tuple[int, ...], columns: tuple[int, ...],
        transfers: list[Region], pieces: list[Piece],
    ) -> None:  # fmt: skip
        """Adds the DRAM region of these rows and columns, and the pieces it lands in."""
        n, _ = self.nest.image(index)
        g, c = self.nest.plane("g", index["g"]), self.nest.plane("c", index["c"])
        if self.vector:
            g, c = (0, 1), self.nest.plane("k", index["k"])
        transfers.append((interval((n, 1)), axis(rows), axis(columns), interval(g), interval(c)))
        pieces.extend(
            self._piece(area, held, held.instances, n, ys, xs, held.groups, held.channels)
            for ys, xs in area.boxes(n, rows, columns)
            for held in self._holdings(index, u)
        )

    def _piece(
        self, area: Area, held: Holding, instances: tuple[int, ...], n: int, ys: tuple[int, ...], xs: tuple[int, ...],
        groups: Range, channels: Range,
    ) -> Piece:  # fmt: skip
        pitch = held.channels[1]
        word = (groups[0] - held.groups[0]) * pitch + channels[0] - held.channels[0]
        return area.piece(instances, n, ys, xs, groups, channels, word, pitch)

    # -- moves between units ----------------------------------------------------------------------------------

    def _moves(self, index: Index, n: int, step: int) -> Iterator[Instruction]:
        key = (*self.nest.outside("y", index), n)
        if key != self._side_key:
            self._side_key = key
            self._sent = set()
            self._side_offsets, self._side_top = {}, 0
            for side in self._sides:
                side.rows, side.columns = {}, {}
        columns = listed(self.nest.in_columns(index["x"]))
        for when, source, target, mask in self.nest.halo.sent:
            if when != step or not columns:
                continue
            moved = list(self._move(index, n, source, target, listed(mask), columns))
            if moved:
                here, there = zip(*moved, strict=True)
                yield Move("input", self.memory, "word", tuple(here), tuple(there))

    def _move(
        self, index: Index, n: int, source: int, target: int, rows: tuple[int, ...], columns: tuple[int, ...]
    ) -> Iterator[tuple[Piece, Piece]]:
        inline = self.nest.steps == 1
        key = (index["k"], 0) if self.vector else (index["g"], index["c"])
        if inline:
            # With a kept column halo, the columns of the tile before are there already.
            before = self.nest.in_columns(index["x"] - 1) if self._halo == "x" and index["x"] else 0
            columns = tuple(x for x in columns if not before >> x & 1)
        else:
            columns = tuple(x for x in columns if (target, rows[0], x, *key) not in self._sent)
            self._sent |= {(target, y, x, *key) for y in rows for x in columns}
        there = self._areas[target] if inline else self._side(target, index, n, rows, columns)
        offset = 0 if inline else self._side_offset(index)
        for ys, xs in self._areas[source].boxes(n, rows, columns, there):
            for a, b in zip(self._holdings(index, source), self._holdings(index, target), strict=True):
                for unit_a, unit_b in zip(a.units, b.units, strict=True):
                    homes = self.nest.homes["input"]
                    one, two = (homes[unit_a],), (homes[unit_b],)
                    pitch = a.channels[1]
                    yield (
                        self._areas[source].piece(one, n, ys, xs, a.groups, a.channels, 0, pitch),
                        there.piece(two, n, ys, xs, b.groups, b.channels, offset, pitch),
                    )

    def _side_offset(self, index: Index) -> int:
        """Words into a pixel of the received rows at which the channels of this tile lie."""
        key = (index["k"], 0) if self.vector else (index["g"], index["c"])
        if key not in self._side_offsets:
            self._side_offsets[key] = self._side_top
            deal, tile = self.nest.model.structure.deal, self.nest.plane("g", index["g"])
            groups = 1 if self.vector else int(deal.held_groups(tile[1], self.level))
            channel: Dim = "k" if self.vector else "c"
            self._side_top += groups * self.nest.plane(channel, index[channel])[1]
        return self._side_offsets[key]

    def _side(self, target: int, index: Index, n: int, rows: tuple[int, ...], columns: tuple[int, ...]) -> Area:
        side = self._sides[target]
        for y in rows:
            side.rows.setdefault((n, y), len(side.rows))
        for x in columns:
            side.columns.setdefault(x, len(side.columns))
        return side

    # -- pinned tiles -----------------------------------------------------------------------------------------

    def _load_pinned(self, index: Index) -> Iterator[Instruction]:
        assert self.pin
        self._renew_pins(index)
        tile = tuple(index[d] for d in self.relevant)
        if tile in self._pinned_tiles:
            return
        self._pinned_tiles.add(tile)
        self._found = {}
        n, _ = self.nest.image(index)
        columns = self.nest.in_columns(index["x"])
        if self.nest.model.structure.inside("x", "k"):
            columns &= ~_all(self.nest.in_columns(i) for i in range(index["x"]))
        transfers: list[Region] = []
        pieces: list[Piece] = []
        for u, area in enumerate(self._pins):
            rows = self._added_rows(u, index)
            for y in listed(rows):
                area.rows.setdefault((n, y), len(area.rows))
            for x in listed(columns):
                area.columns.setdefault(x, len(area.columns))
            own = rows & ~self.nest.halo.received[u]
            if own and columns:
                self._transfer_pinned(index, u, area, listed(own), listed(columns), transfers, pieces)
        if pieces:
            yield Load("input", self.memory, "word", tuple(transfers), tuple(pieces))
        for _, source, target, mask in self.nest.halo.sent:
            moved = list(self._move_pinned(index, source, target, listed(mask), listed(columns)))
            if moved:
                here, there = zip(*moved, strict=True)
                yield Move("input", self.memory, "word", tuple(here), tuple(there))

    def _move_pinned(
        self, index: Index, source: int, target: int, rows: tuple[int, ...], columns: tuple[int, ...]
    ) -> Iterator[tuple[Piece, Piece]]:
        """Rows of a pinned tile that both units need: with a single row step, moved as soon as they are loaded."""
        n, _ = self.nest.image(index)
        here, there = self._pins[source], self._pins[target]
        homes = self.nest.homes["input"]
        for ys, xs in here.boxes(n, rows, columns, there):
            for a, b in zip(self._holdings(index, source), self._holdings(index, target), strict=True):
                word = self._pin_word(index, a.channels)
                for unit_a, unit_b in zip(a.units, b.units, strict=True):
                    yield (
                        here.piece((homes[unit_a],), n, ys, xs, a.groups, a.channels, word, self._pin_width),
                        there.piece((homes[unit_b],), n, ys, xs, b.groups, b.channels, word, self._pin_width),
                    )

    def _renew_pins(self, index: Index) -> None:
        """Forget the pinned tiles where a loop outside the pinned one has moved on."""
        assert self.pin
        key = self.nest.outside(self.pin.loop, index)
        if key == self._pin_key:
            return
        self._pin_key = key
        self._found = {}
        self._pin_groups, self._pinned_tiles = {}, set()
        for area in self._pins:
            area.rows, area.columns = {}, {}

    def _added_rows(self, unit: int, index: Index) -> int:
        """Rows of a pinned tile that no pinned tile before it has."""
        _, step = self.nest.image(index)
        need = self.nest.halo.need[unit]
        if step >= len(need):
            return 0
        return need[step] & ~_all(need[:step]) if self.nest.model.structure.inside("y", "k") else need[step]

    def _transfer_pinned(
        self, index: Index, u: int, area: Area, rows: tuple[int, ...], columns: tuple[int, ...],
        transfers: list[Region], pieces: list[Piece],
    ) -> None:  # fmt: skip
        n, _ = self.nest.image(index)
        g, c = self.nest.plane("g", index["g"]), self.nest.plane("c", index["c"])
        transfers.append((interval((n, 1)), axis(rows), axis(columns), interval(g), interval(c)))
        for ys, xs in area.boxes(n, rows, columns):
            for held in self._holdings(index, u):
                word = self._pin_word(index, held.channels)
                pieces.append(area.piece(held.instances, n, ys, xs, held.groups, held.channels, word, self._pin_width))

    def _pin_word(self, index: Index, channels: Range) -> int:
        """Words into a pinned pixel at which a tile's first group and channel lie."""
        share = int(self.nest.model.groups_over(self.nest.tiles, False))
        group = self._pin_groups.setdefault(index["g"], share * len(self._pin_groups))
        assert self.pin
        whole = self.pin.dim == "c" or self.nest.model.structure.inside("c", "k")
        return group * self._pin_width + (channels[0] if whole else 0)

    # -- what a part of a compute instruction reads -----------------------------------------------------------

    def pieces(self, index: Index, unit: Unit, groups: Range, channels: Range) -> tuple[Piece, ...]:
        """The pieces, in one unit's memory, of the input that its output rows of the current tile need."""
        held = next((h for h in self._holdings(index, unit.row) if unit in h.units), None)
        if held is None:
            return ()
        # Units of the same rows and channels hold them alike, until something is loaded.
        tile = tuple([index[d] for d in self.relevant])
        key = tile, unit.row, held.groups, held.channels, groups, channels
        one = (self.nest.homes["input"][unit],)
        if key not in self._found:
            self._found[key] = tuple(self._needed(index, unit, held, one, groups, channels))
        found = self._found[key]
        if found and found[0].instances != one:
            return tuple([Piece(one, piece.base, piece.pitch, piece.region) for piece in found])
        return found

    def _needed(
        self, index: Index, unit: Unit, held: Holding, one: tuple[int, ...], groups: Range, channels: Range
    ) -> list[Piece]:
        n, step = self.nest.image(index)
        need = self.nest.in_rows(unit.row, step)
        columns = listed(self.nest.in_columns(index["x"]))
        if not need or not columns:
            return []
        area = self._areas[unit.row]
        if self._is_pinned(index):
            return list(self._from_pins(index, held, one, n, need, columns, groups, channels))
        received = self.nest.halo.received[unit.row] & need if self.nest.steps > 1 else 0
        own = need & ~received
        out: list[Piece] = []
        if self.pin:
            out.extend(self._kept_in_pins(index, held, one, own, columns, groups, channels))
            own = _mask(y for y in listed(own) if (n, y) in area.rows)
            columns = tuple(x for x in columns if x in area.columns)
        if received:
            side, offset = self._sides[unit.row], self._side_offset(index)
            word = offset + (groups[0] - held.groups[0]) * held.channels[1] + channels[0] - held.channels[0]
            for ys, xs in side.boxes(n, listed(received), columns):
                out.append(side.piece(one, n, ys, xs, groups, channels, word, held.channels[1]))
        if own:
            boxes = area.boxes(n, listed(own), columns)
            out.extend(self._piece(area, held, one, n, ys, xs, groups, channels) for ys, xs in boxes)
        return out

    def _kept_in_pins(
        self, index: Index, held: Holding, one: tuple[int, ...], rows: int, columns: tuple[int, ...],
        groups: Range, channels: Range,
    ) -> Iterator[Piece]:  # fmt: skip
        """The rows, or columns, of a tile that is not pinned which the pinned tile before it holds."""
        n, area = self.nest.image(index)[0], self._areas[held.units[0].row]
        missing = _mask(y for y in listed(rows) if (n, y) not in area.rows)
        left = tuple(x for x in columns if x not in area.columns)
        for ys, xs in ((missing, columns), (rows & ~missing, left)):
            if ys and xs:
                yield from self._from_pins(index, held, one, n, ys, xs, groups, channels)

    def _from_pins(
        self, index: Index, held: Holding, one: tuple[int, ...], n: int, rows: int, columns: tuple[int, ...],
        groups: Range, channels: Range,
    ) -> Iterator[Piece]:  # fmt: skip
        area = self._pins[next(iter(held.units)).row]
        word = self._pin_word(index, channels) + (groups[0] - held.groups[0]) * self._pin_width
        for ys, xs in area.boxes(n, listed(rows), columns):
            yield area.piece(one, n, ys, xs, groups, channels, word, self._pin_width)


def _all(masks: Iterable[int]) -> int:
    out = 0
    for mask in masks:
        out |= mask
    return out


def _mask(points: Iterator[int]) -> int:
    out = 0
    for point in points:
        out |= 1 << point
    return out
