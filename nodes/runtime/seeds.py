"""Random generators, derived and never shared: one per (seed, purpose, round, participant)."""

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *, round: int = 0, participant: int = 0) -> np.random.Generator:
    """Return the generator for one purpose, independent of all others and of call order.

    `round` counts from 1 and `participant` from 0; leave at 0 what the purpose does not depend on.
    Raises ValueError for a negative number.

    >>> a = generator(1313, "shuffle", round=2, participant=3).integers(1 << 30)
    >>> bool(a == generator(1313, "shuffle", round=2, participant=3).integers(1 << 30))
    True
    >>> bool(a == generator(1313, "shuffle", round=3, participant=2).integers(1 << 30))
    False
    """
    if min(seed, round, participant) < 0:
        raise ValueError(f"seed {seed}, round {round} and participant {participant} must not be negative")
    tag = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence(entropy=(seed, tag), spawn_key=(round, participant)))
    )
