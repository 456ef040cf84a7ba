"""Cross-entropy with logits for a stack of members: K steps' labels known in advance, one step's gradient at a time.

Every row has a weight: 1 / size of its member's minibatch, or 0 where the member has no such row. The gradient of a row
of weight 0 is exactly zero, so it adds nothing to any sum.
"""

# Shapes: W slots, K steps, B rows, C outputs.
from typing import Protocol

import torch
from torch.nn import functional


class StackLoss(Protocol):
    """The loss of K steps on buffers that never move."""

    labels_dtype: torch.dtype

    def load(self, labels_WKB: torch.Tensor, weights_WKB: torch.Tensor) -> None:
        """Take the labels and row weights of K steps."""
        ...

    def select(self, step_1: torch.Tensor) -> None:
        """Go to the step whose number is in `step_1`, on the device."""
        ...

    def delta(self, logits_WBC: torch.Tensor, out_WBC: torch.Tensor) -> None:
        """Write the gradient with respect to the logits of the selected step."""
        ...

    def rows(self, logits_WKBC: torch.Tensor, labels_WKB: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row, [W, K, B], whatever its weight."""
        ...


class StackSigmoid:
    """Binary cross-entropy. With s = 2 label - 1 the loss is log(1 + exp(-s z)), its gradient -s / (1 + exp(s z))."""

    labels_dtype = torch.float32

    def __init__(self, slots: int, steps: int, rows: int, device: torch.device) -> None:
        self._flip_WKB = torch.zeros(slots, steps, rows, device=device)
        self._pull_WKB = torch.zeros(slots, steps, rows, device=device)
        self._flip_W1B = torch.zeros(slots, 1, rows, device=device)
        self._pull_W1B = torch.zeros(slots, 1, rows, device=device)

    def load(self, labels_WKB: torch.Tensor, weights_WKB: torch.Tensor) -> None:
        """See StackLoss; labels are 0 or 1."""
        torch.mul(labels_WKB, -2, out=self._flip_WKB).add_(1)
        torch.mul(self._flip_WKB, weights_WKB, out=self._pull_WKB)

    def select(self, step_1: torch.Tensor) -> None:
        """See StackLoss."""
        torch.index_select(self._flip_WKB, 1, step_1, out=self._flip_W1B)
        torch.index_select(self._pull_WKB, 1, step_1, out=self._pull_W1B)

    def delta(self, logits_WBC: torch.Tensor, out_WBC: torch.Tensor) -> None:
        """See StackLoss."""
        out_WB = out_WBC[:, :, 0]
        torch.mul(logits_WBC[:, :, 0], self._flip_W1B[:, 0], out=out_WB)
        out_WB.sigmoid_().mul_(self._pull_W1B[:, 0])

    def rows(self, logits_WKBC: torch.Tensor, labels_WKB: torch.Tensor) -> torch.Tensor:
        """See StackLoss."""
        return functional.binary_cross_entropy_with_logits(logits_WKBC[..., 0], labels_WKB, reduction="none")


class StackSoftmax:
    """Cross-entropy over C classes: log(sum_c exp(z_c)) - z_label; its gradient is softmax(z) - onehot(label)."""

    labels_dtype = torch.int64

    def __init__(self, slots: int, steps: int, rows: int, classes: int, device: torch.device) -> None:
        self._classes_C = torch.arange(classes, device=device)
        self._weights_WKB = torch.zeros(slots, steps, rows, device=device)
        self._targets_WKBC = torch.zeros(slots, steps, rows, classes, device=device)
        self._weights_W1B = torch.zeros(slots, 1, rows, device=device)
        self._targets_W1BC = torch.zeros(slots, 1, rows, classes, device=device)

    def load(self, labels_WKB: torch.Tensor, weights_WKB: torch.Tensor) -> None:
        """See StackLoss; labels are in [0, C)."""
        self._weights_WKB.copy_(weights_WKB)
        torch.mul(labels_WKB[..., None] == self._classes_C, weights_WKB[..., None], out=self._targets_WKBC)

    def select(self, step_1: torch.Tensor) -> None:
        """See StackLoss."""
        torch.index_select(self._weights_WKB, 1, step_1, out=self._weights_W1B)
        torch.index_select(self._targets_WKBC, 1, step_1, out=self._targets_W1BC)

    def delta(self, logits_WBC: torch.Tensor, out_WBC: torch.Tensor) -> None:
        """See StackLoss."""
        torch.softmax(logits_WBC, -1, out=out_WBC)
        out_WBC.mul_(self._weights_W1B[:, 0, :, None]).sub_(self._targets_W1BC[:, 0])

    def rows(self, logits_WKBC: torch.Tensor, labels_WKB: torch.Tensor) -> torch.Tensor:
        """See StackLoss."""
        chosen_WKB = logits_WKBC.gather(-1, labels_WKB[..., None])[..., 0]
        return logits_WKBC.logsumexp(-1) - chosen_WKB
