"""How several perceptrons lie in one matrix [W, P], and how a flat vector of the public layout gets in and out.

A layer of I inputs and O outputs is [O, Q], as in nodes.training.workspace: its weights, its bias in column I, then
zeros up to a multiple of four, so that every row starts on 16 bytes (what vector loads need) and every member on 256.
Inputs carry a one in column I and zeros after it: what is padded gets a gradient of exactly zero and stays zero.
"""

# Shapes: W slots, P packed parameters, D parameters, O outputs, I inputs, Q = I + 1 rounded up.
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from nodes.runtime.arrays import F32

LANE = 4
ROW = 64


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


class StackLayout:
    """Shapes of the packed layers of perceptrons of `widths`.

    >>> layout = StackLayout((39, 128, 1))
    >>> layout.input_widths, layout.size
    ((40, 132), 5312)
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self.widths = tuple(widths)
        self.input_widths = tuple(_up(wide + 1, LANE) for wide in widths[:-1])
        self.shapes = tuple(zip(widths[1:], self.input_widths, strict=True))
        self.size = _up(sum(math.prod(shape) for shape in self.shapes), ROW)

    def layers(self, packed_WP: torch.Tensor) -> list[torch.Tensor]:
        """Return the views [W, O, Q] of the layers."""
        views, offset = [], 0
        for shape in self.shapes:
            size = math.prod(shape)
            views.append(packed_WP[:, offset : offset + size].view(-1, *shape))
            offset += size
        return views

    def pack(self, public_D: F32, packed_P: F32) -> None:
        """Write a vector of the public layout (weight [O, I], then bias [O]) into a packed one, padding zero."""
        packed_P[:] = 0
        start = offset = 0
        for (wide, narrow), (_, across) in zip(itertools.pairwise(self.widths), self.shapes, strict=True):
            layer = packed_P[offset : offset + narrow * across].reshape(narrow, across)
            layer[:, :wide] = public_D[start : start + narrow * wide].reshape(narrow, wide)
            layer[:, wide] = public_D[start + narrow * wide : start + narrow * (wide + 1)]
            start, offset = start + narrow * (wide + 1), offset + narrow * across

    def unpack(self, packed_P: F32, public_D: F32) -> None:
        """Write a packed vector into one of the public layout."""
        start = offset = 0
        for (wide, narrow), (_, across) in zip(itertools.pairwise(self.widths), self.shapes, strict=True):
            layer = packed_P[offset : offset + narrow * across].reshape(narrow, across)
            public_D[start : start + narrow * wide] = np.ravel(layer[:, :wide])
            public_D[start + narrow * wide : start + narrow * (wide + 1)] = layer[:, wide]
            start, offset = start + narrow * (wide + 1), offset + narrow * across
