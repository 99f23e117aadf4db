"""What a stage is at: a spinner with its seconds in a terminal, one line in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_Settings = ParamSpec("_Settings")
_Result = TypeVar("_Result")


class _Stages(Protocol):
    @property
    def console(self) -> Console: ...


_Owner = TypeVar("_Owner", bound=_Stages)


@contextmanager
def shown(what: str, console: Console) -> Iterator[None]:
    """Shows ``what`` for the length of the block; in a terminal it is gone afterwards.

    Args:
        what: The work, as in "folding".
        console: Where.
    """
    if not console.is_terminal:
        console.print(f"{what} …", soft_wrap=True)
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield


def shows(
    what: str,
) -> Callable[
    [Callable[Concatenate[_Owner, _Settings], _Result]], Callable[Concatenate[_Owner, _Settings], _Result]
]:
    """A stage that shows ``what`` on its owner's console while it works."""

    def decorate(
        stage: Callable[Concatenate[_Owner, _Settings], _Result],
    ) -> Callable[Concatenate[_Owner, _Settings], _Result]:
        @wraps(stage)
        def showing(self: _Owner, /, *args: _Settings.args, **kwargs: _Settings.kwargs) -> _Result:
            with shown(what, self.console):
                return stage(self, *args, **kwargs)

        return showing

    return decorate
