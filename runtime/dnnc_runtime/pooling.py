"""The fused pool's bookkeeping: which rows every window has seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dnnc_runtime.errors import DisagreementFault
from dnnc_runtime.frame import Frame
from dnnc_runtime.program import Part
from dnnc_runtime.tensor import Piece, coordinates

Rows = frozenset[int]


class Windows:
    """The convolution rows that every partial result on chip has combined, by where its first word lies."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._seen: dict[tuple[int, int], Rows] = {}

    def combined(self, part: Part, before: Sequence[Piece], after: Sequence[Piece]) -> dict[int, Rows]:
        """Window -> the rows it has seen once this tile is combined with the partial results of before.

        Raises:
            DisagreementFault: a row is seen twice, a completed window lacks one, or a partial result is lost.
        """
        pool = self._frame.fused_pool
        assert pool is not None
        done = set(_windows(self._frame.completed(part)))
        tile = Rows(coordinates(part.region[1]))
        touched = {w: Rows(pool.y.touched(w, w)) for w in {*done, *_windows(after)}}
        rows = {w: tile & whole for w, whole in touched.items()}
        for w, at in _places(before):
            if w not in rows:
                raise DisagreementFault(f"the partial result of pooled row {w} is neither completed nor kept")
            if twice := rows[w] & self._seen[at]:
                raise DisagreementFault(f"pooled row {w} combines rows {sorted(twice)} twice")
            rows[w] |= self._seen[at]
        for w in done:
            if missing := touched[w] - rows[w]:
                raise DisagreementFault(f"pooled row {w} is completed without rows {sorted(missing)}")
        return rows

    def keep(self, after: Sequence[Piece], rows: dict[int, Rows]) -> None:
        """Partial results were written."""
        for w, at in _places(after):
            self._seen[at] = rows[w]

    def move(self, source: Sequence[Piece], target: Sequence[Piece]) -> None:
        """Partial results went to other units."""
        seen = [self._seen[at] for _, at in _places(source)]
        for rows, (_, at) in zip(seen, _places(target), strict=True):
            self._seen[at] = rows


def _windows(pieces: Iterable[Piece]) -> Iterator[int]:
    """The pooled rows that pieces hold."""
    return (row for piece in pieces for row in coordinates(piece.region[1]))


def _places(pieces: Iterable[Piece]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Every pooled row of pieces with its unit and first word."""
    for piece in pieces:
        for i, row in enumerate(coordinates(piece.region[1])):
            yield row, (piece.instances[0], piece.base + i * piece.pitch[1])
