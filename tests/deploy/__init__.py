"""Tests of the rules and of monitoring, with a real Prometheus where there is one."""
