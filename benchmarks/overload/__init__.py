"""Three times the capacity, open loop, with a client deadline: does the service stay calm, and recover?

::

    rate   calm ▂▂▂▂   overload ██████████   calm ▂▂▂▂▂       the service on some CPUs, the clients on others
                        goodput, latency of the accepted,
                        time to a refusal                └ recovery: until the last refusal or late answer

The capacity is measured first: the best of some closed loops.
"""
