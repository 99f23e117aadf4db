"""Tests of the fold: the collection of small networks with known optimum, and the algebra's properties."""
