"""A real service under clients that leave, die, dawdle and lie, for minutes; every request accounted for.

``make endurance REQUESTS=1000000``. The figures it prints are those of ``docs/reliability.md``.
"""
