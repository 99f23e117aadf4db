"""A program before and after its fold, as one SVG picture.

Operators stand below each other in the program's order; an arc on the side is an input from further up.
Affine maps are red, what a fold put in their place is green. No script, no font but the page's own.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from html import escape
from typing import Literal

from torch import fx

from model_export.folding.names import module_path

Role = Literal["plain", "affine", "changed"]

_ROW, _BOX_HEIGHT, _BOX_WIDTH = 26, 20, 230
_COLUMN = 380  # boxes, and room for the arcs beside them
_TOP = 34
_FILLS: dict[Role, str] = {"plain": "#eef1f5", "affine": "#f6c9c4", "changed": "#c9e8cf"}


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """One operator of a drawing.

    Attributes:
        operator: Its short name, e.g. ``conv2d``.
        module: Path of the module it belongs to.
        role: ``affine`` for an affine map, ``changed`` for what a fold rewrote, else ``plain``.
        inputs: Positions in the drawing of what it reads.
    """

    operator: str
    module: str
    role: Role
    inputs: tuple[int, ...]


Drawing = tuple[DrawnNode, ...]


def drawing(graph: fx.Graph, affine: Collection[fx.Node], changed: Collection[str]) -> Drawing:
    """A graph as a drawing, without its constants and sizes.

    Args:
        graph: Any functional graph.
        affine: Its nodes that are affine maps.
        changed: Names of constants that a fold made.
    """
    places: dict[fx.Node, int] = {}
    drawn: list[DrawnNode] = []
    for node in graph.nodes:
        if node.op not in ("placeholder", "call_function", "output") or not _is_drawn(node):
            continue
        inputs = tuple(places[one] for one in node.all_input_nodes if one in places)
        if node.target is operator.getitem and len(inputs) == 1:
            places[node] = inputs[0]  # an item is the operator it is read of
            continue
        places[node] = len(drawn)
        drawn.append(DrawnNode(_name(node), module_path(node), _role(node, affine, changed), inputs))
    return tuple(drawn)


def _is_drawn(node: fx.Node) -> bool:
    """Not what computes constants and sizes."""
    if node.op == "call_function":
        return bool(node.all_input_nodes) and "sym_size" not in str(node.target)
    return True


def _name(node: fx.Node) -> str:
    if node.op != "call_function":
        return "input" if node.op == "placeholder" else "output"
    name = str(getattr(node.target, "overloadpacket", node.target)).rpartition(".")[2]
    return "batch_norm" if "batch_norm" in name else name


def _role(node: fx.Node, affine: Collection[fx.Node], changed: Collection[str]) -> Role:
    if node in affine or any(user in affine and user.target is operator.getitem for user in node.users):
        return "affine"
    constants = (one.target for one in node.all_input_nodes if one.op == "get_attr")
    return "changed" if any(constant in changed for constant in constants) else "plain"


def draw(before: Drawing, after: Drawing) -> str:
    """Both drawings side by side, as one SVG document."""
    height = _TOP + _ROW * max(len(before), len(after), 1)
    width = 2 * _COLUMN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="The program before and after the fold" font-family="sans-serif" font-size="11">',
        *_column(before, 0, f"before: {len(before)} operators"),
        *_column(after, _COLUMN, f"after: {len(after)} operators"),
        "</svg>",
    ]
    return "\n".join(parts)


def _column(nodes: Drawing, left: int, title: str) -> Iterator[str]:
    yield f'<text x="{left + 10}" y="18" font-weight="bold">{escape(title)}</text>'
    for place, node in enumerate(nodes):
        yield from (_edge(source, place, left) for source in node.inputs)
    for place, node in enumerate(nodes):
        yield from _box(node, left + 10, _TOP + place * _ROW)


def _box(node: DrawnNode, x: int, y: int) -> Iterator[str]:
    yield (
        f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="3"'
        f' fill="{_FILLS[node.role]}" stroke="#8a94a3"><title>{escape(node.module)}</title></rect>'
    )
    label = f"{node.operator}  {node.module}" if node.module else node.operator
    yield f'<text x="{x + 6}" y="{y + 14}">{escape(_short(label))}</text>'


def _short(label: str, length: int = 38) -> str:
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _edge(source: int, target: int, left: int) -> str:
    """A line to the next row, an arc on the right to any other."""
    if target == source + 1:
        x, y = left + 10 + _BOX_WIDTH // 2, _TOP + source * _ROW + _BOX_HEIGHT
        return f'<path d="M{x} {y}V{y + _ROW - _BOX_HEIGHT}" stroke="#8a94a3"/>'
    x, first, last = (
        left + 10 + _BOX_WIDTH,
        _TOP + source * _ROW + _BOX_HEIGHT // 2,
        _TOP + target * _ROW + _BOX_HEIGHT // 2,
    )
    reach = x + min(10 + 4 * (target - source), _COLUMN - _BOX_WIDTH - 20)
    return f'<path d="M{x} {first}C{reach} {first} {reach} {last} {x} {last}" fill="none" stroke="#8a94a3"/>'
