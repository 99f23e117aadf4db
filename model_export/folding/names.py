"""What a node of a program is called in a report."""

from __future__ import annotations

from torch import fx, nn


def module_path(node: fx.Node) -> str:
    """The path of the module that made the node, as ``named_modules()`` spells it; else the node's name."""
    path, _ = _innermost(node)
    return path or node.name


def normalization_name(node: fx.Node) -> str:
    """The path of a normalisation's module; of a functional call its caller's path and the node's name."""
    path, kind = _innermost(node)
    if "Norm" in kind:
        return path or node.name
    return f"{path}.{node.name}" if path else node.name


def first_names(model: nn.Module) -> dict[str, str]:
    """Of each path in the model, the first path of the same module: what ``named_modules()`` lists."""
    listed = {module: path for path, module in model.named_modules()}
    return {path: listed[module] for path, module in model.named_modules(remove_duplicate=False)}


def _innermost(node: fx.Node) -> tuple[str, str]:
    stack = node.meta.get("nn_module_stack") or {}
    entries = [(str(path), str(kind)) for path, kind in stack.values()]
    path, kind = entries[-1] if entries else ("", "")
    # A module called twice appears as name@1 the second time.
    return path.split("@")[0], kind.rpartition(".")[2]
