"""What a network costs for one picture, layer by layer, from shapes alone.

A multiply and the add after it are one **MAC**; torch's own counter calls that two FLOPs. Elementwise
work (activations, BatchNorm, pooling) has no MACs: what it costs is the memory it moves.
"""

from model_export.cost.counting import count
from model_export.cost.profiling import profile, speed_up
from model_export.cost.table import print_comparison, print_table

__all__ = ["count", "print_comparison", "print_table", "profile", "speed_up"]
