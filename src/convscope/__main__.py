"""Run the command line as `python -m convscope`."""

import sys

# Python puts the working directory first, where a file named torch.py would be taken for the library.
if not sys.flags.safe_path:
    del sys.path[0]

from .cli import main

main()
