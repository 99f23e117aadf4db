"""Faults injected into real processes: what clients, probes, metrics and the log then say.

``docs/reliability.md`` has a row for each, and names the test.
"""
