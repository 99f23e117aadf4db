"""Several workers behind one port.

::

                    ┌─ worker: own event loop, session, queue, share of the threads
    port ─ parent ──┤     each connection goes to the ready worker with the fewest
                    └─ worker

    unset how many     the first one loads; where its models run on one thread, the others are started
    all are ready      so is the service: earlier connections would all go to the first, and stay there
    a worker ends      another is started; what it counted stays in the sums
    one hangs          it is killed, and another is started
    one cannot start   all end, with its reason; but once all have served it is tried again, ever more rarely
    SIGTERM            all drain: the parent's listener stays open for shutdown_delay_s, then closes;
                       each worker finishes what it has

Every promise of the batcher holds for each worker. The parent runs no model and reads no request, and
loads nothing of what does.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import multiprocessing
import signal
import socket
import time
from collections import ChainMap, deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from typing import Final

from service.errors import FoldserveError, InvalidConfiguration
from service.hardware import available_cpus, available_memory_bytes, has_driver
from service.metrics import Snapshot, lasting, missing_workers, total
from service.server.channel import HEARTBEAT_S, Link, count_ends, hand_over
from service.server.listener import admit_no_more
from service.server.signals import SIGNALS, release_signals
from service.settings import Settings

logger = logging.getLogger(__name__)

# Connections accepted in one turn of the event loop.
_ACCEPTS_A_TURN: Final = 64
# When nobody can take a connection, the next try.
_RETRY_S: Final = 0.01
# A worker that ends is replaced after this; doubled each time, so that a fault does not become a storm, and
# forgotten when one has lived for a while.
_RESTART_S: Final = 0.5
_MAX_RESTART_S: Final = 30.0
_STEADY_S: Final = 300.0
# Unless more are asked for: each takes as much memory as a service by itself.
_MOST_WORKERS: Final = 8
_WORKER_BYTES: Final = 256 * 1024 * 1024
_SNAPSHOT_TIMEOUT_S: Final = 1.0
_LAST_CALL_S: Final = 0.05
# Beyond the grace, for a worker to end by itself.
_KILL_AFTER_S: Final = 5.0

_tickets = itertools.count(1)
# A fresh interpreter: no thread, lock or event loop of the parent comes along.
_context = multiprocessing.get_context("spawn")


class Member:
    """One worker, as the parent sees it.

    Attributes:
        connections: Handed to it and not ended.
        has_started: Whether it has said anything.
        is_ready: Whether it said so.
        was_ready: Whether it ever did.
        is_single_threaded: Whether it said that its models run on one thread.
        failure: Why it could not start.
        counted: The last that it said of its metrics.
        missed: Heartbeats since it last said anything.
        started: `time.monotonic`.
    """

    def __init__(self, settings: Settings) -> None:
        self.connections = 0
        self.has_started = False
        self.is_ready = False
        self.was_ready = False
        self.is_single_threaded = False
        self.failure: str | None = None
        self.counted: Snapshot = {}
        self.missed = 0
        self.started = time.monotonic()
        self._handover, handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._end, link = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._handover.setblocking(False)
        self._link: Link | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._looks: dict[int, asyncio.Future[dict[str, str]]] = {}
        with handover, link, _blocked_signals():
            self.process: BaseProcess = _context.Process(
                target=_run_worker, args=(settings, handover, link), daemon=True
            )
            self.process.start()

    def __repr__(self) -> str:
        state = "ready" if self.is_ready else "not ready"
        return f"<Member {self.process.pid} {state}, {self.connections} connections>"

    def hand(self, connection: socket.socket) -> bool:
        """Give it a connection; False if it cannot take one now."""
        is_taken = hand_over(self._handover, connection)
        self.connections += is_taken
        return is_taken

    def send(self, say: str, **content: object) -> None:
        """Tell it something."""
        if self._link is not None:
            self._link.send(say, **content)

    async def live(self, fleet: Fleet) -> None:
        """Listen to it until it has ended."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._handover.fileno(), self._count_ends)
        self._link = await Link.open(self._end)
        if fleet.is_stopping:
            self._link.send("stop")
        while (message := await self._link.read()) is not None:
            self._hear(message["say"], message, fleet)
        loop.remove_reader(self._handover.fileno())
        self._handover.close()
        link, self._link = self._link, None
        await link.close()
        self.is_ready = False
        self._give_up()
        await asyncio.to_thread(self.process.join)

    async def count(self) -> Snapshot:
        """Its metrics now; those of the last time if it does not answer, none while it starts."""
        if not self.has_started:
            return self.counted
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self.send("dump")
        with suppress(TimeoutError):
            await asyncio.wait_for(future, _SNAPSHOT_TIMEOUT_S)
        return self.counted

    async def look(self, model: str) -> dict[str, str]:
        """Have it look at a model; what does not serve. Nothing once it has ended: others start anew."""
        if self._link is None:
            return {}
        future: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        ticket = next(_tickets)
        self._looks[ticket] = future
        self.send("look", model=model, ticket=ticket)
        return await future

    def _hear(self, say: str, message: dict[str, object], fleet: Fleet) -> None:
        self.has_started = True
        self.missed = 0
        match say, message:
            case "state", {"is_ready": bool(is_ready), "is_single_threaded": bool(is_single_threaded)}:
                self.is_ready = is_ready
                self.was_ready = self.was_ready or is_ready
                self.is_single_threaded = is_single_threaded
                fleet.greet(self)
            case "failed", {"detail": str(detail)}:
                self.failure = detail
            case "snapshot", {"of": dict(counted)}:
                self.counted = counted
                self._release()
            case "ask", _:
                fleet.sum_for(self)
            case "spread", {"model": str(model), "ticket": int(ticket)}:
                fleet.spread_for(self, model, ticket)
            case "seen", {"ticket": int(ticket), "faults": dict(faults)}:
                self._looks.pop(ticket).set_result(faults)

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _give_up(self) -> None:
        """Nothing more will be heard of it."""
        self._release()
        looks, self._looks = self._looks, {}
        for look in looks.values():
            look.set_result({})

    def _count_ends(self) -> None:
        self.connections -= count_ends(self._handover)


def _run_worker(settings: Settings, handover: socket.socket, link: socket.socket) -> None:
    """In the worker's process: only there is what runs a model loaded."""
    from service.server.worker import run_worker

    run_worker(settings, handover, link)


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """What is started here never sees them: Ctrl-C reaches a whole group, but the parent decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Fleet:
    """The parent of all workers. Made on a running event loop.

    Args:
        settings: Of the service; `Settings.workers` of them are started, or as many as the first one's models
            are best served by.
        listener: Bound and listening.

    Attributes:
        is_complete: Whether there was a moment at which all workers were ready.
        is_stopping: Whether the end has begun.
    """

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        refuse_gpu(settings)
        self._listener = listener
        self._listener.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._members: set[Member] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: deque[socket.socket] = deque()
        self._buried: Snapshot = {}
        self._restart_s = _RESTART_S
        self.is_complete = False
        self.is_stopping = False
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._failure: str | None = None

    async def run(self) -> None:
        """Serve until a signal comes, then drain.

        Raises:
            FoldserveError: A worker could not start; says why.
        """
        for number in SIGNALS:
            self._loop.add_signal_handler(number, self._hear_signal, signal.Signals(number))
        release_signals()
        for _ in range(self._size):
            self._start()
        self._loop.add_reader(self._listener.fileno(), self._accept)
        watching = asyncio.create_task(self._watch())
        await self._stop.wait()
        watching.cancel()
        if self._failure is None:
            await self._drain()
        await self._end()
        if self._failure is not None:
            raise FoldserveError(self._failure)

    @property
    def _size(self) -> int:
        """How many workers there are to be; 1 as long as that is not known."""
        return self._settings.workers or 1

    def greet(self, member: Member) -> None:
        """Tell a worker that the service is complete, or all of them that it has just become so."""
        if member.is_ready and self._settings.workers is None:
            self._grow(default_workers(is_single_threaded=member.is_single_threaded))
        if self.is_complete:
            member.send("complete", workers=self._size)
        elif sum(each.is_ready for each in self._members) == self._size:
            self.is_complete = True
            for each in self._members:
                each.send("complete", workers=self._size)

    def _grow(self, size: int) -> None:
        """Start those that are missing to so many."""
        self._settings = self._settings.model_copy(update={"workers": size})
        if size > 1:
            logger.info("models this small are best served by %d workers", size)
        for _ in range(size - len(self._members)):
            self._start()

    def sum_for(self, member: Member) -> None:
        """Tell one worker the metrics of all."""
        self._keep(self._sum_for(member))

    async def _sum_for(self, member: Member) -> None:
        counted = await asyncio.gather(*(each.count() for each in self._members))
        silent = missing_workers(self._size - sum(map(bool, counted)))
        member.send("sum", of=total([self._buried, *counted, silent]))

    def spread_for(self, member: Member, model: str, ticket: int) -> None:
        """Have every worker look at a model, and tell one of them what came of it."""
        self._keep(self._spread_for(member, model, ticket))

    async def _spread_for(self, member: Member, model: str, ticket: int) -> None:
        found = await asyncio.gather(*(each.look(model) for each in self._members))
        member.send("looked", ticket=ticket, faults=dict(ChainMap(*found)))

    # Workers.

    def _start(self) -> None:
        member = Member(self._settings)
        self._members.add(member)
        self._keep(self._mind(member))

    async def _mind(self, member: Member) -> None:
        """One worker's life, and what comes after it."""
        await member.live(self)
        self._members.discard(member)
        self._buried = total([self._buried, lasting(member.counted)])
        if self.is_stopping:
            return
        status = f"a worker ended with status {member.process.exitcode}"
        if member.was_ready:
            logger.error("%s; another is started", status)
        elif self.is_complete:
            logger.error("%s at its start; it is tried again: %s", status, member.failure)
        else:
            self._fail(member.failure or f"{status} at its start")
            return
        await asyncio.sleep(self._delay(member))
        if not self.is_stopping:
            self._start()

    def _delay(self, ended: Member) -> float:
        """Seconds until a worker that ended is replaced."""
        if time.monotonic() - ended.started > _STEADY_S:
            self._restart_s = _RESTART_S
        delay, self._restart_s = self._restart_s, min(2 * self._restart_s, _MAX_RESTART_S)
        return delay

    async def _watch(self) -> None:
        """End every worker whose event loop hangs; that it is replaced follows.

        Beats are counted, not seconds: when the whole machine was suspended, nobody has missed one.
        """
        limit = math.ceil(self._settings.inference_timeout_s / HEARTBEAT_S) + 1
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for member in self._members:
                member.missed += 1
                if member.was_ready and member.missed > limit:
                    logger.critical("worker %s says nothing any more; it is killed", member.process.pid)
                    member.process.kill()

    def _fail(self, why: str) -> None:
        self._failure = why
        self.is_stopping = True
        self._stop.set()

    # Connections.

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            if self._held or not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Take a connection from the kernel and hand it on; whether there was one."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:  # out of descriptors: some will be given back
            logger.error("cannot accept a connection: %s", error)
            self._pause()
            return False
        self._hand(connection)
        return True

    def _hand(self, connection: socket.socket) -> None:
        for member in sorted(self._members, key=lambda each: (not each.is_ready, each.connections)):
            if member.hand(connection):
                connection.close()
                return
        self._held.append(connection)
        self._pause()

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(_RETRY_S, self._resume)

    def _resume(self) -> None:
        held, self._held = self._held, deque()
        for connection in held:
            self._hand(connection)
        if not self._held and self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    # The end.

    def _hear_signal(self, number: signal.Signals) -> None:
        if self.is_stopping:
            self._hurry.set()
            return
        self.is_stopping = True
        logger.info("%s: draining", signal.Signals(number).name)
        for member in self._members:
            member.send("drain")
        self._stop.set()

    async def _drain(self) -> None:
        """Stay open for the delay, then let nobody in any more."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._settings.shutdown_delay_s)
        admit_no_more(self._listener)
        await asyncio.sleep(_LAST_CALL_S)
        self._loop.remove_reader(self._listener.fileno())
        while self._accept_one():
            continue

    async def _end(self) -> None:
        """Have all workers finish, within the grace."""
        self._listener.close()
        for member in self._members:
            member.send("stop")
        deadline = time.monotonic() + self._settings.shutdown_grace_s + _KILL_AFTER_S
        hurry = asyncio.create_task(self._hurry.wait())
        while self._members and not self._hurry.is_set() and time.monotonic() < deadline:
            left_s = deadline - time.monotonic()
            await asyncio.wait({hurry, *self._tasks}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for member in list(self._members):
            member.process.kill()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_KILL_AFTER_S)
        logger.info("stopped")

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def suits(settings: Settings) -> bool:
    """Whether several workers are asked for, or may turn out to be best."""
    if settings.workers is None:
        return most_workers() > 1 and _kind(settings) == "cpu"
    return settings.workers > 1


def default_workers(*, is_single_threaded: bool) -> int:
    """How many are started where nobody says how many.

    Args:
        is_single_threaded: Whether every model runs best on one thread; else one worker has all threads.
    """
    return most_workers() if is_single_threaded else 1


def most_workers() -> int:
    """The most that are started where nobody says how many: one for each CPU, as far as the memory goes."""
    memory = available_memory_bytes()
    affordable = _MOST_WORKERS if memory is None else memory // _WORKER_BYTES
    return max(1, min(available_cpus(), _MOST_WORKERS, affordable))


def refuse_gpu(settings: Settings) -> None:
    """Several workers are for a CPU.

    Raises:
        InvalidConfiguration: Several workers, and inference on a GPU: each would hold its own copy of
            every model there, and batches would be smaller for nothing.
    """
    kind = _kind(settings)
    if kind != "cpu":
        raise InvalidConfiguration(f"workers={settings.workers} with inference on {kind}: set workers to 1")


def _kind(settings: Settings) -> str:
    """What inference runs on."""
    if settings.execution_provider == "cpu" or (settings.execution_provider == "auto" and not has_driver()):
        return "cpu"
    from service.engine import Provider  # loads ONNX Runtime

    return Provider(settings.execution_provider).kind


async def serve_with_workers(settings: Settings, listener: socket.socket) -> None:
    """Serve with several workers until a signal comes.

    Raises:
        FoldserveError: A worker could not start.
        InvalidConfiguration: Several workers and a GPU.
    """
    await Fleet(settings, listener).run()
