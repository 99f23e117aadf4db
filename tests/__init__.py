"""Tests: unit, property, integration (in process) and e2e (a real process)."""
