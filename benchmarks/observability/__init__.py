"""What it costs to see everything: the service beside itself with nothing counted, logged or traced.

::

    unobserved   no metrics, no drift, no log line          `benchmarks.observability.unobserved`
    observed     as it is, log level info, scraped
    traced       the same, with traces sent to a collector

All three run at once and are loaded in turn, in a new order each round, so that a slow moment of the
machine meets all of them alike. The cost is the mean of the rounds' own ratios.
"""
