"""The digits that scikit-learn carries: 1,797 handwritten ones, 8×8 gray. No download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from model_export.data.dataset import Split

LABELS = tuple("0123456789")
SHAPE = (1, 8, 8)  # C, H, W
_BRIGHTEST = 16  # each pixel counts the ink in a 4×4 block


def read() -> Split:
    """All digits, in the package's order."""
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / _BRIGHTEST)).astype(np.uint8)
    return Split(images[..., np.newaxis], bunch.target.astype(np.int64))
