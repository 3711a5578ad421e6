"""Run the command line as `python -m convscope`."""

from .cli import main

main()
