"""Real networks, real pictures: the maps lie on what the network names, and the deconvnet's own validation holds."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor

import convscope as cs
from convscope.attribution.deconvnet import deconvnet
from convscope.attribution.occlusion import occlusion
from convscope.predictions import predict
from networks import cifar_resnet
from oracles.deconvnet import walk_gradient

Find = Callable[[str], Path]

# Drawn by eye around the animals of cat_dog.png (224 x 224): left, top, right, bottom.
DOG, CAT = (75, 10, 165, 145), (40, 118, 206, 222)


def share_in(heatmap: cs.Heatmap, box: tuple[int, int, int, int]) -> tuple[float, float]:
    """How much of the map's positive values lies in a box of the original, and how much of the seen area does."""
    values = heatmap.spread(heatmap.picture.original.size)
    seen, positive = ~np.isnan(values), np.nan_to_num(values).clip(0)
    inside = np.zeros_like(seen)
    inside[box[1] : box[3], box[0] : box[2]] = True
    return positive[inside].sum() / positive.sum(), (seen & inside).sum() / seen.sum()


def test_squeezenet_says_egyptian_cat(squeezenet: cs.Net, chelsea: Any) -> None:
    probabilities = predict(squeezenet, squeezenet.read(chelsea))[0]
    assert squeezenet.class_name(int(probabilities.argmax())) == "Egyptian cat"
    assert probabilities.max() == pytest.approx(0.71, abs=0.02)


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
@pytest.mark.parametrize(("of", "box", "other"), [("tiger cat", CAT, DOG), ("boxer", DOG, CAT)])
def test_the_animal_that_is_asked_for_lights_up(
    squeezenet: cs.Net, data: Find, method: str, of: str, box: Any, other: Any
) -> None:
    options = {"stride": 24} if method == "occlusion" else {}
    heatmap = cs.explain(squeezenet, data("pictures/cat_dog.png"), method, of, **options)
    inside, area = share_in(heatmap, box)
    elsewhere, other_area = share_in(heatmap, other)
    print(f"{method}, {of}: {inside / area:.2f} times its area, the other animal {elsewhere / other_area:.2f}")
    assert inside > 1.4 * area
    assert inside / area > 1.2 * elsewhere / other_area


@pytest.mark.parametrize("method", ["saliency", "guided_backprop", "gradient", "gradient_x_input"])
def test_every_map_of_the_cat_is_drawn_and_not_mush(squeezenet: cs.Net, chelsea: Any, method: str) -> None:
    heatmap = cs.explain(squeezenet, chelsea, method, "Egyptian cat")
    image = np.asarray(heatmap.render())
    assert image.std() > 30 and heatmap.values.abs().max() > 0


def test_the_deconvnet_of_a_class_dies_and_that_of_its_strongest_place_does_not(
    squeezenet: cs.Net, chelsea: Any
) -> None:
    """The seed of a whole class map is negative at every unit of a squeeze layer; captum gives the same zeros."""
    whole = cs.explain(squeezenet, chelsea, "deconvnet", "Egyptian cat")
    position = cs.explain(squeezenet, chelsea, "deconvnet", "classifier.1:285")
    assert not whole.values.any() and "the signal does not reach the pixels" in whole.note
    assert position.values.abs().max() > 0


def cifar_pictures(path: Path, count: int) -> Iterator[tuple[str, Image.Image]]:
    """The first `count` test pictures of every class."""
    found: dict[str, int] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            parts = Path(member.name).parts
            if member.isfile() and "test" in parts and found.get(parts[-2], 0) < count:
                found[parts[-2]] = found.get(parts[-2], 0) + 1
                file = archive.extractfile(member)
                assert file is not None
                yield parts[-2], Image.open(io.BytesIO(file.read()))


@pytest.mark.slow
def test_cifar_resnet_with_functional_rectifiers(data: Find) -> None:
    net = cifar_resnet(data("weights/cifar_resnet20.safetensors"))
    pictures = list(cifar_pictures(data("cifar10-20k.tar.xz"), 20))
    pixels = torch.cat([net.read(image) for _, image in pictures])
    named = [net.class_name(int(i)) for i in predict(net, pixels).argmax(1)]
    right = np.mean([name == truth for name, (truth, _) in zip(named, pictures, strict=True)])
    assert len(pictures) == 200 and right > 0.75
    for method, rule in (("deconvnet", "deconvnet"), ("guided_backprop", "guided")):
        heatmap = cs.explain(net, pictures[0][1], method)
        assert "19 of 19 rectifiers rewritten" in heatmap.note
        objective = int(heatmap.recipe.objective)
        expected, count = walk_gradient(net, pixels[:1], lambda out, objective=objective: out[:, objective].sum(), rule)
        assert count == 19
        torch.testing.assert_close(heatmap.values, expected[0], rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture(scope="module")
def photographs(data: Find, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Four sample pictures and eight of ImageNet's, of different classes."""
    import skimage.data

    folder = tmp_path_factory.mktemp("imagenet")
    with tarfile.open(data("imagenet-samples.tar")) as archive:
        table = archive.extractfile("imagenet-samples.csv")
        assert table is not None
        rows = list(csv.DictReader(io.TextIOWrapper(table)))[::100][:8]
        for row in rows:
            archive.extract(row["path"], folder, filter="data")
    samples = [getattr(skimage.data, name)() for name in ("chelsea", "coffee", "astronaut", "rocket")]
    return samples + [folder / row["path"] for row in rows]


def energy_and_drop(net: cs.Net, picture: Any, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Per 32 x 32 pixels: the projection's energy of the strongest map's strongest activation, and that map's drop."""
    pixels = net.read(picture)
    activity = cs.tap(net, pixels, [layer])[layer][0]
    channel = int(activity.flatten(1).amax(1).argmax())
    y, x = divmod(int(activity[channel].argmax()), activity.shape[2])
    energy = deconvnet(net, pixels, cs.as_objective(net, f"{layer}:{channel}@{y},{x}"))[0].square().sum(0)
    drop = occlusion(net, pixels, cs.as_objective(net, f"{layer}:{channel}@mean"), patch=32, stride=32)[0, 0]

    def pooled(map_: Tensor) -> np.ndarray:
        return torch.nn.functional.avg_pool2d(map_[None, None], 32)[0, 0].flatten().numpy()

    return pooled(energy), pooled(drop)


@pytest.mark.slow
def test_occluding_what_the_projection_shows_lowers_the_map(squeezenet: cs.Net, photographs: list[Any]) -> None:
    """Zeiler & Fergus' own validation (sec. 4.2, Fig. 7 b and c), as rank correlations with shuffled controls."""
    pairs = [energy_and_drop(squeezenet, picture, "features.10") for picture in photographs]
    generator = np.random.default_rng(0)
    own = np.array([spearmanr(energy, drop).statistic for energy, drop in pairs])
    permuted = np.array(
        [spearmanr(generator.permutation(energy), drop).statistic for energy, drop in pairs for _ in range(20)]
    )
    others = np.array(
        [spearmanr(pairs[i - shift][0], drop).statistic for i, (_, drop) in enumerate(pairs) for shift in (1, 2, 3)]
    )
    support = [energy > np.quantile(energy, 0.9) for energy, _ in pairs]
    stronger = np.mean([drop[at].mean() > drop[~at].mean() for at, (_, drop) in zip(support, pairs, strict=True)])
    controls = f"permuted {permuted.mean():.3f}, other pictures {others.mean():.3f}"
    print(f"own {own.mean():.3f}, {controls}; lower inside the support in {stronger:.0%}")
    assert own.mean() > 0.15 and abs(permuted.mean()) < 0.03
    assert own.mean() > others.mean() + 0.15
    assert own.mean() > permuted.mean() + 4 * permuted.std() / np.sqrt(len(own))
    assert stronger >= 0.85
