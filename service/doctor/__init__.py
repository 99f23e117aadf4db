"""``python -m service doctor``: what would keep the service from working here, and what to do about it.

::

    flags, variables ──▶ settings ─┬▶ installation   Python, packages, execution provider
                                   ├▶ machine        threads, memory, descriptors, port, user
                                   └▶ repository     every model readable, whole, self-tested; keys

    ok        as it should be
    warning   it will serve, but not as well as it could, or not as safely
    problem   it will not serve; exit status 1

The same functions that the service starts with do the checking, so there is no second opinion.
"""

from service.doctor.examination import examine
from service.doctor.finding import Finding, Verdict
from service.doctor.report import report

__all__ = ["Finding", "Verdict", "examine", "report"]
