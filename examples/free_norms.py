"""A model without the normalisations that nothing folds: python examples/free_norms.py MODEL.onnx -o OUT.onnx.

A batch norm and an activation ahead of a convolution, as in DenseNet, are a layer of their own for a machine that
applies them to what it stores. Other tools count them as applied to what is loaded, where they move nothing. What dnnc
plans for the model that this writes is comparable with those; its numbers mean nothing.
"""

from __future__ import annotations

import argparse

import onnx

SCALED = ("BatchNormalization", "Mul", "Add", "Relu")
"""What may follow one another without a convolution ahead: a batch norm, its scale and shift apart, its activation."""


def without_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, in which those that begin with a batch norm of anything but a convolution are left out."""
    graph = model.graph
    computes = {output: node for node in graph.node for output in node.output}
    stands_for: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        before = computes.get(node.input[0]) if node.input else None
        begins = node.op_type == "BatchNormalization" and (before is None or before.op_type != "Conv")
        if begins or (node.op_type in SCALED and node.input[0] in stands_for):
            stands_for[node.output[0]] = stands_for.get(node.input[0], node.input[0])
            continue
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        renamed.input[:] = [stands_for.get(name, name) for name in node.input]
        kept.append(renamed)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


def main() -> None:
    """Writes the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-o", "--output", required=True)
    given = parser.parse_args()
    onnx.save(without_norms(onnx.load(given.model)), given.output)


if __name__ == "__main__":
    main()
