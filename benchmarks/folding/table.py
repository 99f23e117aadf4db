"""The comparison as a page of markdown: small figures only."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence

from benchmarks.folding.comparison import OUTCOMES, Outcome, Result
from benchmarks.folding.tools import ALL_TOOLS, PUBLIC_TOOLS
from tests.folding.collection import Network

HEAD = """# The fold beside public tools

{networks} small networks, each with the fewest per-channel affine maps that an exact fold can leave, derived
beside each network in `tests/folding/collection`. Every tool has the same networks, the same weights and
the same counting rule: a BatchNorm, or a chain of multiplications and additions by constants a channel, is
one map; a clamp in the place of a ReLU, a PReLU in the place of a LeakyReLU, a padding constant, a constant
image and a sign are none. Tools on ONNX get the exporter's graph without its own optimiser, in float32; what
the exporter itself spells as arithmetic is not held against them. Tools on torch work in float64.

*Reached*: the fewest maps are left and the numbers are right. *Short*: right, but more is left. *Wrong*: the
numbers are off by more than 10⁻³ of the largest output and the tool said nothing. *Failed*: it raised,
crashed or hung. *Not written*: torch's exporter could not write the network, or ONNX Runtime not run what it
wrote, so a tool on ONNX had nothing to work on.

Made by `make bench-folding` with Python {python}.
"""


def page(networks: Sequence[Network], results: Sequence[Result]) -> str:
    """The whole page."""
    parts = [
        HEAD.format(networks=len(networks), python=platform.python_version()),
        _totals(results),
        "## Reached, by topic\n",
        _by_topic(networks, results),
        "## Wrong without a word\n",
        _listed(results, "wrong"),
        "## Failed\n",
        _listed(results, "failed"),
        _together(networks, results),
    ]
    return "\n".join(parts)


def _rows(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(header)} |", f"| --- |{' ---: |' * (len(header) - 1)}"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _count(results: Iterable[Result], tool: str, outcome: Outcome) -> int:
    return sum(r.tool == tool and r.outcome == outcome for r in results)


def _totals(results: Sequence[Result]) -> str:
    header = ["tool", "version", *OUTCOMES]
    rows = [[t.name, t.release, *(_count(results, t.name, o) for o in OUTCOMES)] for t in ALL_TOOLS]
    return _rows(header, rows)


def _by_topic(networks: Sequence[Network], results: Sequence[Result]) -> str:
    topics = {network.name: network.topic for network in networks}
    header = ["topic", "networks", *(tool.name for tool in ALL_TOOLS)]
    rows = []
    for topic in dict.fromkeys(topics.values()):
        here = [r for r in results if topics[r.network] == topic]
        size = sum(network.topic == topic for network in networks)
        rows.append([topic.replace("_", " "), size, *(_count(here, t.name, "reached") for t in ALL_TOOLS)])
    return _rows(header, rows)


def _listed(results: Sequence[Result], outcome: Outcome) -> str:
    """The networks of one outcome, tool by tool."""
    lines = []
    for tool in ALL_TOOLS:
        names = sorted(f"`{r.network}`" for r in results if r.tool == tool.name and r.outcome == outcome)
        lines.append(f"- {tool.name}: {', '.join(names) if names else 'nothing'}")
    return "\n".join(lines) + "\n"


def _together(networks: Sequence[Network], results: Sequence[Result]) -> str:
    """What the public tools reach together, and what none of them does."""
    public = {tool.name for tool in PUBLIC_TOOLS}
    reached = {r.network for r in results if r.tool in public and r.outcome == "reached"}
    ours = {r.network for r in results if r.tool not in public and r.outcome == "reached"}
    return (
        f"Together the public tools reach {len(reached)} of {len(networks)}; {len(networks) - len(reached)} "
        f"are reached by none of them, and {len(ours - reached)} of those by this project's fold."
        "\n"
    )
