"""Pictures in words, for the pages."""

from __future__ import annotations

from collections.abc import Sequence

from service.images import probe


def describe(sent: Sequence[bytes]) -> str:
    """How many pictures, of which format and size, and how heavy.

    Raises:
        RequestError: One of them is no image that the service would take.
    """
    found = [probe(content) for content in sent]
    formats = " or ".join(sorted({each.format.upper() for each in found}))
    largest = max(found, key=lambda each: each.pixels)
    bound = "" if len({(each.width, each.height) for each in found}) == 1 else "up to "
    mean = sum(map(len, sent)) / len(sent)
    weight = f"{mean / 1e3:,.0f} kB" if mean >= 1e3 else f"{mean:,.0f} bytes"
    size = f"{bound}{largest.width:,} × {largest.height:,}"
    return f"{len(sent)} {formats} pictures of {size}, {weight} on average"
