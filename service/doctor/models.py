"""The repository: every model loaded, warmed and self-tested as the service does it; and the file of keys."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from service.access import read_keys
from service.app.wiring import repository_options
from service.doctor.finding import Finding, ok, problem, warning
from service.errors import InvalidConfiguration, ModelRejected, ProviderUnavailable, RemoteUnavailable
from service.repository import RepositoryOptions, build, model_names
from service.repository.catalogue import Catalogue
from service.repository.remote import open_catalogue
from service.settings import Settings


def examine_models(settings: Settings) -> Iterator[Finding]:
    """The folder, each model that will be served, and the file of keys."""
    options = repository_options(settings)
    try:
        catalogue = open_catalogue(options)
        found = catalogue.names() if options.origin else model_names(options.root)
    except OSError as error:
        yield problem("repository", f"{options.root}: {error.strerror}", _repository_remedy(error))
        return
    except (InvalidConfiguration, RemoteUnavailable) as error:
        yield problem("repository", str(error), "look at the address, the keys and the way there")
        return
    yield _repository(catalogue.place, options.root, found)
    wanted = list(settings.models) if settings.models is not None else found
    for name in wanted:
        yield _model(name, catalogue, options) if name in found else _missing(name, found)
    if settings.api_keys_file is not None:
        yield _keys(settings.api_keys_file)


def _repository_remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "let the user that serves read it: chmod -R a+rX"
    return "`make model` makes a repository with a model; name another one with --repository"


def _repository(place: str, root: Path, found: list[str]) -> Finding:
    if not found:
        return problem("repository", f"no model in {place}", "`make model` makes one")
    # A cache is made by the first fetch.
    if root.exists() and (open_to_all := _writable_by_others(root)):
        return warning(
            "repository",
            f"{open_to_all} can be written by every user, and what lies there is served",
            f"chmod -R o-w {root}",
        )
    return ok("repository", f"{place}: {', '.join(found)}")


def _writable_by_others(root: Path) -> Path | None:
    """The first file or folder that every user may change."""
    entries = (root, *sorted(root.rglob("*")))
    return next((entry for entry in entries if _mode(entry) & stat.S_IWOTH), None)


def _mode(path: Path) -> int:
    """Without those of links, which mean nothing."""
    status = path.lstat()
    return 0 if stat.S_ISLNK(status.st_mode) else status.st_mode


def _missing(name: str, found: list[str]) -> Finding:
    remedy = f"name one of these: {', '.join(found) or 'none is there'}"
    return problem(f"model {name}", "it is asked for, but it is not in the repository", remedy)


def _model(name: str, catalogue: Catalogue, options: RepositoryOptions) -> Finding:
    """The highest version that may serve, and what is wrong with those above it."""
    faults = []
    for version in catalogue.shelf(name).versions:
        try:
            built = build(name, version, catalogue.model_file(name, version), options.engine)
        except (ModelRejected, ProviderUnavailable) as fault:
            faults.append(f"version {version}: {fault}")
            continue
        test = built.self_test
        serves = (
            f"version {version} serves on {built.engine.active}, loaded in {built.build_s:.2f} s, "
            f"self-test error {test.relative_error:.1e} of {test.tolerance:.0e} allowed"
        )
        if faults:
            remedy = "publish those versions again, or delete them"
            return warning(f"model {name}", f"{serves}; refused: {'; '.join(faults)}", remedy)
        return ok(f"model {name}", serves)
    return problem(f"model {name}", "; ".join(faults), "publish it again: `make model`, or copy it anew")


def _keys(path: Path) -> Finding:
    try:
        keys = read_keys(path)
    except InvalidConfiguration as error:
        return problem("keys", str(error), "`python -m service key NAME` writes a line")
    if _mode(path) & stat.S_IWOTH:
        return problem("keys", f"{path} can be written by every user", f"chmod o-w {path}")
    return ok("keys", f"{path}: {len(keys)} keys")
