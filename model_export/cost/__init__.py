"""What a network costs for one picture, layer by layer, from shapes alone.

A multiply and the add after it are one **MAC**; torch's own counter calls that two FLOPs. Elementwise
work (activations, BatchNorm, pooling) has no MACs: what it costs is the memory it moves.
"""

from model_export.cost.counting import count
from model_export.cost.profiling import profile
from model_export.cost.speed import interval_of_median, speed_up, timed_pairs
from model_export.cost.table import print_comparison, print_table

__all__ = [
    "count",
    "interval_of_median",
    "print_comparison",
    "print_table",
    "profile",
    "speed_up",
    "timed_pairs",
]
