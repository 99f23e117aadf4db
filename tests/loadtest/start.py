"""``python -m tests.loadtest.start``: the scripted service as a process of its own."""

from __future__ import annotations

import os

from tests.loadtest.scripted_service import bound, right_shaped

if __name__ == "__main__":
    bound(os.environ["FOLDSERVE_HOST"], int(os.environ["FOLDSERVE_PORT"]), right_shaped).serve_forever()
