"""One model: which of its versions are loaded, which were refused, and who answers what.

::

    plan, versions on disk ──▶ candidates        highest first, none above the plan's version
    loaded versions ──route──▶ Routes            what requests see; replaced as a whole
                      └──────▶ retired           what nobody can ask for any more

No I/O and no waiting in here: the repository loads, and tells what became of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from service.errors import FetchFailed, ModelRejected, ReloadResult
from service.repository.catalogue import Fingerprint, Shelf
from service.repository.plan import CANARY_ALIAS, STABLE_ALIAS, UNKNOWN_PLAN, Plan
from service.repository.routing import Routes
from service.repository.served import ServedModel

# Version → why it does not serve.
Faults: TypeAlias = dict[str, str]
# In the place of a version: the fault is no single one's.
OF_ALL: Final = ""
NO_LIVE_VERSION: Final = "its plan leaves no version that may be live"


class VersionState(StrEnum):
    """As the Open Inference Protocol's repository index has them."""

    READY = "READY"
    LOADING = "LOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version's line in the repository index.

    Attributes:
        state: Whether it answers.
        reason: Why not; or, of one that answers, why its newer files do not. Empty: nothing is wrong.
        roles: ``live``, ``canary``, ``shadow`` and the aliases that mean it.
        refusal: What kind of fault its files have; None: they were not refused.
    """

    name: str
    version: str
    state: VersionState
    reason: str
    roles: tuple[str, ...]
    refusal: ReloadResult | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version does not serve, until its files change."""

    fingerprint: Fingerprint
    fault: ModelRejected


class Model:
    """The state of one model.

    Attributes:
        plan: The last that could be followed; until there is one, nothing serves.
        plan_fault: Why ``serving.json`` cannot be; None where it can.
        routes: Who answers; None: nobody.
        loaded: Version → what was loaded.
        refused: Version → why not.
        loading: The version being loaded.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.plan: Plan = UNKNOWN_PLAN
        self.plan_fault: str | None = None
        self.routes: Routes | None = None
        self.loaded: dict[str, ServedModel] = {}
        self.refused: dict[str, Refusal] = {}
        self.loading: str | None = None
        self._seen: dict[str, Fingerprint] = {}
        self._unsettled: dict[str, Fingerprint] = {}
        self._aliases: dict[str, ServedModel] = {}
        self._held: set[ServedModel] = set()

    def __repr__(self) -> str:
        return f"<Model {self.name}: {', '.join(sorted(self.loaded)) or 'nothing'} loaded>"

    @property
    def live(self) -> ServedModel | None:
        """What answers requests that name no version."""
        return None if self.routes is None else self.routes.live

    def see(self, shelf: Shelf) -> None:
        """Take in what lies on disk."""
        self.plan_fault = shelf.plan_fault
        if shelf.plan_fault is None:
            self.plan = shelf.plan
        self._seen = dict(shelf.versions)
        for version in [version for version in self.refused if version not in self._seen]:
            del self.refused[version]

    @property
    def versions(self) -> tuple[str, ...]:
        """Those that lie there, highest first."""
        return tuple(self._seen)

    def candidates(self) -> Iterator[str]:
        """The versions that may be live, best first."""
        return (version for version in self._seen if self.plan.allows(version))

    def named(self) -> list[str]:
        """The versions that the plan wants besides the live one, and that are there."""
        return [version for version in self._seen if version in self.plan.named]

    def lower(self) -> list[str]:
        """The versions below the live one that may take its place, best first."""
        live = self.live
        return [] if live is None else [each for each in self.candidates() if int(each) < int(live.version)]

    def faults(self) -> Faults:
        """Why what lies there or is wanted does not serve."""
        if self.plan_fault is not None:
            return {OF_ALL: self.plan_fault}
        if not self.plan.is_served:
            return {}
        found = self.faults_of(self.plan)
        if not any(version in self.loaded for version in self.candidates()):
            found[OF_ALL] = NO_LIVE_VERSION
        return found

    def faults_of(self, plan: Plan) -> Faults:
        """Why single versions do not serve: those that were refused, and those that a plan wants."""
        found = {version: self.why_not(version) for version in (*self.refused, *plan.wanted)}
        return {version: fault for version, fault in found.items() if fault is not None}

    def why_not(self, version: str) -> str | None:
        """Why what lies there under this number does not serve; None: nothing is known against it."""
        if version not in self._seen and version not in self.loaded:
            return f"there is no version {version}"
        refusal = self.refused.get(version)
        return None if refusal is None else f"version {version} does not serve: {refusal.fault}"

    def fingerprint(self, version: str) -> Fingerprint:
        """Of the files that lie there now."""
        return self._seen[version]

    def is_current(self, version: str) -> bool:
        """Whether what lies there now is loaded as it is wanted, or was refused."""
        lies = self._seen.get(version)
        if lies is None:  # what is loaded outlives its files
            return True
        served, refusal = self.loaded.get(version), self.refused.get(version)
        if refusal is not None and refusal.fingerprint == lies:
            return True
        return (
            served is not None
            and served.fingerprint == lies
            and served.is_background == self.is_background(version)
        )

    def is_background(self, version: str) -> bool:
        """Whether the plan wants a version for its shadow and for nothing else."""
        plan = self.plan
        is_canary = plan.canary is not None and plan.canary.version == version
        is_answering = is_canary or version == plan.version or version in plan.aliases.values()
        return version == plan.shadow and not is_answering

    @property
    def shadow(self) -> ServedModel | None:
        """The candidate that gets copies of the live version's traffic."""
        shadow = None if self.plan.shadow is None else self.loaded.get(self.plan.shadow)
        return None if shadow is self.live else shadow

    def has_settled(self, version: str) -> bool:
        """Whether the version's files are the same as at the last look; remembers them for the next."""
        before = self._unsettled.get(version)
        self._unsettled[version] = self._seen[version]
        return before == self._seen[version]

    def add(self, served: ServedModel) -> None:
        """A version was loaded. It answers from the next `route` on."""
        self.loaded[served.version] = served
        self._held.add(served)
        self.refused.pop(served.version, None)
        self._unsettled.pop(served.version, None)

    def refuse(self, version: str, fault: ModelRejected) -> None:
        """A version must not serve."""
        # What could not be fetched is tried again at each look, as if its files changed.
        fingerprint = () if isinstance(fault, FetchFailed) else self._seen[version]
        # Made anew: the traceback of the first would keep the engine that failed in memory.
        self.refused[version] = Refusal(fingerprint, type(fault)(str(fault)))
        self._unsettled.pop(version, None)

    def route(self, live: ServedModel | None) -> list[ServedModel]:
        """Point all names at what is loaded; what nobody needs any more, to be retired.

        Args:
            live: Answers requests that name no version; None: the model is unloaded.
        """
        if live is None:
            self.routes, self._aliases = None, {}
            return self._retire(set())
        # An alias whose new version is not loaded keeps its old one.
        kept = {**self._aliases, **self._loaded_of(self.plan.aliases)}
        self._aliases = {alias: kept[alias] for alias in self.plan.aliases if alias in kept}
        canary = None if self.plan.canary is None else self.loaded.get(self.plan.canary.version)
        shadow = None if self.plan.shadow is None else self.loaded.get(self.plan.shadow)
        trials = [served for served in (canary, shadow) if served is not None]
        needed = {live, *self._aliases.values(), *trials}
        # Where an alias holds on to files that were replaced, the number means the new ones.
        named = {served.version: served for served in (*self._aliases.values(), *trials, live)}
        named |= {STABLE_ALIAS: live, **self._aliases}
        if canary is not None:
            named[CANARY_ALIAS] = canary
        self.routes = Routes(live, named, canary, self.plan.canary.weight if self.plan.canary else 0.0)
        return self._retire(needed)

    def _loaded_of(self, aliases: Mapping[str, str]) -> dict[str, ServedModel]:
        return {alias: self.loaded[version] for alias, version in aliases.items() if version in self.loaded}

    def _retire(self, needed: set[ServedModel]) -> list[ServedModel]:
        retired = [served for served in self._held if served not in needed]
        self._held = needed
        self.loaded = {served.version: served for served in needed}
        return retired

    def status(self) -> list[VersionStatus]:
        """Every version that is loaded or lies there, highest first."""
        versions = sorted({*self._seen, *self.loaded}, key=int, reverse=True)
        return [
            VersionStatus(
                self.name, version, *self._state(version), self._roles(version), self._refusal(version)
            )
            for version in versions
        ]

    def _refusal(self, version: str) -> ReloadResult | None:
        return self.refused[version].fault.result if version in self.refused else None

    def _state(self, version: str) -> tuple[VersionState, str]:
        served, refusal = self.loaded.get(version), self.refused.get(version)
        if self.loading == version:
            return VersionState.LOADING, ""
        reason = "" if refusal is None else str(refusal.fault)
        if served is None:
            return VersionState.UNAVAILABLE, reason or self._why_not_loaded(version)
        if not served.batcher.is_ready:
            return VersionState.UNAVAILABLE, "its inference engine has stopped"
        return VersionState.READY, reason or self.plan_fault or ""

    def _why_not_loaded(self, version: str) -> str:
        if not self.plan.is_served:
            return self.plan_fault or "unloaded"
        if not self.plan.allows(version):
            return f"version {self.plan.version} is the highest that may serve"
        if version in self._unsettled:
            return "its files have not settled yet"
        return "not needed: a higher version serves"

    def _roles(self, version: str) -> tuple[str, ...]:
        if self.routes is None:
            return ()
        live = ("live",) if self.routes.live.version == version else ()
        names = (
            name
            for name, served in sorted(self.routes.named.items())
            if served.version == version and name != version and not (live and name == STABLE_ALIAS)
        )
        shadow = ("shadow",) if self.plan.shadow == version and version in self.loaded else ()
        return (*live, *names, *shadow)
