"""``python -m service``: serve the models of a repository. ``--help`` lists every setting and command.

What cannot be served ends with one line on stderr and exit status 1; bad settings with 2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from service.commands import COMMANDS, commands_help
from service.errors import FoldserveError, InvalidConfiguration
from service.logs import configure_logging
from service.server import serve
from service.server.farewell import leave
from service.settings import load_settings


def main(arguments: Sequence[str]) -> int:
    """Run a command, or the service; the exit status."""
    try:
        if arguments and arguments[0] in COMMANDS:
            outcome = COMMANDS[arguments[0]].run(arguments[1:])
            return outcome if isinstance(outcome, int) else _print(outcome)
        settings = load_settings(arguments, commands=commands_help())
    except InvalidConfiguration as error:
        return _complain(error, 2)
    except FoldserveError as error:
        return _complain(error, 1)
    configure_logging(settings.log_level, settings.log_format)
    try:
        serve(settings)
    except FoldserveError as error:
        return _complain(error, 1)
    return 0


def _print(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _complain(error: FoldserveError, status: int) -> int:
    sys.stderr.write(f"foldserve: {error}\n")
    return status


if __name__ == "__main__":
    status = main(sys.argv[1:])
    leave(status)
    sys.exit(status)
