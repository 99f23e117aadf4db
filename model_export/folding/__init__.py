"""Folds BatchNorm away: carries per-channel affine maps through a program to where they vanish."""

from model_export.errors import FoldRefused
from model_export.folding.counting import count_affine_maps
from model_export.folding.folder import FoldResult, fold
from model_export.folding.report import FoldReport

__all__ = ["FoldRefused", "FoldReport", "FoldResult", "count_affine_maps", "fold"]
