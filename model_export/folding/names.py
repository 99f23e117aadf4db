"""What a node of a program is called in a report."""

from __future__ import annotations

from torch import fx


def module_path(node: fx.Node) -> str:
    """The path of the module that made the node, as ``named_modules()`` spells it; else the node's name."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values()]
    # A module called twice appears as name@1 the second time.
    return (paths[-1].split("@")[0] if paths else "") or node.name
