"""Our service beside other ways to serve the same model: same file, same pictures, same machine, in turn.

::

    workload ─▶ for each round: for each contender, in a new order:
                    start ─▶ ready ─▶ answers right? ─▶ wrk at each concurrency ─▶ answers right? ─▶ stop
             ─▶ medians and paired ratios ─▶ table, picture, result.json

A contender runs alone: starting it again each round spreads whatever else the machine does over all of them.
"""
