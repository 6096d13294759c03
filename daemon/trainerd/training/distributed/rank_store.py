"""How the ranks of one attempt rendezvous: through a key-value store, never through a collective.

The store is torch's `TCPStore` at MASTER_ADDR:MASTER_PORT, the place at which ``init_process_group`` meets
too. Its server lives in a thread of rank 0 (or in torchrun's agent), so it answers while every main thread is
deep in a collective. It needs no process group: a script may make one before the session, within it, or
never.

Invariants:
    Every value but a life sign is written once, under a key of its own, and is JSON.
    No wait is without a limit, and none outlasts a rank that is known to be gone.
    A rank that cannot be looked at is not taken for dead.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import json
import os
import secrets
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from trainerd.contract.node_place import refuse_as_one_of_many
from trainerd.contract.process import ProcessIdentity, boot_id, identify, is_alive
from trainerd.errors import RankLostError, UserError
from trainerd.training.distributed.bounded_store import BoundedStore, StoreSilentError
from trainerd.training.distributed.life_signs import BEAT_S, SILENCE_LIMIT_S, Pulse, Silence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainerd.contract.environment import TrainingEnvironment

RENDEZVOUS_LIMIT_S: Final = 300.0
"""How long the ranks wait for one another at the start, in seconds: one may import for minutes."""
ANSWER_LIMIT_S: Final = 600.0
"""How long a rank waits for what another rank has promised to say, in seconds."""
FAREWELL_LIMIT_S: Final = 15.0
"""How long rank 0, which has the store, stays for the others to leave, in seconds."""
CAUSE_LIMIT_S: Final = 1.0
"""How long after an error a rank looks whether another rank has ended, in seconds: its end takes a moment to
show."""
CAUSE_SILENCE_S: Final = 5 * BEAT_S
"""How long after an error a rank waits for a life sign of one on another host, in seconds."""
CONNECT_TRY_S: Final = 5.0
"""How long one try to reach the store takes at most, in seconds: between two, signals are answered."""
FAILING_LIMIT_S: Final = 5.0
"""How long a rank that is failing itself waits for what another rank has promised to say, in seconds."""
TELL_LIMIT_S: Final = 3.0
"""How long rank 0, which has the store, stays until the others have heard why it fails, in seconds."""
STORE_LIMIT_S: Final = SILENCE_LIMIT_S
"""How long the store may take for one answer, in seconds. Rank 0, which has it, may be stopped."""
POLL_S: Final = 0.005
_SIGNS_S: Final = 2.0  # between two looks at the life signs of the others
_LOOK_S: Final = 0.25  # between two looks at whether the others live

_meetings = itertools.count()


class Ranks:
    """This rank and the others of its attempt.

    Args:
        store: Shared by all of them.
        rank: Which one this is.
        world_size: How many there are.
    """

    def __init__(self, store: Store, *, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self._store = store
        self._bounded = BoundedStore("trainerd-store")
        self._peers: dict[int, ProcessIdentity] = {}
        self._looked_s = 0.0
        self._signs_s = 0.0
        self._silence = Silence()
        self._pulse = Pulse(lambda count: self.put(f"alive/{rank}", count))
        self._failing_since_s: float | None = None

    @property
    def others(self) -> tuple[int, ...]:
        """All ranks but this one."""
        return tuple([rank for rank in range(self.world_size) if rank != self.rank])

    @property
    def is_one_machine(self) -> bool:
        """Whether all ranks see the same processes: none is on another machine or in another container."""
        return len(self._peers) == self.world_size - 1

    def introduce(self, *, spec_digest: str = "") -> None:
        """Tell the others which process this is, and learn which ones they are.

        Args:
            spec_digest: Of the spec under which this rank runs: that of all ranks is the same.

        Raises:
            RankLostError: One did not come, or another process is this rank already.
            UserError: The ranks were not started for one and the same job.
        """
        card = {**_visiting_card(), "world_size": self.world_size, "spec": spec_digest}
        claim = card["claim"] = secrets.token_hex(8)
        self.put_first(f"process/{self.rank}", card)
        held = self.get(f"process/{self.rank}")
        if held["claim"] != claim:  # such as one of an attempt before that was stopped meanwhile
            raise RankLostError(
                f"another process ({held['process']['pid']} on {held['place'][0]}) is rank {self.rank} of "
                "this attempt"
            )
        self._pulse.start()
        here = _place()
        for rank in self.others:
            other = self.get(f"process/{rank}", limit_s=RENDEZVOUS_LIMIT_S)
            for word, what in (("world_size", "WORLD_SIZE"), ("spec", "the digest of the spec")):
                if other.get(word, card[word]) != card[word]:
                    raise UserError(
                        f"{what} is {card[word]} for rank {self.rank}, and {other[word]} for rank {rank}",
                        hint="start all nodes with the same spec",
                    )
            if other["place"] == here:  # elsewhere the number would be that of a stranger
                self._peers[rank] = ProcessIdentity(**other["process"])

    def put(self, key: str, value: Any) -> None:
        """Say something to all.

        Raises:
            RankLostError: The store is gone.
        """
        self._ask(lambda: self._store.set(key, json.dumps(value)))

    def put_first(self, key: str, value: Any) -> None:
        """Say something unless another rank was first to say it."""
        self._ask(lambda: self._store.compare_set(key, "", json.dumps(value)))

    def forget(self, key: str) -> None:
        """Remove what was said, which no rank will ask for any more."""
        self._ask(lambda: self._store.delete_key(key))

    def has(self, key: str) -> bool:
        """Tell whether a rank has said it. Costs tens of microseconds."""
        return bool(self._ask(lambda: self._store.check([key])))

    def get(self, key: str, *, limit_s: float = ANSWER_LIMIT_S) -> Any:
        """Wait until it is said, and return it.

        Raises:
            RankLostError: A rank is gone, or it was not said in time.
        """
        deadline_s = time.monotonic() + limit_s
        while not self.has(key):
            self.look_for_the_lost()
            if self._failing_since_s is not None:
                deadline_s = min(deadline_s, self._failing_since_s + FAILING_LIMIT_S)
            if time.monotonic() >= deadline_s:
                raise RankLostError(f"rank {self.rank}: no other rank said {key} within {limit_s:g} s")
            time.sleep(POLL_S)
        return json.loads(self._ask(lambda: self._store.get(key)))

    def gather(self, key: str, value: Any, *, limit_s: float = ANSWER_LIMIT_S) -> list[Any]:
        """Say this rank's part of something, and return the parts of all in the order of the ranks."""
        self.put(f"{key}/{self.rank}", value)
        return [self.get(f"{key}/{rank}", limit_s=limit_s) for rank in range(self.world_size)]

    def agreed(self, key: str, decide: Callable[[], Any]) -> Any:
        """Return what rank 0 decides; it alone is asked."""
        if self.rank == 0:
            self.put(key, decide())
        return self.get(key)

    def look_for_the_lost(self) -> None:
        """Look now and then whether all others live.

        Raises:
            RankLostError: One has ended without a farewell.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        for rank in self.others:
            if self.has(f"failed/{rank}"):
                said = json.loads(self._ask(functools.partial(self._store.get, f"failed/{rank}")))
                self.put(f"heard/{self.rank}", rank)
                raise RankLostError(f"rank {rank} has failed: {said}")
            process = self._peers.get(rank)
            if process is not None and _has_ended(process) and not self.has(f"left/{rank}"):
                raise RankLostError(f"rank {rank} (process {process.pid}) has ended")
        if now_s - self._signs_s >= _SIGNS_S:
            self._signs_s = now_s
            self._look_for_the_silent(now_s)

    def _look_for_the_silent(self, now_s: float) -> None:
        for rank in self.others:
            count = self._life_sign(rank)
            if count is None:
                continue  # it has not come yet, which has a limit of its own
            silent_s = self._silence.seen(rank, count, now_s)
            if silent_s >= SILENCE_LIMIT_S and not self.has(f"left/{rank}"):
                raise RankLostError(
                    f"rank {rank} has given no life sign for {silent_s:.0f} s: its host is down, the network "
                    "between is, or the process is stopped"
                )

    def cause_of(self, error: BaseException) -> BaseException:
        """Return what made this rank fail: the loss of another rank, if that is why a collective broke."""
        if isinstance(error, RankLostError) or not isinstance(error, RuntimeError):
            return error
        try:
            self._look_after_error()
        except RankLostError as lost:
            lost.__cause__ = error
            return lost
        return error

    def _look_after_error(self) -> None:
        """Look for a lost rank until it would have shown.

        Raises:
            RankLostError: One is lost.
        """
        began_s = time.monotonic()
        silent = {rank: self._life_sign(rank) for rank in self.others if rank not in self._peers}
        while time.monotonic() < began_s + (CAUSE_SILENCE_S if silent else CAUSE_LIMIT_S):
            self.look_for_the_lost()
            silent = {rank: sign for rank, sign in silent.items() if self._life_sign(rank) == sign}
            time.sleep(POLL_S)
        if silent:  # a minute of silence is not waited for: that a collective broke says the rest
            ranks = ", ".join(map(str, silent))
            raise RankLostError(
                f"a collective broke, and no life sign of rank {ranks} came for {CAUSE_SILENCE_S:g} s"
            )

    def _life_sign(self, rank: int) -> int | None:
        if not self.has(f"alive/{rank}"):
            return None
        return int(json.loads(self._ask(functools.partial(self._store.get, f"alive/{rank}"))))

    def say_failed(self, error: BaseException) -> None:
        """Tell the others that this rank goes no further."""
        if self._failing_since_s is None:
            self._failing_since_s = time.monotonic()
        try:
            self.put(f"failed/{self.rank}", f"{type(error).__name__}: {error}"[:500])
            if self.rank == 0:
                self._wait_until_heard()
        except RankLostError:
            return  # no rank is left to tell
        finally:
            self._pulse.stop()
            self._bounded.close()

    def _wait_until_heard(self) -> None:
        """Stay until the others know: their question would end with the store."""
        deadline_s = time.monotonic() + TELL_LIMIT_S
        pending = set(self.others)
        while pending and time.monotonic() < deadline_s:
            pending = {rank for rank in pending if not self._has_heard(rank)}
            time.sleep(POLL_S)

    def _has_heard(self, rank: int) -> bool:
        process = self._peers.get(rank)
        is_gone = process is not None and _has_ended(process)
        return is_gone or any(self.has(f"{word}/{rank}") for word in ("heard", "failed", "left"))

    def leave(self) -> None:
        """Say farewell.

        Rank 0 stays until the others did, as they may still have to ask its store something.
        """
        try:
            self.put(f"left/{self.rank}", True)
            if self.rank == 0:
                for rank in self.others:
                    self.get(f"left/{rank}", limit_s=FAREWELL_LIMIT_S)
        except RankLostError:
            return  # what was to be saved is saved
        finally:
            self._pulse.stop()
            self._bounded.close()

    def _ask(self, question: Callable[[], Any]) -> Any:
        is_failing = self._failing_since_s is not None
        limit_s = min(STORE_LIMIT_S, FAILING_LIMIT_S) if is_failing else STORE_LIMIT_S
        try:
            return self._bounded.ask(question, limit_s=limit_s)
        except StoreSilentError:
            raise RankLostError(
                f"rank 0, at which the ranks rendezvous, has given no answer for {limit_s:g} s: its process "
                "is stopped, its host is down, or the network between is"
            ) from None
        except RuntimeError as error:  # torch's DistError is one
            raise RankLostError(
                "rank 0, at which the ranks rendezvous, does not answer any more: it has ended, or the "
                "network is down"
            ) from error


def rendezvous(environment: TrainingEnvironment, environ: Mapping[str, str] = os.environ) -> Ranks | None:
    """Meet the other ranks; return None if this is the only one.

    Raises:
        UserError: The environment does not say where to rendezvous, or which of several processes this is.
        RankLostError: The others did not come.
    """
    if environment.world_size == 1:
        if environment.attempt_dir is None:  # `trainerd exec` has asked for itself
            refuse_as_one_of_many(environ)
        return None
    address, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT", "")
    if not address or not port.isdigit():
        raise UserError(
            f"WORLD_SIZE={environment.world_size}, and MASTER_ADDR and MASTER_PORT do not say where "
            "the ranks rendezvous",
            hint="start the ranks with nproc in a job's spec or with torchrun, or set both variables",
        )
    if not 0 <= environment.rank < environment.world_size:
        raise UserError(f"RANK={environment.rank} is out of range for WORLD_SIZE={environment.world_size}")
    is_agents = environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    is_master = environment.rank == 0 and not is_agents
    store = _connected(address, int(port), is_master=is_master, is_agents=is_agents)
    # One script may open several sessions, one after the other; each has keys of its own.
    prefix = f"trainerd/{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_meetings)}"
    ranks = of_incarnation(PrefixStore(prefix, store), environment.rank, environment.world_size)
    ranks.introduce(spec_digest=environment.spec_digest if environment.node is not None else "")
    return ranks


def of_incarnation(store: Store, rank: int, world_size: int) -> Ranks:
    """Return the ranks that meet rank 0 as it is now: none of them sees what an earlier attempt says.

    Raises:
        RankLostError: Rank 0 did not come.
    """
    entrance = Ranks(store, rank=rank, world_size=world_size)
    if rank == 0:
        entrance.put("incarnation", secrets.token_hex(8))
    incarnation = entrance.get("incarnation", limit_s=RENDEZVOUS_LIMIT_S)
    entrance._bounded.close()  # noqa: SLF001 - of this module
    return Ranks(PrefixStore(incarnation, store), rank=rank, world_size=world_size)


def _connected(address: str, port: int, *, is_master: bool, is_agents: bool) -> TCPStore:
    """Connect to the store, which rank 0 may still have to open.

    Raises:
        RankLostError: It cannot be reached, or opened here.
    """
    deadline_s = time.monotonic() + RENDEZVOUS_LIMIT_S
    while True:
        try:
            store = TCPStore(
                address,
                port,
                is_master=is_master,
                timeout=dt.timedelta(seconds=RENDEZVOUS_LIMIT_S if is_master else CONNECT_TRY_S),
                wait_for_workers=False,
                # init_process_group, before or after, shares the server of this process
                multi_tenant=not is_agents,
            )
        except RuntimeError as error:
            if not is_master and time.monotonic() < deadline_s:
                time.sleep(POLL_S)
                continue
            raise RankLostError(f"the ranks cannot rendezvous at {address}:{port}: {error}") from error
        store.set_timeout(dt.timedelta(seconds=RENDEZVOUS_LIMIT_S))
        return store


def _has_ended(process: ProcessIdentity) -> bool:
    try:
        return not is_alive(process)
    except OSError:
        return False  # not seen is not dead


def _visiting_card() -> dict[str, Any]:
    process = identify(os.getpid())
    assert process is not None, "this process is there"
    return {"place": _place(), "process": asdict(process)}


def _place() -> list[str]:
    """Return what two processes have in common only if a process number means the same to both."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = f"unknown to {os.getpid()}"
    # Hosts may have one name, and the first namespace has the same number on all of them.
    return [socket.gethostname(), boot_id(), namespace]
