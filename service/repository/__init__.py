"""The model repository: which version of which model answers.

::

    models/<name>/<version>/model[.precision].onnx      serving.json: what the operator wants
        │  see       names, versions and plans, nothing that leads outside, nothing that is half there
        │  build     checksum ─▶ session ─▶ every bucket ─▶ self-test      ModelRejected: logged, counted,
        │                                                                  shown; what served goes on
        ▼  serve     a batcher of its own
    resolve(model, version, key) ─▶ ServedModel      swapped in one step; the old one finishes and is released

A version serves only after it has answered its own self-test on this machine. A model none of whose
versions does so keeps the process from starting. A version that was refused is tried again when its files
change, or when somebody asks.

Which versions are kept loaded: the live one (the highest good one that the plan allows), and those that an
alias, the canary or the shadow names.

Floors inside: `options`, `plan` (serving.json) ← `catalogue` (what lies on disk) ← `store` (a folder
elsewhere) ← `remote` (its copy) ← `loading` ← `served` ← `routing` ← `model` (the state of one model,
without I/O) and `shadow` ← `repository` ← `changes` (what operators ask). Beside them `offline`: the same
changes without a service.
"""

from service.repository.catalogue import model_names, versions
from service.repository.changes import Changes, Spread
from service.repository.loading import BuiltModel, build, warm_up
from service.repository.model import Faults, VersionState, VersionStatus
from service.repository.offline import Workbench
from service.repository.options import RepositoryOptions
from service.repository.plan import LATEST, PLAN_NAME, Canary, Plan, parse_plan
from service.repository.repository import Repository
from service.repository.served import ServedModel

__all__ = [
    "LATEST",
    "PLAN_NAME",
    "BuiltModel",
    "Canary",
    "Changes",
    "Faults",
    "Plan",
    "Repository",
    "RepositoryOptions",
    "ServedModel",
    "Spread",
    "VersionState",
    "VersionStatus",
    "Workbench",
    "build",
    "model_names",
    "parse_plan",
    "versions",
    "warm_up",
]
