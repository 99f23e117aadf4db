"""Training from whole splits in memory: seeded, deterministic, measured after every epoch.

::

    pixels uint8 ─ shuffle ─ augment ─ normalise ─ network ─ loss ─ step      each batch
                                                            validation        each epoch ─▶ checkpoint

Batches are cut from the split directly; at these sizes worker processes would only cost. A run is
a function of its configuration and data: one that was killed goes on from its last epoch and ends
with the very weights that it would have had.
"""

from model_export.training.run import train

__all__ = ["train"]
