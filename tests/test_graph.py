"""Graphs: text that reads back, order, rewriting, and what is refused."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnc.graph import AttributeValue, Graph, Node, Value
from dnnc_runtime.errors import ModelFault

SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)
NAMES = st.one_of(st.text(string.ascii_letters + "/.:_", min_size=1), st.text(min_size=1, max_size=6))
NUMBERS = st.floats(allow_nan=False, width=32)
ATTRIBUTES: st.SearchStrategy[AttributeValue] = st.one_of(
    st.integers(-9, 9),
    NUMBERS,
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(-9, 9), max_size=3).map(tuple),
    st.lists(NUMBERS, min_size=1, max_size=3).map(tuple),
    st.lists(st.text(max_size=3), min_size=1, max_size=3).map(tuple),
)


def zeros(value: Value) -> Any:
    return lambda: np.zeros(value.shape, value.dtype)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any well-formed graph: nodes read earlier values, absent ones too, and are listed in any order."""
    names = draw(st.lists(NAMES, min_size=2, max_size=9, unique=True))
    first = draw(st.integers(1, len(names) - 1))
    constant = draw(st.lists(st.booleans(), min_size=first, max_size=first))
    values = [Value(name, draw(SHAPES), constant=c) for name, c in zip(names[:first], constant, strict=True)]
    nodes: list[Node] = []
    for i, name in enumerate(names[first:], first):
        inputs = draw(st.lists(st.sampled_from([*names[:i], ""]), max_size=3).map(tuple))
        attributes = draw(st.dictionaries(st.sampled_from("abc"), ATTRIBUTES))
        covers = draw(st.lists(NAMES, max_size=2).map(tuple))
        skipped = ("",) if draw(st.booleans()) else ()
        nodes.append(Node(f"n{i}", "Op", inputs, (*skipped, name), tuple(attributes.items()), covers))
        values.append(Value(name, draw(SHAPES), draw(st.sampled_from(["float32", "int64"]))))
    return Graph(
        draw(st.text(max_size=3)),
        [v.name for v in values[:first] if not v.constant],
        draw(st.lists(st.sampled_from(names), min_size=1, unique=True)),
        draw(st.permutations(nodes)),
        values,
        {v.name: zeros(v) for v in values if v.constant},
        draw(st.dictionaries(st.sampled_from(["", "ai.onnx.ml"]), st.integers(1, 30))).items(),
    )


def renamed(graph: Graph, prefix: str) -> Graph:
    """The graph with a prefix before every name of a value or a node."""

    def new(name: str) -> str:
        return name and prefix + name

    nodes = [
        replace(
            node,
            name=new(node.name),
            inputs=tuple(map(new, node.inputs)),
            outputs=tuple(map(new, node.outputs)),
            nodes=tuple(map(new, node.nodes)),
        )
        for node in graph.nodes
    ]
    values = [replace(value, name=new(value.name)) for value in graph.values]
    loaders = {new(v.name): graph.constant_loader(v.name) for v in graph.values if v.constant}
    ends = map(new, graph.inputs), map(new, graph.outputs)
    return Graph(graph.name, *ends, nodes, values, loaders, graph.opsets, graph.source)


@settings(max_examples=40)
@given(graphs())
def test_the_text_form_reads_back_to_an_equal_graph(graph: Graph) -> None:
    again = Graph.parse(str(graph))
    assert again == graph
    assert str(again) == str(graph)
    assert hash(again) == hash(graph)


@settings(max_examples=40)
@given(graphs())
def test_nodes_come_after_those_that_they_read_from(graph: Graph) -> None:
    place = {node.name: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        for name in filter(None, node.inputs):
            producer = graph.producer(name)
            assert producer is None or place[producer.name] < place[node.name]
            assert node in graph.consumers(name)


@settings(max_examples=40)
@given(graphs())
def test_renaming_changes_nothing_but_names(graph: Graph) -> None:
    assert renamed(renamed(graph, "a"), "b") == renamed(graph, "ba")
    assert [n.name for n in renamed(graph, "a").nodes] == ["a" + n.name for n in graph.nodes]


@settings(max_examples=40)
@given(graphs())
def test_a_rewrite_that_changes_nothing_gives_an_equal_graph(graph: Graph) -> None:
    assert graph.rewrite() == replace_all(graph) == graph.rewrite([n.name for n in graph.nodes], graph.nodes)


def replace_all(graph: Graph) -> Graph:
    for node in graph.nodes:
        graph = graph.rewrite([node.name], [node])
    return graph


def chain(*operators: str) -> Graph:
    """x -> operator -> v0 -> operator -> ..."""
    names = ["x", *(f"v{i}" for i in range(len(operators)))]
    nodes = [Node(f"n{i}", op, (names[i],), (names[i + 1],)) for i, op in enumerate(operators)]
    return Graph("chain", ["x"], [names[-1]], nodes, [Value(n, (2,)) for n in names], {}, [("", 13)])


def test_added_nodes_stand_where_the_removed_ones_stood() -> None:
    graph = chain("Relu", "Sum", "Tanh")
    parts = [Node("n1:1", "Add", ("v0", "v0"), ("m",)), Node("n1", "Add", ("m", "v0"), ("v1",))]
    again = graph.rewrite(["n1"], parts, [Value("m", (2,))])
    assert [node.name for node in again.nodes] == ["n0", "n1:1", "n1", "n2"]


def test_values_that_nothing_uses_go() -> None:
    graph = chain("Relu", "Identity")
    again = graph.rewrite(["n0", "n1"], [Node("n0", "Relu", ("x",), ("v1",), nodes=("n0", "n1"))])
    assert {value.name for value in again.values} == {"x", "v1"}


def test_the_text_form_is_what_its_description_says() -> None:
    w = Value("w", (4, 3, 3, 3), constant=True)
    conv = Node("conv", "Conv", ("data", "w", ""), ("y",), (("kernel_shape", (3, 3)),), ("conv", "bn"))
    values = [Value("data", (1, 3, 8, 8)), w, Value("y", (1, 4, 6, 6))]
    graph = Graph("two layers", ["data"], ["y"], [conv], values, {"w": zeros(w)}, [("", 13)])
    assert str(graph).splitlines() == [
        'graph "two layers" (ai.onnx 13)',
        "input data float32[1, 3, 8, 8]",
        "constant w float32[4, 3, 3, 3]",
        'node conv Conv(data, w, "") -> (y float32[1, 4, 6, 6]) {"kernel_shape": [3, 3]} covers (conv, bn)',
        "output y",
    ]


def test_a_graph_cannot_be_changed() -> None:
    graph = chain("Relu")
    with pytest.raises(nx.NetworkXError):
        graph.nx.add_node(("node", "other"))


def test_constants_are_loaded_when_they_are_wanted() -> None:
    loads: list[str] = []
    value = Value("w", (2,), constant=True)

    def load() -> Any:
        loads.append("w")
        return np.ones(2)

    graph = Graph("g", [], ["w"], [], [value], {"w": load})
    assert not loads
    assert graph.constant("w").tolist() == [1, 1]
    assert loads == ["w"]
    with pytest.raises(ModelFault, match="'w' has no data"):
        Graph.parse(str(graph)).constant("w")


@pytest.mark.parametrize(
    ("nodes", "values", "message"),
    [
        ([Node("a", "Op", ("y",), ("z",)), Node("b", "Op", ("z",), ("y",))], "yz", "cycle through nodes 'a' -> 'b'"),
        ([Node("a", "Op", ("a",), ("y",))], "y", "'a' .* names value 'a', which nothing produces"),
        ([Node("a", "Op", ("x",), ("y",)), Node("a", "Op", ("x",), ("z",))], "yz", "'a' .* is empty or used twice"),
        ([Node("", "Op", ("x",), ("y",))], "y", "'' .* is empty or used twice"),
        ([Node("a", "Op", ("x",), ("y",)), Node("b", "Op", ("x",), ("y",))], "y", "'y': it has more than one origin"),
        ([Node("a", "Op", ("y",), ("x",))], "y", "'x': it has more than one origin"),
        ([], "yz", "'y': nothing produces it"),
        ([], "", "'y' is not a value"),
    ],
)
def test_malformed_graphs_are_refused(nodes: list[Node], values: str, message: str) -> None:
    with pytest.raises(ModelFault, match=message):
        Graph("g", ["x"], ["y"], nodes, [Value(name, (1,)) for name in "x" + values], {})


def test_zero_sized_values_and_constants_without_data_are_refused() -> None:
    with pytest.raises(ModelFault, match=r"'x' has a zero-sized dimension: \[1, 0\]"):
        Graph("g", ["x"], [], [], [Value("x", (1, 0))], {})
    with pytest.raises(ModelFault, match="constant 'x' has no data"):
        Graph("g", [], ["x"], [], [Value("x", (1,), constant=True)], {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("inputs x float32[1]", "line 2: expected one of graph, input, constant, node, output"),
        ("input x float32[1", r"line 2: expected ','"),
        ("input x float32[a]", "line 2: expected an integer"),
        ("input x float32[1] y", "line 2: expected the end of the line, found 'y'"),
        ("node a Op(x) -> (y float32[1]) {1}", "line 2: expected a JSON object"),
        ("node a Op(x) (y float32[1])", "line 2: expected '->'"),
        ("input =", "line 2: expected a name"),
    ],
)
def test_malformed_text_is_refused_with_its_line(line: str, message: str) -> None:
    with pytest.raises(ModelFault, match=message):
        Graph.parse(f"graph g ()\n{line}\n")


def test_attributes_are_read_by_type() -> None:
    node = Node("n", "Op", ("x",), ("y",), (("size", 3), ("pads", (1, 2)), ("alpha", 0.5), ("mode", "edge")))
    assert (node.integer("size"), node.integers("pads"), node.number("alpha")) == (3, (1, 2), 0.5)
    assert (node.integer("none", 7), node.integers("none", (1,)), node.number("none", 2.0)) == (7, (1,), 2.0)
    assert (node.input(0), node.input(1)) == ("x", "")
    for read in (node.integer, node.integers, node.number):
        with pytest.raises(ModelFault, match=r"node 'n' \(Op\): attribute 'mode' is 'edge', not"):
            read("mode")
