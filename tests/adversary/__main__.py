"""`make adversary`: run the parts, print one table of counts, and say how each fault is made again."""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> int:
    """Run what the command line asks for; return 1 where there was a fault."""
    import torch

    torch.set_num_threads(1)
    from .report import Report, parts

    parser = argparse.ArgumentParser(prog="python -m adversary", description=__doc__)
    parser.add_argument("part", nargs="*", default=list(parts()), help=f"{', '.join(parts())}; all by default")
    parser.add_argument("--count", type=int, help="cases of each part; its own number by default")
    parser.add_argument("--short", action="store_true", help="a small number of cases of each part, as in the suite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kinds", default="", help="only these kinds of a part, with commas between")
    parser.add_argument("--only", type=int, help="one case by its number, and what it says")
    parser.add_argument("--out", default="adversary.json", help="where counts and faults are kept; a run goes on there")
    given = parser.parse_args()
    report = Report(given.out)
    for name in given.part:
        report.run(parts()[name], given)
    print(report.table())
    return 1 if report.faults else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # what libraries say when Python ends is not about the cases
