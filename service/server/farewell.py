"""The end of a process some threads of which are still at work: loading a model, running a batch.

Nobody waits for those threads. But one that comes back from the runtime while the interpreter is being torn
down is ended by it in the middle of C++ code, which aborts the process: status 134 in place of 0, after
everything had ended in good order. So such a process ends at once, with nothing torn down.

Source: CPython issue 87135 (daemon threads at finalization).
"""

from __future__ import annotations

import logging
import os
import sys
import threading


def leave(status: int) -> None:
    """End this process with the status if threads are at work that nobody waits for; else do nothing."""
    if any(thread.daemon for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
