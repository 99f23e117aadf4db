"""Tests of the HTTP interface, in process."""
