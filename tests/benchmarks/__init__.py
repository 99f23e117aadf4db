"""Tests of the benchmarks: a measurement that cannot fail proves nothing."""
