"""The models of one process: what requests ask, what operators ask, one look at the disk after another."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from service.engine import EngineOptions
from service.errors import (
    FetchFailed,
    InferenceFailed,
    InvalidConfiguration,
    LoadFailed,
    ModelNotFound,
    ModelRejected,
    NotReady,
    ProviderUnavailable,
    ReloadResult,
    RemoteUnavailable,
)
from service.metrics import Metrics, ShadowMetrics
from service.repository.aside import aside
from service.repository.catalogue import Shelf
from service.repository.loading import BuiltModel, build
from service.repository.model import NO_LIVE_VERSION, OF_ALL, Faults, Model, VersionStatus
from service.repository.options import RepositoryOptions
from service.repository.plan import Plan
from service.repository.remote import open_catalogue
from service.repository.served import ServedModel, serve
from service.repository.shadow import Shadow

logger = logging.getLogger(__name__)

# The name `make model` gives; what a request without `model=` means where there are several.
_DEFAULT_NAME: Final = "digits"
# The longest deadline that a client can set: whatever was admitted is finished before its version goes.
_RETIREMENT_S: Final = 3600.0
# Versions of a model whose counts are shown after they were released.
_REMEMBERED: Final = 5
# For the threads of batchers that nobody has asked anything yet to end.
_IDLE_END_S: Final = 1.0


class Repository:
    """The models of one process. `start` on the event loop before anything else.

    Attributes:
        options: What it was told.
    """

    def __init__(self, options: RepositoryOptions, metrics: Metrics) -> None:
        self.options = options
        self._metrics = metrics
        self._catalogue = open_catalogue(options)
        self._models: dict[str, Model] = {}
        self._looking = asyncio.Lock()
        self._default = options.default_model or _DEFAULT_NAME
        self._retiring: set[asyncio.Task[None]] = set()
        self._retired: set[ServedModel] = set()
        self._shadows: dict[str, Shadow] = {}
        self._gone: dict[str, deque[str]] = {}
        self._watching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        served = ", ".join(f"{model.name}/{model.version}" for model in self.served)
        return f"<Repository {self._catalogue.place}: {served or 'nothing served'}>"

    # What requests ask.

    def resolve(self, model: str | None = None, version: str | None = None, key: bytes = b"") -> ServedModel:
        """The loaded version that answers a request. Admit to its batcher before anything is awaited.

        Args:
            model: Its name; None: the default.
            version: Of it, or an alias; None: the live version, or for a share of the keys the canary.
            key: What keeps a client on the canary's side or off it.

        Raises:
            ModelNotFound: No such model or version is loaded, or none was named and there is no default.
            NotReady: Nothing is served yet.
        """
        found = self._models.get(self._default if model is None else model)
        if found is None or found.routes is None:
            raise self._why_not_found(model)
        return found.routes.resolve(version, key)

    @property
    def served(self) -> tuple[ServedModel, ...]:
        """The live version of every model, by name."""
        return tuple(model.routes.live for model in self._by_name() if model.routes is not None)

    def loaded(self, name: str) -> tuple[ServedModel, ...]:
        """Every loaded version of a model, highest first.

        Raises:
            ModelNotFound: No such model is served.
        """
        model = self._models.get(name)
        if model is None or model.routes is None:
            raise self._why_not_found(name)
        return tuple(model.loaded[version] for version in sorted(model.loaded, key=int, reverse=True))

    def index(self, *, ready_only: bool = False) -> tuple[VersionStatus, ...]:
        """Every version of every model and what became of it; by name, highest version first."""
        lines = (line for model in self._by_name() for line in model.status())
        return tuple(line for line in lines if not ready_only or line.state == "READY")

    @property
    def is_ready(self) -> bool:
        """Whether every served model takes requests, and there is one."""
        served = self.served
        return bool(served) and all(model.batcher.is_ready for model in served)

    @property
    def is_single_threaded(self) -> bool:
        """Whether every loaded version runs on one thread of the CPU: to use more takes more processes."""
        engines = (served.engine for model in self._models.values() for served in model.loaded.values())
        return all(engine.active == "cpu" and engine.threads == 1 for engine in engines)

    @property
    def is_alive(self) -> bool:
        """False once an engine died or hung: the process must be restarted."""
        loaded = (served for model in self._models.values() for served in model.loaded.values())
        return all(served.batcher.is_alive for served in loaded if not served.is_background)

    # What operators ask. Changes are made by `service.repository.changes`.

    async def plan(self, name: str) -> Plan | None:
        """What is wanted of a model by what lies there now; None: no such model is to be served.

        Raises:
            InvalidPlan: ``serving.json`` cannot be followed.
            InvalidConfiguration: The repository's folder is gone.
            RemoteUnavailable: The remote does not answer.
        """
        if name not in await self._names():
            return None
        return await aside(partial(self._catalogue.plan, name), f"plan of {name}")

    async def write_plan(self, name: str, plan: Plan) -> None:
        """Put another plan where every process finds it; it is followed at the next look.

        Raises:
            OSError: The file system refused.
            RemoteUnavailable: The remote does not answer.
        """
        try:
            await aside(partial(self._catalogue.write_plan, name, plan), f"plan of {name}")
        except RemoteUnavailable:
            self._metrics.remote_failed("write")
            raise

    async def prove(self, name: str, plan: Plan) -> Faults:
        """Load and test what a plan wants, beside what serves; what of it must not serve.

        It answers nobody before the plan is followed. After a `look` at the model.
        """
        model = self._models[name]
        if not plan.is_served:
            return {}
        async with self._looking:
            for version in plan.wanted:
                await self._is_good(model, version)
            faults = model.faults_of(plan)
            if not await self._first_good(model, filter(plan.allows, model.versions)):
                faults[OF_ALL] = NO_LIVE_VERSION
            if faults:
                self._route(model, model.live)  # nobody needs what was loaded
        return faults

    async def next_lower(self, name: str) -> str | None:
        """The next good version below the live one, not on trial; None: there is none. After a `look`."""
        async with self._looking:
            return await self._first_good(self._models[name], self._models[name].lower())

    def newest(self, name: str) -> list[str]:
        """The highest version that may be live; none where there is none."""
        return list(itertools.islice(self._models[name].candidates(), 1))

    def shadow(self, name: str) -> tuple[ServedModel, ServedModel]:
        """The live version of a model, and the candidate that gets copies of its traffic.

        Raises:
            ModelNotFound: No such model, or nobody shadows it.
        """
        shadow = self._shadows.get(name)
        if shadow is None:
            raise ModelNotFound(f"model '{name}' has no shadow; the field `shadow` of its plan names one")
        return shadow.live, shadow.candidate

    def describe(self, name: str) -> tuple[Plan, list[VersionStatus]]:
        """What is wanted of a model, and what became of each version, the highest first.

        Raises:
            ModelNotFound: No such model.
        """
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(f"no model '{name}'; there is: {', '.join(sorted(self._models))}")
        return model.plan, model.status()

    async def look(self, name: str | None = None, *, is_asked: bool = False) -> None:
        """Look at the disk, and bring what is served in line with it.

        Args:
            name: Only at this model.
            is_asked: Somebody waits: try again what was refused, do not wait for files to settle, and let a
                model go whose folder is gone.
        """
        async with self._looking:
            names = await self._names()
            for each in names:
                if name in (None, each):
                    shelf = await self._shelf(each)
                    await self._follow(shelf, is_asked=is_asked)
            if is_asked and name in self._models and name not in names:
                self._let_go(self._models[name])

    async def watch(self) -> None:
        """Look every ``reload_interval_s``, for good. A look that fails changes nothing.

        What it fails with is logged when it changes, not every time.
        """
        fault = ""
        while True:
            await asyncio.sleep(self.options.reload_interval_s)
            try:
                await self.look()
                fault = ""
            except (OSError, InvalidConfiguration, RemoteUnavailable) as error:
                if str(error) != fault:
                    logger.error("the repository cannot be looked at; what serves goes on: %s", error)
                fault = str(error)
            except Exception:
                logger.exception("looking at the repository failed; what serves goes on")

    async def look_alone(self, name: str) -> Faults:
        """Look at a model because somebody asked, in this process; what of it does not serve."""
        try:
            await self.look(name, is_asked=True)
        except (OSError, InvalidConfiguration, RemoteUnavailable) as error:
            return {OF_ALL: str(error)}
        model = self._models.get(name)
        return {} if model is None else model.faults()

    # Life.

    def share_cpus(self, cpus: int) -> None:
        """Build what is loaded from now on for so many CPUs: there are other processes like this one."""
        self.options = replace(self.options, engine=replace(self.options.engine, cpus=cpus))

    async def start(self) -> None:
        """Load the highest good version of every model wanted, and what else its plan names, and serve them.

        Raises:
            InvalidConfiguration: No such folder or model, none at all, or a plan that is none.
            RemoteUnavailable: The remote does not answer, and nothing was ever fetched from it.
            ModelRejected: No version of a wanted model may serve; this is the highest one's reason.
            ProviderUnavailable: The execution provider that was demanded is not there.
        """
        async with self._looking:
            try:
                wanted = await self._wanted_at_start()
                for name in wanted:
                    await self._start_one(name)
            except BaseException:
                await self.close(_IDLE_END_S)
                raise
            if self.options.reload_interval_s:
                self._watching = asyncio.create_task(self.watch())
            # The only model stays the default when others come later.
            if self.options.default_model is None and len(wanted) == 1:
                self._default = wanted[0]

    async def close(self, grace_s: float) -> None:
        """Look no more, and drain every batcher within the grace."""
        for shadow in self._shadows.values():
            shadow.close()
        if self._watching is not None:
            self._watching.cancel()
        held = {served for model in self._models.values() for served in model.loaded.values()}
        await asyncio.gather(*(served.batcher.close(grace_s) for served in held | self._retired))
        for task in self._retiring:
            task.cancel()

    async def _wanted_at_start(self) -> list[str]:
        wanted = await self._names()
        place, there = self._catalogue.place, ", ".join(wanted) or "none"
        for name in self.options.models or ():
            if name not in wanted:
                raise InvalidConfiguration(f"no model '{name}' in '{place}'; there is: {there}")
        if not wanted:
            raise InvalidConfiguration(f"no models in '{place}'; `make model` makes one")
        default = self.options.default_model
        if default is not None and default not in wanted:
            raise InvalidConfiguration(f"default_model '{default}' is not among the models to serve")
        return wanted

    async def _start_one(self, name: str) -> None:
        shelf = await self._shelf(name)
        if shelf.plan_fault is not None:
            raise InvalidConfiguration(shelf.plan_fault)
        await self._follow(shelf, is_asked=True, is_start=True)
        model = self._models[name]
        if model.routes is None and model.plan.is_served:
            refused = (
                model.refused[version].fault for version in model.candidates() if version in model.refused
            )
            raise next(refused, InvalidConfiguration(f"{name}: no version that its plan allows"))

    # Following the disk.

    async def _shelf(self, name: str) -> Shelf:
        return await aside(partial(self._catalogue.shelf, name), f"look for {name}")

    async def _follow(self, shelf: Shelf, *, is_asked: bool, is_start: bool = False) -> None:
        """Bring one model in line with what lies on disk."""
        model = self._models.setdefault(shelf.name, Model(shelf.name))
        if shelf.plan_fault not in (None, model.plan_fault):
            logger.error("the plan stays as it was: %s", shelf.plan_fault)
        model.see(shelf)
        if is_asked:
            model.refused.clear()
        if not model.plan.is_served:
            self._route(model, None)
            return
        live = model.live
        for version in model.candidates():
            await self._ensure(model, version, is_asked=is_asked, is_start=is_start)
            if version in model.loaded:
                live = model.loaded[version]
                break
        if live is not None:
            self._route(model, live)
            for version in model.named():
                await self._ensure(model, version, is_asked=is_asked, is_start=is_start)
                self._route(model, live)

    def _let_go(self, model: Model) -> None:
        """Unload what outlived its folder."""
        model.see(Shelf(model.name, {}))
        self._route(model, None)

    async def _first_good(self, model: Model, versions: Iterable[str]) -> str | None:
        for version in versions:
            if await self._is_good(model, version):
                return version
        return None

    async def _is_good(self, model: Model, version: str) -> bool:
        """Whether a version may serve; then it is loaded."""
        if model.why_not(version) is None:
            await self._ensure(model, version, is_asked=True, is_start=False)
        return model.why_not(version) is None

    async def _ensure(self, model: Model, version: str, *, is_asked: bool, is_start: bool) -> None:
        """Load a version, unless what lies there is loaded or was refused already, or still changes."""
        if model.is_current(version) or not (is_asked or await self._has_settled(model, version)):
            return
        model.loading = version
        started = time.perf_counter()
        try:
            engine = self._engine_options(is_background=model.is_background(version))
            work = partial(self._build, model.name, version, engine)
            # A session's further threads would stay as patient as the one that made it.
            built = await aside(work, f"load {model.name}/{version}", is_patient=engine.has_one_thread)
        except ModelRejected as fault:
            self._refuse(model, version, fault, time.perf_counter() - started)
        except ProviderUnavailable as fault:
            if is_start:
                raise
            self._refuse(model, version, LoadFailed(str(fault)), time.perf_counter() - started)
        else:
            self._metrics.load_finished(model.name, ReloadResult.SUCCESS, built.build_s)
            model.add(self._serve(built, model))
        finally:
            model.loading = None

    async def _has_settled(self, model: Model, version: str) -> bool:
        return model.has_settled(version) or await aside(
            partial(self._catalogue.is_whole, model.name, version), f"check {model.name}/{version}"
        )

    def _engine_options(self, *, is_background: bool) -> EngineOptions:
        """A shadow takes one core at most."""
        return replace(self.options.engine, threads=1) if is_background else self.options.engine

    def _build(self, name: str, version: str, engine: EngineOptions) -> BuiltModel:
        return build(name, version, self._catalogue.model_file(name, version), engine)

    def _serve(self, built: BuiltModel, model: Model) -> ServedModel:
        served = serve(
            built,
            model.fingerprint(built.version),
            self.options,
            self._metrics,
            is_background=model.is_background(built.version),
        )
        logger.info(
            "model %s version %s is loaded on %s (%s, %.2f s)",
            *(built.name, built.version, built.engine.active),
            *(served.metadata.precision.value, built.build_s),
        )
        return served

    def _refuse(self, model: Model, version: str, fault: ModelRejected, seconds: float) -> None:
        known = model.refused.get(version)
        if known is None or str(known.fault) != str(fault):
            logger.error("model %s version %s does not serve: %s", model.name, version, fault)
        if isinstance(fault, FetchFailed):
            self._metrics.remote_failed("fetch")
        model.refuse(version, fault)
        self._metrics.load_finished(model.name, fault.result, seconds)

    def _route(self, model: Model, live: ServedModel | None) -> None:
        before = model.live
        retired = model.route(live)
        self._cast_shadow(model)
        for served in retired:
            self._retire(served)
        if live is before:
            return
        if live is None:
            logger.info("model %s is unloaded", model.name)
            self._metrics.unwatch_queue(model.name)
        else:
            logger.info("model %s: version %s serves", model.name, live.version)
            self._metrics.watch_queue(model.name, live.batcher)

    def _cast_shadow(self, model: Model) -> None:
        """Have the candidate listen to the live version, and to nobody else."""
        live, candidate = model.live, model.shadow
        shadow = self._shadows.get(model.name)
        if shadow is not None and (shadow.live, shadow.candidate) != (live, candidate):
            shadow.live.tap.audience = None
            shadow.close()
            del self._shadows[model.name]
            shadow = None
        if shadow is None and live is not None and candidate is not None:
            metrics = ShadowMetrics(self._metrics, model.name, live.version, candidate.version)
            self._shadows[model.name] = live.tap.audience = Shadow(live, candidate, metrics)
            logger.info("model %s: version %s shadows %s", model.name, candidate.version, live.version)

    def _retire(self, served: ServedModel) -> None:
        """Let a version finish what it has, and give it back."""
        self._retired.add(served)
        task = asyncio.create_task(self._finish(served))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _finish(self, served: ServedModel) -> None:
        await served.batcher.close(_RETIREMENT_S)
        if served.batcher.is_alive:
            await self._release(served)
        self._retired.discard(served)
        if served.version not in self._models[served.name].loaded:
            self._metrics.model_unloaded(served.name, served.version)
            self._bury(served.name, served.version)
        logger.info("model %s version %s is released", served.name, served.version)

    async def _release(self, served: ServedModel) -> None:
        try:
            await aside(served.engine.release, f"release {served.name}/{served.version}")
        except InferenceFailed as error:  # its memory then goes with its last reference
            logger.warning("model %s version %s: %r", served.name, served.version, error.__cause__)

    def _bury(self, name: str, version: str) -> None:
        """Keep the counts of the last few versions, so that a scrape still sees how they ended."""
        gone = self._gone.setdefault(name, deque())
        gone.append(version)
        if len(gone) > _REMEMBERED:
            oldest = gone.popleft()
            if oldest not in self._models[name].loaded and oldest not in gone:
                self._metrics.forget(name, oldest)

    # Names.

    def _by_name(self) -> Iterable[Model]:
        return (self._models[name] for name in sorted(self._models))

    def _why_not_found(self, model: str | None) -> ModelNotFound | NotReady:
        there = ", ".join(served.name for served in self.served)
        if not there:
            return NotReady("no model is loaded")
        if model is None:
            return ModelNotFound(f"name one of the models with `model=`: {there}")
        return ModelNotFound(f"no model '{model}'; there is: {there}")

    async def _names(self) -> list[str]:
        """The models wanted, after a look at where the repository lies."""
        try:
            return await aside(self._catalogue.names, "look for models")
        except RemoteUnavailable:
            self._metrics.remote_failed("look")
            raise
