"""Input contracts for tests, written in one line."""

from __future__ import annotations

from typing import Any

from service.artifact import InputContract


def contract(height: int, width: int, colour_order: str = "rgb", **fields: Any) -> InputContract:
    """A contract of that size; fill, mean and std are 0, 0 and 1 unless given."""
    channels = 1 if colour_order == "gray" else 3
    defaults = {"fill": (0,) * channels, "mean": (0.0,) * channels, "std": (1.0,) * channels}
    return InputContract.model_validate(
        {"height": height, "width": width, "channels": channels, "colour_order": colour_order}
        | defaults
        | fields
    )
