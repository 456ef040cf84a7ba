"""The rows of an actor's participants, as they travel to it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from nodes.data.shard import Shard
from nodes.participant import ParticipantSpec
from nodes.runtime.arrays import F32, I64

Stacked: TypeAlias = tuple[list[int], F32, I64, I64]


@dataclass(frozen=True, slots=True)
class Holding:
    """Participants with their rows. Pickled as a few large arrays, of which every shard is then a view.

    Ten thousand small arrays would cost more than what they hold; large ones are shared by all processes of a machine.
    """

    participants: tuple[ParticipantSpec, ...]

    def __reduce__(self) -> tuple[object, ...]:
        ids = [spec.id for spec in self.participants]
        shards = _stack([spec.shard for spec in self.participants])
        tests = _stack([spec.local_test for spec in self.participants])
        return _unpack, (ids, shards, tests)


def _stack(shards: Sequence[Shard]) -> Stacked:
    ends = np.cumsum([len(shard) for shard in shards]).tolist()
    features_BF = np.concatenate([shard.features_BF for shard in shards])
    labels_B = np.concatenate([shard.labels_B for shard in shards])
    return ends, features_BF, labels_B, np.concatenate([shard.classes_B for shard in shards])


def _unstack(stacked: Stacked) -> Iterator[Shard]:
    ends, features_BF, labels_B, classes_B = stacked
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield Shard(features_BF[start:end], labels_B[start:end], classes_B[start:end])


def _unpack(ids: Sequence[int], shards: Stacked, tests: Stacked) -> Holding:
    specs = zip(ids, _unstack(shards), _unstack(tests), strict=True)
    return Holding(tuple(ParticipantSpec(*spec) for spec in specs))
