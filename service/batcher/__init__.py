"""The batcher: instances from many requests, run together, each answered with its own row.

::

    event loop                                          engine thread (one a lane)
    admit ──▶ Permit ──▶ submit ──▶ [ waiting … ] ──▶ form ──▶ decode ──▶ run(uint8 [N, H, W, C])
                                                                                  │
    futures ◀── Row ◀── one wake-up a batch ◀─────────────── logits, probabilities [N, K]

Its promises; each has a property test of the same number:

1. At most ``max_queue_size`` instances are admitted and unanswered. Admission is immediate and
   all-or-nothing; slots come back when an image turns out bad or its client leaves.
2. Pull: a batch is formed when the engine is free. An idle engine never waits longer than
   ``max_queue_delay_s`` for company.
3. First come, first served; 1 ≤ batch size ≤ ``max_batch_size``.
4. An instance whose client left or whose deadline passed is dropped before it costs inference, and
   counted. One that still has to be decoded is dropped before that as well.
5. Every future is completed exactly once, with its own row.
6. A failing batch fails its own members only; the next batch runs.
7. Work that cannot meet its deadline is refused at the door, before decoding, with the wait it
   would have had; the wait counts what is being decoded as well as what is queued.
8. Close: refuse new work, drain within the grace, fail the rest with ``shutting_down``.
9. If an engine thread dies or hangs, readiness goes false, every waiter fails, liveness turns
   false: never a silent hang.

Floors inside: `cost` (how long a batch takes) ← `waiting` (the state machine: synchronous, no I/O, no
clock of its own) and `batch` (one batch's data) ← `handover` (the line between the threads) ← `batcher` (the
event loop's side, and the engine's threads).

Instances are submitted as pixels, or as what decodes them: then the thread that runs their batch does, and an
image that turns out bad fails alone. A batch goes without those that it would take too long to decode; they
keep their place in the line.

A lone image goes over the thread as well: the two wake-ups buy that an engine that hangs never stops the
event loop, which must tell its clients. But they take longer than a very small network. Where a parent
process kills and replaces a worker whose event loop hangs, a lone image of one is run on the event loop.
With several worker processes each has a batcher of its own, and the promises hold for each.
"""

from service.batcher.batch import FinishedBatch, Lanes, Row, Run
from service.batcher.batcher import Batcher, Permit
from service.batcher.cost import CostModel
from service.batcher.observer import Observer
from service.batcher.waiting import State

__all__ = ["Batcher", "CostModel", "FinishedBatch", "Lanes", "Observer", "Permit", "Row", "Run", "State"]
