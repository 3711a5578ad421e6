"""A lesson on two papers, on any network: a chapter per figure of Zeiler & Fergus and of Simonyan et al., to hand out.

Zeiler & Fergus 2013 (arXiv:1311.2901v3) and Simonyan, Vedaldi & Zisserman 2013 (arXiv:1312.6034v2). What a chapter
needs and the network does not have (rectifiers, spatial positions, classes) is said in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..context import track
from ..data.display import to_image
from ..drawing.base import Drawing
from ..errors import ConvscopeError, OptionError
from ..layers import default_convolutions
from ..net import Net
from ..predictions import answers, first_choices
from ..running import explain
from ..studies.correspondence import correspondence
from ..studies.invariance import invariance
from ..synthesis.class_model import class_model
from ..tapping import tap
from ..views.compare import compare
from ..views.filters import filters
from ..views.maps import maps
from ..views.occlusion_study import occlusion_study
from ..views.project import project
from ..views.segment import segment
from .chapters import Chapter, Contents, Figure, Kept, Request, Said
from .network_figures import evolution_of, layers_of, units_of
from .pictures import name_of, rows_of

_LEAST, _MOST = 2, 20
_SHOWN = 3
"""Pictures of which a chapter shows one figure each: a hand-out has no more than twenty pages."""

_ZEILER = "Zeiler & Fergus 2013, arXiv:1311.2901v3"
_SIMONYAN = "Simonyan et al. 2013, arXiv:1312.6034v2"


@dataclass(frozen=True)
class _Class:
    """What a lesson looks at: pictures by how they are opened, and layers low, in the middle and high."""

    net: Net
    pictures: Sequence[Any]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    title: str
    source: str
    text: str
    draw: Callable[[_Class], Iterator[Drawing | Figure]]


def lesson(request: Request) -> Contents:
    """Return a lesson on both papers, on two to twenty pictures. Raises OptionError for another number."""
    net, count = request.net if request.size is None else request.net.sized(request.size), len(request.pictures)
    if not _LEAST <= count <= _MOST:
        raise OptionError(
            f"a lesson is on {_LEAST} to {_MOST} pictures, and here {'is' if count == 1 else 'are'} {count}: name some "
            "of them, or take the preset why, which has a chapter for each picture"
        )
    lead = (
        f"In 2013 two papers showed how to look into a convolutional network. Here their figures are drawn again, on "
        f"`{net.name}` and {count} pictures: what single units respond to, what the network has to see in order to "
        "name a picture, and what a class looks like to it. Zeiler & Fergus' Fig. 9 and their tables of accuracy are "
        f"missing: they need other networks to be trained.\n\n{net.note[:1].upper()}{net.note[1:]}"
    )
    return Contents(f"A look into {net.name}: two papers, drawn again", lead.strip(), _chapters(request, net))


def _chapters(request: Request, net: Net) -> Iterator[Chapter | Kept]:
    prepared = [(picture, picture.read()) for picture in request.pictures]
    yield _first(net, prepared)
    layers = [layer.name for layer in default_convolutions(net)]
    chosen = tuple(dict.fromkeys((layers[0], layers[len(layers) // 2], layers[-1])))
    subject = _Class(net, [content for _, content in prepared], chosen)
    for part in track(_PARTS, "lesson"):
        yield _chapter(part, subject)


def _chapter(part: _Part, subject: _Class) -> Chapter:
    """Draw a chapter; where the network or what is installed does not allow it, the chapter says why."""
    figures, caveat = list[Figure](), ""
    try:
        for drawing in part.draw(subject):
            figures.append(drawing if isinstance(drawing, Figure) else Figure.of(drawing))
    except ConvscopeError as error:
        caveat = f"Not for this network: {error}"
    return Chapter(part.title, part.text, part.source, caveat, figures=tuple(figures))


def _first(net: Net, pictures: Sequence[tuple[Any, Any]]) -> Chapter:
    """Show the pictures and what the network says of them."""
    said = list[Said]()
    for picture, content in pictures:
        seen = net.prepare(content)
        rows = ()
        if len(net.output.shape) <= 1:
            head, numbers = answers(net, net.pixels(seen))
            rows = rows_of(net, picture.where, head, numbers[0])
        said.append(Said(partial(_small, seen.pixels, net), name_of(picture), rows))
    text = (
        "The pictures as the network sees them, cut out and scaled to its input, and its three most probable answers. "
        "Keep an eye on the wrong ones: the figures below ask why, and a wrong answer is explained as well as a right "
        "one."
    )
    return Chapter("What the network says", text, said=tuple(said))


def _small(pixels: Any, net: Net) -> Any:
    image = to_image(pixels, net.show).convert("RGB")
    factor = max(1, round(300 / max(image.size)))
    return image.resize((image.width * factor, image.height * factor))


def _few(subject: _Class, draw: Callable[[Any], Drawing], count: int = _SHOWN) -> Iterator[Drawing]:
    for content in subject.pictures[:count]:
        yield draw(content)


def _units(subject: _Class) -> Iterator[Drawing]:
    for layer in subject.layers:
        yield project(subject.net, subject.pictures[0], layer=layer, top=6)


def _alike(subject: _Class) -> Iterator[Drawing]:
    for layer in subject.layers:
        yield maps(subject.net, list(subject.pictures[:5]), layer=layer, top=8)


def _projected(subject: _Class, content: Any) -> str | None:
    """Return an objective whose deconvnet reaches the pixels: the class score, else the highest layer's top unit."""
    net, layer = subject.net, subject.layers[-1]
    if explain(net, content, "deconvnet").values.any():
        return None
    with torch.inference_mode():
        activity = tap(net, net.read(content), [layer])[layer][0]
    return f"{layer}:{int(activity.flatten(1).amax(1).argmax())}@max"


def _models(subject: _Class) -> Iterator[Drawing]:
    net = subject.net
    wanted = dict.fromkeys(first_choices(net, net.read(content))[0] for content in subject.pictures)
    yield class_model(net, of=[*wanted][:4], steps=128)


_PARTS = (
    _Part(
        "Back to the pixels: how a unit is made visible",
        f"{_ZEILER}, Fig. 1",
        "A unit deep in a network is only a number. To see what it stands for, the network is run backwards: all "
        "other units of the layer are set to zero, and the one that is left is passed down. Pooling is undone by "
        "putting the value back where the maximum was, rectification is applied again, and each convolution is "
        "replaced by its transpose. What arrives at the pixels is the pattern to which the unit responded. Each "
        "column below does this for the strongest unit of one layer: the deeper the layer, the larger and the more "
        "selective the pattern.",
        lambda each: iter([units_of(each.net, each.pictures[:4])]),
    ),
    _Part(
        "What single units saw",
        f"{_ZEILER}, Fig. 2",
        "For a low, a middle and a high layer: the units that respond most to the first picture, each projection "
        "beside the part of the picture that the unit can see at all. Low layers find edges and colours, middle ones "
        "textures and corners, high ones parts of things. The paper looks through a whole data set for the nine "
        "pictures that excite a unit most; here it is one picture, so the same unit may well respond to something "
        "else elsewhere.",
        _units,
    ),
    _Part(
        "One channel, several pictures",
        f"{_ZEILER}, Fig. 2",
        "A channel is one detector, applied everywhere. In each row is one picture, in each column one channel of the"
        " layer, all on one scale. A channel that is bright in the same kind of place in several pictures has learnt "
        "something of its own; one that is bright everywhere tells little.",
        _alike,
    ),
    _Part(
        "Layer after layer",
        f"{_ZEILER}, Fig. 3",
        "A convolutional network is a chain of filters. Each convolution reads what the one before it made, so that "
        "its units see a larger part of the picture, while positions become fewer and channels more. Below is the "
        "first picture on its way: for each convolution its number of channels and positions, how many pixels one "
        "unit sees, and what the channel made of it that responds most. At first one still recognises the picture; in "
        "the end there is little more than where something was found.",
        lambda each: iter([layers_of(each.net, each.pictures[0])]),
    ),
    _Part(
        "How units came about",
        f"{_ZEILER}, Fig. 4",
        "The same units at several moments of the training, from left to right: each time what excites them most among "
        "the pictures and, below it, what they project down to there. "
        "Units of low layers look like what they will be after a few epochs, those of "
        "high layers change until late. Where a projection suddenly shows something else, another picture has become "
        "the one that excites the unit most.",
        lambda each: iter([evolution_of(each.net, each.pictures[:10], each.layers[::2])]),
    ),
    _Part(
        "Shifted, enlarged, rotated",
        f"{_ZEILER}, Fig. 5",
        "A thing is the same thing a little further down, larger, or turned. Are the network's features the same, too? "
        "The curves say how far the features of the changed picture are from those of the picture itself: in the first "
        "layer, where a few pixels change nearly everything, and in the last before the classes, where the same "
        "change has a smaller and more gradual effect. The right column is the probability of the class. Networks are "
        "used to shifts and scales from their training; hardly ever were they shown anything upside down.",
        lambda each: iter([invariance(each.net, list(each.pictures[:5]))]),
    ),
    _Part(
        "The first filters",
        f"{_ZEILER}, Fig. 6",
        "The first convolution reads pixels, so its weights are small pictures themselves. The authors looked at them"
        " and found faults: some filters were dead, some too large, and the coarse stride left traces of the grid in "
        "the second layer. They made the filters smaller and the stride finer, and the network became better. Look "
        "for filters that are grey all over, for pairs that differ only in sign, and for colour blobs beside edges.",
        lambda each: iter([filters(each.net)]),
    ),
    _Part(
        "What is covered, and what the network then says",
        f"{_ZEILER}, Fig. 7",
        "A grey square moves over the picture, and after each step the network is asked again. Where covering makes "
        "the probability fall, something was needed for the answer; where it rises, something had spoken against it. "
        "This asks the network itself and needs no gradient. The map of first choices shows what it says instead: "
        "often another thing that really is in the picture.",
        lambda each: _few(each, lambda content: occlusion_study(each.net, content), 2),
    ),
    _Part(
        "The same part in several pictures",
        f"{_ZEILER}, Fig. 8 and Table 1",
        "Does the network know that one dog's eye corresponds to another's? The authors covered the same part in five "
        "pictures and compared in which direction every feature changed. The numbers beside the rows are the share of "
        "features that changed in another direction in another picture: the smaller, the more alike. For eyes and "
        "noses of dogs who look into the camera it was smaller than for random places. Here nobody has marked a part, "
        "so the one channel that responds most chooses it; if your pictures show different things, expect no "
        "difference between the rows. `convscope study correspondence` takes parts that you mark, with --boxes.",
        lambda each: iter([correspondence(each.net, list(each.pictures[:5]))]),
    ),
    _Part(
        "What a class looks like",
        f"{_SIMONYAN}, Fig. 1",
        "Instead of asking which class a picture belongs to, one can ask which picture belongs to a class most. The "
        "weights stay fixed and the pixels are changed, step by step, so that the score of the class rises; a penalty"
        " keeps the pixels small. No photograph is used. What comes out is not one thing but many views of it at "
        "once, because the network is satisfied by parts wherever they are.",
        _models,
    ),
    _Part(
        "Which pixels matter",
        f"{_SIMONYAN}, Fig. 2",
        "The gradient of the class score with respect to the pixels says how much the score would change if a pixel "
        "changed a little. Its magnitude, the largest over the colours, is a map of the picture that takes one pass "
        "back. It is grainy, since neighbouring pixels can have very different gradients, but its mass lies on what "
        "the answer depends on.",
        lambda each: _few(each, lambda content: explain(each.net, content, "saliency")),
    ),
    _Part(
        "From the map to the object",
        f"{_SIMONYAN}, Fig. 3",
        "A network that was only told which classes there are can also say where a thing is. The strongest pixels of "
        "the map are taken for the object, the weakest for the background, and a graph cut by colour finds the border"
        " between them. Nobody ever showed the network an outline or a box.",
        lambda each: _few(each, lambda content: segment(each.net, content), 2),
    ),
    _Part(
        "Two ways back, and what came after",
        f"{_SIMONYAN}, sec. 4",
        "The gradient and the deconvnet differ in one thing alone: how a rectifier passes the signal back. The "
        "gradient asks whether the unit was active on the way up, the deconvnet whether the signal is positive on the"
        " way down. Guided backpropagation asks both and draws the clearest lines. Clear is not true, however: the "
        "number below each map says how similar it is to a map of the same network with random weights. Where it is "
        "near 1, the map shows the picture more than what was learnt. They are of the class score, or, where the "
        "deconvnet's signal does not reach the pixels, of the strongest unit of the last convolution.",
        lambda each: _few(
            each,
            lambda content: compare(
                each.net,
                content,
                methods=["gradient", "deconvnet", "guided_backprop"],
                of=_projected(each, content),
                check=True,
            ),
            2,
        ),
    ),
)
