"""Programs of `torch.export` as networks: read as data, so that nothing in the file is run.

`torch.export.load` reads Python objects by pickle, evaluates expressions and looks functions up by whatever name the
file gives. Here the graph is read from its JSON, numbers are taken as bytes, and only operations listed below exist.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import NetworkError, OptionError
from ..net import Net
from .exported_graphs import graph_of
from .exported_reading import TYPES, Program, read_program
from .graph_files import as_net, chosen_outputs, one_input, refuse_batches, refuse_weights
from .graphs import reason
from .sources import Source

SOURCE = Source(
    "pt2",
    ".exported_programs:build",
    "programs of torch.export.save",
    follows="FILE.pt2",
    path=True,
    holds_weights=True,
    endings=(".pt2",),
)


def build(model: str, weights: str | Path | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Build the network of a file of `torch.export.save` as a Net.

    Raises NetworkError for a file that is missing, damaged, scripted, compiled, pickled, exported in training mode, or
    that uses what is not known here; for several inputs; OptionError for weights, which are inside the file, and for an
    output that it does not have.
    """
    path = Path(model)
    refuse_weights(f"pt2:{model}", weights)
    program = read_program(path)
    try:
        picture, shape, single = _picture(program, path)
        outputs, notes = chosen_outputs(program.results, path, reading)
        body = graph_of(program, picture, outputs, path)
    except (NetworkError, OptionError):
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise NetworkError(f"{path} is damaged, or written by another version of torch: {reason(error)}") from None
    return as_net(body, path, shape, notes, reading, single=single)


def _picture(program: Program, path: Path) -> tuple[str, tuple[int, Any, Any], bool]:
    name = one_input(program.inputs, path)
    meta = program.graph["tensor_values"][name]
    sizes, kind = [size.get("as_int") for size in meta["sizes"]], TYPES[meta["dtype"]]
    if len(sizes) != 4 or not kind.is_floating_point:
        raise NetworkError(f"{path} reads {len(sizes)} dimensions of {kind}, not (n, c, height, width) of floats")
    if not sizes[1]:
        raise NetworkError(f"{path} reads any number of channels: export it for as many as your pictures have")
    refuse_batches(sizes[0], path)
    return name, (sizes[1], sizes[2], sizes[3]), sizes[0] == 1
