"""The perceptual loss of a painted picture: content, style, total variation and colours.

    loss  =  content |phi(y) - phi(x)|^2 / |phi(x)|^2  +  style mean |G(y) - G(s)|^2 / |G(s)|^2  +  tv TV(y)

for a picture x, the painted picture y, the style picture s, the activity phi of a layer of any network, and its Gram
matrix G, of several layers (Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, eq. 2-5). Costs are relative, as
everywhere in `likeness`, so that the same weights work for any network; TV is per value. Added to the paper's is the
style cost of the pixels themselves: zfnet64 is nearly blind to brightness, and paints too dark without it.

Layers are the first rectified ones of a size. On VGG the content layer is relu3_1, where Johnson's code reads relu3_3
(the paper's text names relu2_2), and the style layers are relu1_1 to relu4_1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import OptionError
from ..layers import first_of_stages, spatial_layer
from ..net import Net
from ..synthesis.likeness import Content, Style, gram
from ..tapping import tap
from ..terms import total_variation
from ..tracing import PIXELS
from .painting import digest, to_tensor
from .settings import Settings

_CONTENT_STEP = 4
_STYLE_STEP = 8
"""The largest strides, in pixels, of the layers read by default: on VGG those of Johnson's."""


@dataclass(frozen=True, eq=False)
class PerceptualLoss:
    """The loss of painted pictures, given the pictures they were painted from."""

    net: Net
    content: str
    styles: tuple[Style, ...]
    colours: Style
    weights: Tensor
    style: str

    @classmethod
    def of(cls, net: Net, style: Image.Image, settings: Settings) -> PerceptualLoss:
        """Measure the style picture, its shorter side scaled to `style_size`. Raises LayerError, OptionError."""
        if net.channels != 3:
            raise OptionError(
                f"{net.name} reads grey pictures: a style needs a network that reads colour, such as zfnet64"
            )
        content, names = loss_layers(net, settings)
        short = min(style.size)
        size = tuple(max(1, round(side * (settings.style_size or settings.size) / short)) for side in style.size)
        pixels = to_tensor(np.asarray(style.resize((size[0], size[1]), Image.Resampling.LANCZOS))).to(net.device)
        with torch.no_grad():
            activities = tap(net, pixels, names)
        styles = tuple(Style(name, gram(activities[name].float())) for name in names)
        weights = settings.content_weight, settings.style_weight, settings.tv_weight, settings.colour_weight
        colours = Style(PIXELS, gram(pixels))
        return cls(net, content, styles, colours, torch.tensor(weights, device=net.device), digest(style))

    def __call__(self, painted: Tensor, pixels: Tensor) -> Tensor:
        """Return the weighted costs of content, style, total variation and colours, (4,), means over pictures."""
        with torch.no_grad():
            target = tap(self.net, pixels, [self.content])[self.content].float()
        activities = tap(self.net, painted, [self.content, *(style.layer for style in self.styles)])
        content = Content(self.content, target).read(activities[self.content].float())
        style = torch.stack([style.read(activities[style.layer].float()) for style in self.styles]).mean(0)
        variation = total_variation(painted.float()) / painted[0].numel()
        colours = self.colours.read(painted.float())
        return torch.stack([content.mean(), style.mean(), variation.mean(), colours.mean()]) * self.weights


def loss_layers(net: Net, settings: Settings) -> tuple[str, list[str]]:
    """Return the names of the content layer and of the style layers. Raises LayerError."""
    sizes = first_of_stages(net)
    fine = [layer.name for layer in sizes if max(map(abs, layer.lattice.step)) <= _CONTENT_STEP]
    content = settings.content_layer or (fine or [sizes[0].name])[-1]
    styles = (
        settings.style_layers
        or [layer.name for layer in sizes if max(map(abs, layer.lattice.step)) <= _STYLE_STEP]
        or [content]
    )
    return spatial_layer(net, content, purpose="the content").name, [
        spatial_layer(net, name, purpose="the style").name for name in styles
    ]
