"""The text form of a graph: one line for each input, constant, node and output.

    graph "two layers" (ai.onnx 13)
    input data float32[1, 3, 8, 8]
    constant w float32[4, 3, 3, 3]
    node conv Conv(data, w, "") -> (y float32[1, 4, 6, 6]) {"kernel_shape": [3, 3]} covers (conv, bn)
    output y

A name stands bare where it can, else as a JSON string; attributes are a JSON object, bytes in it a hexadecimal
string in an object of their own. ``covers`` is left out where a node covers only itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from numpy.typing import NDArray

from dnnc.graph import AttributeValue, Graph, Loader, Node, Value
from dnnc_runtime.errors import ModelFault

T = TypeVar("T")

_BARE = re.compile(r"[\w./:@#$-]+", re.ASCII)
_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|(->|[(),\[\]{])|([\w./:@#$-]+))', re.ASCII)


def write(graph: Graph) -> str:
    """The text form of a graph."""
    opsets = ", ".join(f"{_name(domain or 'ai.onnx')} {version}" for domain, version in graph.opsets)
    lines = [f"graph {_name(graph.name)} ({opsets})"]
    lines += [f"input {_value(graph.value(name))}" for name in graph.inputs]
    lines += [f"constant {_value(value)}" for value in graph.values if value.constant]
    lines += [_node(graph, node) for node in graph.nodes]
    lines += [f"output {_name(name)}" for name in graph.outputs]
    return "\n".join(lines) + "\n"


def read(text: str) -> Graph:
    """The graph that a text form describes; its constants have no data.

    Raises:
        ModelFault: the text is malformed (the message names the line), or describes no graph.
    """
    draft = _Draft()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            _Line(number, line).read_into(draft)
    loaders: dict[str, Loader] = {v.name: _no_data(v.name) for v in draft.values if v.constant}
    return Graph(draft.name, draft.inputs, draft.outputs, draft.nodes, draft.values, loaders, draft.opsets)


def _no_data(name: str) -> Loader:
    def load() -> NDArray[Any]:
        raise ModelFault(f"constant {name!r} has no data: its graph was read from text; import the ONNX model instead")

    return load


def _name(name: str) -> str:
    return name if _BARE.fullmatch(name) and name != "->" else json.dumps(name)


def _value(value: Value) -> str:
    return f"{_name(value.name)} {value.dtype}{list(value.shape)}"


def _node(graph: Graph, node: Node) -> str:
    inputs = ", ".join(map(_name, node.inputs))
    outputs = ", ".join(_value(graph.value(name)) if name else '""' for name in node.outputs)
    line = f"node {_name(node.name)} {_name(node.operator)}({inputs}) -> ({outputs})"
    if node.attributes:
        line += f" {json.dumps({key: _plain(value) for key, value in node.attributes})}"
    if node.nodes != (node.name,):
        line += f" covers ({', '.join(map(_name, node.nodes))})"
    return line


def _plain(value: AttributeValue) -> object:
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


def _attribute(value: Any) -> AttributeValue:
    """The attribute that a JSON value stands for."""
    if isinstance(value, list):
        return tuple(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"])  # pyright: ignore[reportUnknownArgumentType]
    plain: int | float | str = value
    return plain


class _Draft:
    """What has been read so far."""

    def __init__(self) -> None:
        self.name = ""
        self.opsets: list[tuple[str, int]] = []
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.nodes: list[Node] = []
        self.values: list[Value] = []


class _Line:
    """A cursor over one line of text."""

    def __init__(self, number: int, text: str) -> None:
        self.number, self.text, self.at = number, text, 0

    def read_into(self, draft: _Draft) -> None:
        """Adds what the line declares to a draft."""
        keyword = self.name()
        if keyword == "graph":
            draft.name = self.name()
            draft.opsets = self.listed(self.opset)
        elif keyword == "input":
            draft.values.append(self.value())
            draft.inputs.append(draft.values[-1].name)
        elif keyword == "constant":
            draft.values.append(self.value(constant=True))
        elif keyword == "node":
            self.node(draft)
        elif keyword == "output":
            draft.outputs.append(self.name())
        else:
            self.fail("one of graph, input, constant, node, output")
        if self.text[self.at :].strip():
            self.fail("the end of the line")

    def node(self, draft: _Draft) -> None:
        name, operator = self.name(), self.name()
        inputs = self.listed(self.name)
        self.expect("->")
        outputs = self.listed(self.output)
        attributes: dict[str, Any] = self.attributes() if self.peek() == "{" else {}
        covers: tuple[str, ...] = ()
        if self.peek() == "covers":
            self.expect("covers")
            covers = tuple(self.listed(self.name))
        pairs = tuple((key, _attribute(value)) for key, value in attributes.items())
        names = tuple(value.name for value in outputs)
        draft.nodes.append(Node(name, operator, tuple(inputs), names, pairs, covers))
        draft.values += [value for value in outputs if value.name]

    def attributes(self) -> dict[str, Any]:
        start = self.text.index("{", self.at)
        try:
            found, self.at = json.JSONDecoder().raw_decode(self.text, start)
        except ValueError:
            self.fail("a JSON object of attributes")
        return dict(found)

    def opset(self) -> tuple[str, int]:
        domain = self.name()
        return ("" if domain == "ai.onnx" else domain), self.integer()

    def output(self) -> Value:
        return self.value() if self.peek() != '""' else Value(self.name(), ())

    def value(self, *, constant: bool = False) -> Value:
        name, dtype = self.name(), self.name()
        return Value(name, tuple(self.listed(self.integer, "[", "]")), dtype, constant)

    def integer(self) -> int:
        token = self.token()
        if not token.isdecimal():
            self.fail("an integer")
        return int(token)

    def name(self) -> str:
        token = self.token()
        if token.startswith('"'):
            return str(json.loads(token))
        if not _BARE.fullmatch(token):
            self.fail("a name")
        return token

    def listed(self, item: Callable[[], T], first: str = "(", last: str = ")") -> list[T]:
        out: list[T] = []
        self.expect(first)
        while self.peek() != last:
            if out:
                self.expect(",")
            out.append(item())
        self.expect(last)
        return out

    def expect(self, token: str) -> None:
        if self.peek() != token:
            self.fail(repr(token))
        self.token()

    def peek(self) -> str:
        match = _TOKEN.match(self.text, self.at)
        return match[0].strip() if match else ""

    def token(self) -> str:
        match = _TOKEN.match(self.text, self.at)
        if not match:
            self.fail("a name or a bracket")
        self.at = match.end()
        return match[0].strip()

    def fail(self, expected: str) -> NoReturn:
        found = self.text[self.at :].strip() or "the end of the line"
        raise ModelFault(f"graph text, line {self.number}: expected {expected}, found {found[:40]!r}")
