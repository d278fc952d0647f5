"""What lies in DRAM: tensors, the values in them, and constants with what loads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from math import prod

import numpy as np
from numpy.typing import NDArray

from dnnc.constants import Arrange, Constant
from dnnc.graph import Graph
from dnnc.homes import Order
from dnnc.layout import Layout, dense
from dnnc_runtime.program import Tensor
from dnnc_runtime.tensor import View


class Dram:
    """Fills up while a graph is lowered.

    Args:
        graph: what its values and constants are.
        orders: how the axes of values lie that have a tensor of their own.
        homes: where values lie that have not.
    """

    def __init__(self, graph: Graph, orders: Mapping[str, Order], homes: Mapping[str, Layout]) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[str, Layout] = {}
        self._graph = graph
        self._orders = orders
        self._homes = homes
        self._constants: dict[str, Constant] = {}
        self._copies: dict[tuple[str, Order], Layout] = {}

    def place(self, value: str) -> Layout:
        """Where a computed value lies from now on: its home, or a tensor of its own."""
        layout = self._homes.get(value) or dense(value, self._graph.value(value).shape, self._orders[value])
        words = prod(self._graph.value(layout.tensor).shape)
        self.tensors.setdefault(layout.tensor, Tensor(layout.tensor, words))
        return self.values.setdefault(value, layout)

    def find(self, value: str, order: Order) -> Layout:
        """Where a value is to be read; a constant that is not in DRAM yet is put there in the order given."""
        if not self._graph.value(value).constant:
            return self.values[value]
        shape = self._graph.value(value).shape
        stored = Constant(value, (value,), tuple(shape[a] for a in order), Arrange(order))
        return dense(self.constant(stored).tensor, shape, order)

    def constant(self, constant: Constant) -> View:
        """The view of a constant on its own axes; equal constants share a tensor."""
        names = (constant.name if i == 1 else f"{constant.name}:{i}" for i in count(1))
        name = next(n for n in names if n not in self.tensors or self._constants.get(n) == constant)
        self._constants[name] = constant
        self.tensors[name] = Tensor(name, constant.words, constant=True)
        strides = (prod(constant.shape[i + 1 :]) for i in range(len(constant.shape)))
        return View(name, 0, constant.shape, tuple(strides))

    def copied(self, value: str, order: Order) -> tuple[Layout, bool]:
        """Where a copy of a value in this order lies or would lie, and whether it is there already."""
        if (value, order) in self._copies:
            return self._copies[value, order], True
        names = (f"{value}:copy" if i == 1 else f"{value}:copy{i}" for i in count(1))
        name = next(name for name in names if name not in self.tensors)
        return dense(name, self._graph.value(value).shape, order), False

    def keep(self, value: str, order: Order, copy: Layout) -> None:
        """Takes up a copy that :meth:`copied` proposed."""
        self._copies[value, order] = copy
        self.tensors[copy.tensor] = Tensor(copy.tensor, prod(copy.shape))

    def loaders(self) -> dict[str, Callable[[], NDArray[np.float32]]]:
        """For every constant tensor what loads, and makes, its data."""
        return {name: _loader(self._graph, constant) for name, constant in self._constants.items()}


def _loader(graph: Graph, constant: Constant) -> Callable[[], NDArray[np.float32]]:
    sources = [graph.constant_loader(name) for name in constant.sources]

    def load() -> NDArray[np.float32]:
        data = constant.make(*(source() for source in sources))
        return np.ascontiguousarray(data, np.float32).reshape(constant.shape)

    return load
