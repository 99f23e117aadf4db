"""``make audit``: what is wrong with the dependencies, as far as it can be known here.

::

    constraints.txt ─▶ pins ─┬▶ installation   is what is installed what is pinned, and unchanged since?
                             ├▶ index          is every pin still offered, and not withdrawn?
                             └▶ advisories     is a weakness known? by an export that was brought along,
                                               else by a public database, asked by pip-audit

A check that could not be made was not passed: the exit status is 0 only if all of them were made.
"""
