"""One of several workers: a whole service without a port of its own. Connections are handed to it.

It listens to its parent alone (signals are blocked before it begins), and ends itself when that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import sys
from collections.abc import Coroutine, Iterator
from typing import Final

import uvloop

from service.app import Application
from service.errors import FoldserveError, NotReady
from service.logs import configure_logging
from service.metrics import Snapshot, snapshot
from service.repository import Faults
from service.server.channel import Link, report_end, take
from service.server.farewell import leave
from service.server.memory import keep_level
from service.server.process import Server
from service.settings import Settings

# uvicorn's ticks between two heartbeats.
_TICKS_A_BEAT: Final = 10
# The parent gives the others half of this to say what they count.
_GATHER_TIMEOUT_S: Final = 2.0

_tickets = itertools.count(1)


def run_worker(settings: Settings, handover: socket.socket, link: socket.socket) -> None:
    """The main function of a worker's process.

    Args:
        settings: Of the service; this worker takes its share of the CPUs.
        handover: Where connections come from; see `service.server.channel`.
        link: Where messages come from.
    """
    keep_level()
    configure_logging(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_run(settings, handover, link))
    leave(status)
    sys.exit(status)


async def _run(settings: Settings, handover: socket.socket, end: socket.socket) -> int:
    link = await Link.open(end)
    try:
        worker = Worker(settings, handover, link)
        await worker.run_until_stopped([])
    except FoldserveError as error:
        link.send("failed", detail=str(error))
        return 1
    finally:
        await link.close()
    return 0 if worker.application.repository.is_alive else 1


class Worker(Server):
    """A server whose connections and commands come from its parent."""

    def __init__(self, settings: Settings, handover: socket.socket, link: Link) -> None:
        super().__init__(Application(settings, gather=self._gather), on_end=self._report_end)
        self.application.has_company_to_come = True
        handover.setblocking(False)
        self._handover = handover
        self._link = link
        self._ends_unsaid = 0
        self._is_ready = False
        self._asked: list[asyncio.Future[Snapshot]] = []
        self._spreading: dict[int, asyncio.Future[Faults]] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self.application.changes.spread = self._spread

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen to the parent."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._handover.fileno(), self._take)
        self._obeying = asyncio.create_task(self._obey())
        self._link.send("state", is_ready=False, is_single_threaded=False)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As every server; connections that are on their way are taken first."""
        await super().shutdown(sockets)
        asyncio.get_running_loop().remove_reader(self._handover.fileno())
        self._obeying.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the parent's business."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Tell the parent of a change, and now and then that there is none; end if only a restart helps."""
        self._tell_state(is_due=not counter % _TICKS_A_BEAT)
        while self._ends_unsaid and report_end(self._handover):
            self._ends_unsaid -= 1
        is_lost = self.application.why_not_alive() is not None
        return await super().on_tick(counter) or is_lost

    def _tell_state(self, *, is_due: bool) -> None:
        is_ready = self.application.why_not_able() is None
        if is_due or is_ready != self._is_ready:
            self._is_ready = is_ready
            is_single_threaded = self.application.repository.is_single_threaded
            self._link.send("state", is_ready=is_ready, is_single_threaded=is_single_threaded)

    def _take(self) -> None:
        while (connection := take(self._handover)) is not None:
            self.adopt(connection)

    def _report_end(self) -> None:
        if not report_end(self._handover):
            self._ends_unsaid += 1

    async def _obey(self) -> None:
        while (message := await self._link.read()) is not None:
            match message["say"]:
                case "complete":
                    self.application.meet(message["workers"])
                case "drain":
                    self.drain()
                case "stop":
                    self.should_exit = True
                case "dump":
                    self._link.send("snapshot", of=snapshot(self.application.metrics))
                case "sum":
                    self._hear_sum(message["of"])
                case "look":
                    self._keep(self._look(message["model"], message["ticket"]))
                case "looked":
                    self._spreading.pop(message["ticket"]).set_result(message["faults"])
        self.should_exit = True  # the parent is gone

    async def _spread(self, model: str) -> Faults:
        """Have all workers look at a model, this one too; what any of them could not serve."""
        future: asyncio.Future[Faults] = asyncio.get_running_loop().create_future()
        ticket = next(_tickets)
        self._spreading[ticket] = future
        self._link.send("spread", model=model, ticket=ticket)
        return await asyncio.shield(future)

    async def _look(self, model: str, ticket: int) -> None:
        faults = await self.application.repository.look_alone(model)
        self._link.send("seen", ticket=ticket, faults=faults)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    def _hear_sum(self, whole: Snapshot) -> None:
        asked, self._asked = self._asked, []
        for future in asked:
            if not future.done():
                future.set_result(whole)

    async def _gather(self) -> Snapshot:
        future: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._asked.append(future)
        self._link.send("ask")
        try:
            return await asyncio.wait_for(future, _GATHER_TIMEOUT_S)
        except TimeoutError as exc:
            raise NotReady("the process that sums the metrics does not answer") from exc
