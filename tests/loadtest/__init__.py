"""Tests of the load tests: their parts, and whole runs against a service that answers by script."""
