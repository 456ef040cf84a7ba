"""Arrays of the host kept on the device, sent once."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]


class Resident:
    """Tensors made of NumPy arrays, each for as long as somebody keeps the array.

    An array is known by its identity: a shard's rows stay the same object over the rounds, and a transform that changes
    labels leaves the features alone. Whoever changes an array in place would not be noticed; shards are never changed.
    `sent` counts the arrays that travelled.
    """

    def __init__(self, device: torch.device) -> None:
        self.sent = 0
        self._device = device
        self._held: dict[int, tuple[weakref.ref[Array], torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, array: Array, prepare: Callable[[Array], Array]) -> torch.Tensor:
        """Return `prepare(array)` on the device; `prepare` must be the same for an array whenever it comes."""
        key, held = id(array), self._held
        if key in held:
            return held[key][1]
        tensor = torch.from_numpy(prepare(array)).to(self._device)
        self.sent += 1
        # The callback runs before the id can be another array's.
        held[key] = weakref.ref(array, lambda _: held.pop(key, None)), tensor
        return tensor


def padded(features_BF: Array, width: int) -> Array:
    """Return [B + 1, width]: the rows, a column of ones, zeros up to `width`, and one row of zeros at the end.

    >>> padded(np.float32([[5, 6]]), 4)
    array([[5., 6., 1., 0.],
           [0., 0., 0., 0.]], dtype=float32)
    """
    rows, columns = features_BF.shape
    result = np.zeros((rows + 1, width), np.float32)
    result[:rows, :columns] = features_BF
    result[:rows, columns] = 1
    return result
