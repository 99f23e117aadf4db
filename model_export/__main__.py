"""``python -m model_export``: the export's command line. ``--help`` lists the stages.

Exit codes: 0 done; 1 a stage failed, with one clear line; 2 the command line is wrong.
"""

from __future__ import annotations

import sys

from model_export.command_line import main

if __name__ == "__main__":
    sys.exit(main())
