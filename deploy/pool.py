"""A pool of Ray actors: started once, given one run after another, ended together."""

import asyncio
import logging
import math
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from deploy.prepared import Prepared
from nodes.holding import Holding
from nodes.participant import Assignment
from nodes.runtime.auth import Credentials
from nodes.runtime.errors import NodeError

READY_SECONDS = 120.0


def pack(num_participants: int, per_actor: int | Literal["auto"], cores: int) -> list[tuple[int, ...]]:
    """Deal participants, in order of id, to actors of `per_actor`; `auto` makes one actor per core of the cluster.

    >>> pack(5, 2, cores=2)
    [(0, 1), (2, 3), (4,)]
    >>> pack(5, "auto", cores=2)
    [(0, 1, 2), (3, 4)]
    """
    size = math.ceil(num_participants / max(cores, 1)) if per_actor == "auto" else per_actor
    return [tuple(range(start, min(start + size, num_participants))) for start in range(0, num_participants, size)]


def gpu_slots(gpus: float, share: float) -> int:
    """Return how many actors that reserve `share` of a GPU fit `gpus` of them; one actor's share is on one GPU.

    >>> gpu_slots(2, 0.3), gpu_slots(8, 0.1), gpu_slots(3, 2), gpu_slots(0, 1)
    (6, 80, 1, 0)
    """
    return math.floor(gpus / share) if share > 1 else math.floor(gpus) * math.floor(1 / share + 1e-9)


@dataclass
class Member:
    """One actor of the pool."""

    name: str
    handle: Any
    address: str = ""
    pid: int = 0
    node: str = ""
    num_gpus: float = 0.0


class Pool:
    """Actors on a Ray cluster: the one at `address`, or one started in-process and ended with the pool."""

    def __init__(self, address: str | None = None) -> None:
        self.credentials = Credentials()
        self.members: list[Member] = []
        self._address = address
        self._started = False
        self._placed = 0
        self._shared: tuple[object, list[Any]] | None = None

    def __enter__(self) -> Self:
        if self._address is None and "ray" not in sys.modules:
            # Ray reads them when it is imported; without, it would leave a token file in the home folder.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        try:
            ray.init(
                address=self._address or "local",
                include_dashboard=None if self._address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace="turncoat",
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise NodeError(f"Ray at {self._address or 'this machine'} did not start: {error}") from error
        self._started = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        for member in self.members:
            ray.kill(member.handle)
        if self._started:
            ray.shutdown()

    @property
    def cores(self) -> int:
        """CPUs of the cluster."""
        import ray

        return int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]

    def slots(self, num_gpus: float) -> int:
        """Return how many actors that reserve `num_gpus` the cluster holds; without GPUs, one per core."""
        import ray

        if num_gpus == 0:
            return self.cores
        return gpu_slots(ray.cluster_resources().get("GPU", 0.0), num_gpus)  # type: ignore[no-untyped-call]

    async def grow(self, number: int, *, num_gpus: float = 0.0) -> None:
        """Have at least `number` actors that reserve `num_gpus` each, started at the same time, and no others.

        Raises NodeError when one does not answer in time, or the GPUs do not suffice: Ray would wait for them without a
        word.
        """
        from nodes.actor import place

        if num_gpus and number > (slots := self.slots(num_gpus)):
            raise NodeError(f"{number} actors reserve {num_gpus:g} GPUs each, the cluster holds {slots} such actors")
        self._end(member for member in list(self.members) if member.num_gpus != num_gpus)
        have = len(self.members)
        names = [f"actor-{self._placed + i:04d}" for i in range(number - have)]
        self._placed += len(names)
        handles = [place(name, self.credentials, num_cpus=0, num_gpus=num_gpus, threads=1) for name in names]
        fresh = [Member(name, handle, num_gpus=num_gpus) for name, handle in zip(names, handles, strict=True)]
        self.members += fresh

        async def start(member: Member) -> None:
            member.address, member.pid, member.node = await member.handle.start.remote(self._address is None)

        try:
            await _all((start(member) for member in fresh), f"{number} actors did not start", READY_SECONDS)
        except NodeError:
            self._end(fresh)
            raise

    def share(self, prepared: Prepared, packing: Sequence[tuple[int, ...]]) -> list[Any]:
        """Put the rows of each actor's participants where all processes of a machine see them; return references.

        The rows of the last scenario stay shared for further runs on the same ones; `prepared.specs` become views of
        them, so that this process keeps no copy.
        """
        import ray

        key = (prepared.data.fingerprint, tuple(packing))
        if self._shared is None or self._shared[0] != key:
            held = [Holding(tuple(prepared.specs[id] for id in ids)) for ids in packing]
            self._shared = (key, [ray.put(holding) for holding in held])
        for holding in ray.get(self._shared[1]):
            for spec in holding.participants:
                prepared.specs[spec.id] = spec
        return self._shared[1]

    async def assign(
        self,
        assignments: Sequence[Assignment],
        rows: Sequence[Any],
        on_spans: Callable[[str, str], None] = lambda _name, _spans: None,
    ) -> list[Member]:
        """Give each of the first actors a run and its `rows`, and take it from the rest; return those that carry one.

        The actor's name and the spans left over from the run before go to `on_spans`. An actor that died has left the
        pool afterwards; raises NodeError when it was to carry a run.
        """
        import ray.exceptions

        idle = [(None, None)] * (len(self.members) - len(assignments))
        work: list[tuple[Assignment | None, Any]] = [*zip(assignments, rows, strict=True), *idle]
        carrying = self.members[: len(assignments)]

        async def give(member: Member, assignment: Assignment | None, held: Any) -> None:
            try:
                spans = await member.handle.assign.remote(assignment, held)
            except ray.exceptions.RayActorError:
                self.members.remove(member)
                ray.kill(member.handle)
                if assignment is not None:
                    raise
                return
            if spans:
                on_spans(member.name, spans)

        pairs = zip(list(self.members), work, strict=True)
        await _all((give(m, *given) for m, given in pairs), "the actors did not take their work", READY_SECONDS)
        return carrying

    def _end(self, members: Iterable[Member]) -> None:
        import ray

        for member in members:
            self.members.remove(member)
            ray.kill(member.handle)


async def _all(work: Any, failure: str, seconds: float) -> None:
    import ray.exceptions

    tasks: list[Awaitable[None]] = [asyncio.ensure_future(item) for item in work]
    try:
        await asyncio.wait_for(asyncio.gather(*tasks), seconds)
    except TimeoutError:
        raise NodeError(f"{failure} within {seconds:g} s") from None
    except ray.exceptions.RayError as error:
        raise NodeError(f"{failure}: {str(error).strip().splitlines()[-1]}") from error
