"""How a participant trains in one round: part of a scenario, and what an actor is told."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nodes.runtime.components import Config

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Adam(Config):
    """Adam (Kingma and Ba 2015, algorithm 1), bias-corrected; its state is created anew each round."""

    name: Literal["adam"] = "adam"
    lr: Positive = 1e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient, as torch.optim.Adam does (not AdamW)."""


class SGD(Config):
    """Stochastic gradient descent with heavy-ball momentum, as torch.optim.SGD (dampening 0, no Nesterov)."""

    name: Literal["sgd"] = "sgd"
    lr: Positive = 1e-2
    momentum: Fraction = 0.0
    weight_decay: NonNegative = 0.0


class TrainingSettings(Config):
    """Local training of one round: exactly one of `epochs` and `steps`."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the shard, each in a new order; the last batch of a pass may be smaller."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Minibatch steps, going on into further passes as needed and ending inside one."""
    batch_size: Annotated[int, Field(ge=1)] = 512
    """Rows of a minibatch."""
    optimizer: Annotated[Adam | SGD, Field(discriminator="name")] = Adam()
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the learning rate every `lr_decay_rounds` rounds: lr * lr_decay ** ((round - 1) // lr_decay_rounds)."""
    lr_decay_rounds: Annotated[int, Field(ge=1)] = 1
    exchange: Literal["weights", "gradients"] = "weights"
    """`weights`: the update is what local training added to the global model. `gradients` (FedSGD): the update is
    -lr times the gradient of one minibatch, so that a mean of updates is a step of the server."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of epochs and steps")
        return self
