"""``python -m service tune``: which settings hold a latency objective at the highest throughput here.

::

    the model's own pictures, or a folder of them
       └▶ candidates   workers, threads, batch limit, precision
           └▶ process     each as a real service process           measured from outside, and from /proc
               └▶ load       closed loops of 1, 2, 4, … clients; in the end independent arrivals
                   └▶ search     the best so far, confirmed in turns beside the start
                       └▶ anatomy    what its limit is made of: decoding, inference, the rest
                           └▶ report     settings.env, report.txt, result.json, curve.svg

The search can be interrupted (Ctrl-C): it then reports what it knows, and leaves no process behind.
"""

from service.tuning.command import tune

__all__ = ["tune"]
