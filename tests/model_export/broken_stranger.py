"""A module that cannot be imported: a script that wants arguments."""

import sys

sys.exit("usage: train DATA")
