"""Activations as functions of real values, with ONNX's parameters in ONNX's order.

``PRelu`` is not among them: its slope is an operand, not a parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnc_runtime.errors import UsageFault
from dnnc_runtime.program import Activation

Real = NDArray[Any]
"""An array of floating type."""


def real(activation: Activation, x: Real) -> Real:
    """The activation of real values, in their own floating type.

    Raises:
        UsageFault: the activation is not one of the table's.
    """
    if activation.name not in REAL:
        raise UsageFault(f"activation {activation.name!r} is unknown; known are {', '.join(REAL)} and PRelu")
    with np.errstate(over="ignore"):
        value: Real = REAL[activation.name](x, *(x.dtype.type(p) for p in activation.parameters))
    return value.astype(x.dtype, copy=False)


def _relu(x: Real) -> Real:
    return np.maximum(x, 0)


def _leaky_relu(x: Real, alpha: float = 0.01) -> Real:
    return np.where(x < 0, x * alpha, x)


def _clip(x: Real, low: float = -np.inf, high: float = np.inf) -> Real:
    return np.minimum(np.maximum(x, low), high)


def _hard_sigmoid(x: Real, alpha: float = 0.2, beta: float = 0.5) -> Real:
    return np.clip(x * alpha + beta, 0, 1)


def _hard_swish(x: Real) -> Real:
    return x * np.clip(x / 6 + 0.5, 0, 1)


def _sigmoid(x: Real) -> Real:
    return 1 / (1 + np.exp(-x))


def _tanh(x: Real) -> Real:
    return np.tanh(x)


REAL: dict[str, Callable[..., Real]] = {
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Sigmoid": _sigmoid,
    "Tanh": _tanh,
}
"""Activation -> its value."""
