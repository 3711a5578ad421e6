"""The network that ships: a trained body with batch norm folded into its convolutions, rounded to 16 bits."""

from __future__ import annotations

from safetensors.torch import save
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..net import Net
from ..outputs import write_bytes
from ..zoo.runs import Epoch, metadata
from .run import Run


def export(trained: nn.Module, net: Net) -> None:
    """Put a trained body's weights into the network that ships: batch norm folded in, rounded to 16 bits.

    What is measured afterwards is what a reader of the snapshot gets.
    """
    state = {key: value.clone() for key, value in trained.state_dict().items()}
    children = dict(trained.named_children())
    for (name, layer), (other, norm) in zip(children.items(), list(children.items())[1:], strict=False):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            was = trained.training
            trained.eval()
            folded = fuse_conv_bn_eval(layer, norm)
            trained.train(was)
            state = {key: value for key, value in state.items() if not key.startswith(f"{other}.")}
            state |= {f"{name}.{key}": value for key, value in folded.state_dict().items()}
    net.body.load_state_dict({key: value.half().float() for key, value in state.items()})


def write_snapshot(run: Run, net: Net, epoch: Epoch) -> None:
    """Write an epoch's network, with its classes' names, into the run's folder. Raises OutputError."""
    facts = {
        "network": run.blueprint.name,
        "epoch": epoch.epoch,
        "accuracy": epoch.accuracy,
        "classes": list(net.classes),
        "seed": run.seed,
    }
    tensors = {key: value.half().cpu().contiguous() for key, value in net.body.state_dict().items()}
    content = save(tensors, metadata=metadata(facts))
    write_bytes(run.folder / str(epoch.snapshot), content, durable=True)
