"""Buffers of a multilayer perceptron, and its forward and backward pass on them.

A layer of I inputs and O outputs is one matrix [O, I + 1], its bias the last column, and every layer's input carries
a column of ones: the bias and its gradient come out of the matrix products, which measured faster than separate
passes. `pack` and `unpack` translate to the public layout (weight [O, I], then bias [O]).
"""

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nodes.runtime.arrays import F32

U32: TypeAlias = npt.NDArray[np.uint32]


def augmented(flat_D: F32, widths: Sequence[int]) -> list[F32]:
    """Return the views [O, I + 1] of the layers in a packed vector."""
    views, offset = [], 0
    for wide, narrow in itertools.pairwise(widths):
        size = narrow * (wide + 1)
        views.append(flat_D[offset : offset + size].reshape(narrow, wide + 1))
        offset += size
    return views


def _public(flat_D: F32, widths: Sequence[int]) -> list[tuple[F32, F32]]:
    """Return the views (weight [O, I], bias [O]) of the layers in a vector of the public layout."""
    views, offset = [], 0
    for wide, narrow in itertools.pairwise(widths):
        middle, end = offset + narrow * wide, offset + narrow * (wide + 1)
        views.append((flat_D[offset:middle].reshape(narrow, wide), flat_D[middle:end]))
        offset = end
    return views


def pack(public_D: F32, packed_D: F32, widths: Sequence[int]) -> None:
    """Copy a vector of the public layout into a packed one."""
    for (weight, bias), layer in zip(_public(public_D, widths), augmented(packed_D, widths), strict=True):
        layer[:, :-1] = weight
        layer[:, -1] = bias


def unpack(packed_D: F32, public_D: F32, widths: Sequence[int]) -> None:
    """Copy a packed vector into one of the public layout."""
    for (weight, bias), layer in zip(_public(public_D, widths), augmented(packed_D, widths), strict=True):
        weight[:] = layer[:, :-1]
        bias[:] = layer[:, -1]


class Workspace:
    """Packed parameters and gradient, and activations for as many rows as `batch` was asked for so far."""

    def __init__(self, widths: Sequence[int]) -> None:
        size = sum(narrow * (wide + 1) for wide, narrow in itertools.pairwise(widths))
        self.widths = tuple(widths)
        self.params_D = np.zeros(size, np.float32)
        self.grad_D = np.zeros(size, np.float32)
        self.hidden: list[F32] = []
        self.masks: list[U32] = []
        self._capacity = 0

    def batch(self, rows: int) -> "BatchSpace":
        """Return the passes for minibatches of `rows` rows, on these buffers."""
        if rows > self._capacity:
            shapes = [(rows, width + 1) for width in self.widths[1:-1]]
            self.hidden = [np.ones(shape, np.float32) for shape in shapes]
            self.masks = [np.zeros(shape, np.uint32) for shape in shapes]
            self._capacity = rows
        return BatchSpace(self, rows)


class BatchSpace:
    """Forward and backward pass for minibatches of one size, on a workspace's buffers."""

    def __init__(self, space: Workspace, rows: int) -> None:
        params, self._grads = augmented(space.params_D, space.widths), augmented(space.grad_D, space.widths)
        self._hidden = [
            _Hidden(whole[:rows], mask[:rows]) for whole, mask in zip(space.hidden, space.masks, strict=True)
        ]
        self._forward = list(zip([layer.T for layer in params[:-1]], self._hidden, strict=True))
        backward = zip(self._grads[1:], [layer[:, :-1] for layer in params[1:]], self._hidden, strict=True)
        self._backward = list(backward)[::-1]
        self._last = params[-1]
        self.delta_CB: F32 = np.zeros((space.widths[-1], rows), np.float32)
        """Where the gradient with respect to the logits goes before `backward`."""

    def forward(self, inputs_BI: F32, logits_CB: F32) -> None:
        """Write the logits of the augmented rows [B, F + 1]."""
        for weight, hidden in self._forward:
            np.matmul(inputs_BI, weight, out=hidden.values)
            np.maximum(hidden.groups, hidden.zeros, out=hidden.groups)
            inputs_BI = hidden.whole
        np.matmul(self._last, inputs_BI.T, out=logits_CB)

    def backward(self, inputs_BI: F32) -> None:
        """Write the packed gradient, from `delta_CB` and the activations that `forward` left; they are overwritten."""
        delta_OB = self.delta_CB
        for gradient, weight, hidden in self._backward:
            np.matmul(delta_OB, hidden.whole, out=gradient)
            np.sign(hidden.bits, out=hidden.mask)
            product = np.multiply if len(delta_OB) == 1 else np.matmul
            product(delta_OB.T, weight, out=hidden.values)
            np.multiply(hidden.bits, hidden.mask, out=hidden.bits)
            delta_OB = hidden.values.T
        np.matmul(delta_OB, inputs_BI, out=self._grads[0])


class _Hidden:
    """Views of one hidden layer's activations [B, O + 1], later the gradients with respect to them.

    The mask of the active units is made and applied on the bits: 1 where the activation is not +0, and a product with
    0 or 1 clears or keeps a value. Integers are vectorised here, products with booleans are not.
    `groups` has the same memory in long rows, so that one short row of zeros serves a vectorised maximum.
    """

    __slots__ = ("bits", "groups", "mask", "values", "whole", "zeros")

    def __init__(self, whole: F32, mask: U32) -> None:
        rows, width = whole.shape
        length = math.gcd(rows, 32) * width
        self.whole = whole
        self.values = whole[:, :-1]
        self.bits = whole.view(np.uint32)
        self.mask = mask
        self.groups = whole.reshape(-1, length)
        self.zeros = np.zeros(length, np.float32)
