"""The project's own networks: published numbers, and what the trained ones that ship can do."""

from __future__ import annotations

import csv
import io
import math
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from skimage import data as pictures
from torch import Tensor, nn

from convscope import Net, explain, load, predict
from convscope.data.samples import digits, photographs
from convscope.errors import NetworkError, OptionError, WeightsError
from convscope.zoo import default_for, list_networks, shipping
from convscope.zoo.blueprints import BLUEPRINTS, VARIANTS
from convscope.zoo.lenet import lenet5_1998
from convscope.zoo.runs import read_history, shipped
from convscope.zoo.zfnet import zfnet, zfnet64


def bare(name: str) -> Net:
    """A network without numbers in it: sizes need none, and ZFNet has 62 million."""
    blueprint = BLUEPRINTS[name]
    with torch.device("meta"):
        return blueprint.net(blueprint.body(blueprint.classes), [])


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


# ZFNet and AlexNet


def test_zfnet_has_the_sizes_parameters_and_receptive_fields_of_the_paper() -> None:
    net = bare("zfnet")
    table = {
        "conv1": (110, 7, 2, -1), "pool1": (55, 11, 4, -1), "conv2": (26, 27, 8, -1), "pool2": (13, 43, 16, -1),
        "conv3": (13, 75, 16, -17), "conv4": (13, 107, 16, -33), "conv5": (13, 139, 16, -49),
        "pool5": (6, 171, 32, -49),
    }  # fmt: skip
    for name, (positions, size, step, offset) in table.items():
        layer = net.layer(name)
        assert layer.shape[1:] == (positions, positions)
        assert (layer.field.size, layer.field.step, layer.field.offset) == ((size,) * 2, (step,) * 2, (offset,) * 2)
    channels = [net.layer(name).shape[0] for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")]
    assert channels == [96, 256, 384, 384, 256, 4096, 4096, 1000]
    assert parameters(net.body) == 62_357_608
    assert parameters(nn.Sequential(*[m for m in net.body if isinstance(m, nn.Conv2d)])) == 3_726_464
    assert net.layer("fc8").field.y.shared and net.layer("fc8").field.box((0, 0), (224, 224)) == (0, 0, 224, 224)


def test_the_sizes_are_those_of_rounding_up_without_padding() -> None:
    """cuda-convnet: 1 + ceil((2p + in - k) / s), no padding but in layers 3 to 5."""

    def positions(side: int, kernel: int, stride: int, padding: int = 0) -> int:
        return 1 + math.ceil((2 * padding + side - kernel) / stride)

    side, expected = 224, dict[str, int]()
    for name, *window in (
        ("conv1", 7, 2), ("pool1", 3, 2), ("conv2", 5, 2), ("pool2", 3, 2), ("conv3", 3, 1, 1), ("conv5", 3, 1, 1),
        ("pool5", 3, 2),
    ):  # fmt: skip
        side = expected[str(name)] = positions(side, *map(int, window))
    assert {name: bare("zfnet").layer(name).shape[1] for name in expected} == expected


def test_relu_comes_before_pooling_and_pooling_before_normalisation() -> None:
    order = [name for name, _ in bare("zfnet").body.named_children()]
    assert order[:8] == ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2"]
    assert order[-7:] == ["fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8"]


def test_alexnet_as_replicated() -> None:
    net = bare("alexnet-zf")
    sizes = [net.layer(name).shape[1] for name in ("conv1", "pool1", "conv2", "pool2", "conv3", "conv5", "pool5")]
    assert sizes == [55, 27, 27, 13, 13, 13, 6]
    assert net.layer("conv1").field.size == (11, 11) and net.layer("conv1").field.step == (4, 4)
    assert parameters(net.body) == 62_378_344, "Krizhevsky's, without the split over two cards"


@pytest.mark.parametrize(
    "name", [f"{plain}:{variant}" for plain in ("zfnet", "alexnet-zf") for variant in VARIANTS[plain]]
)
def test_variants_of_table_3(name: str) -> None:
    net, plain = bare(name), bare(name.partition(":")[0])
    layers, options = set(net.layers), VARIANTS[plain.name][name.partition(":")[2]]
    for number in (3, 4, 6, 7):
        missing = number in options.get("without", ())
        assert (f"relu{number}" not in layers) == missing
    assert net.layer("pool5").shape == (options.get("middle", (0, 0, 256))[-1], 6, 6)
    for full in {"relu6", "relu7"} & layers:
        assert net.layer(full).shape == (options.get("full", 4096),)
    assert net.output.shape == (1000,) and parameters(net.body) != parameters(plain.body)


def test_a_network_of_table_3_runs_and_learns_in_every_layer() -> None:
    body = zfnet(5, full=16, without=(3, 4))
    body.eval()(torch.rand(1, 3, 224, 224)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in body.parameters())


@pytest.mark.parametrize(("variant", "options"), VARIANTS["zfnet64"].items())
def test_variants_of_zfnet64(variant: str, options: dict[str, Any]) -> None:
    net, plain = bare(f"zfnet64:{variant}"), bare("zfnet64")
    missing = {f"{kind}{number}" for number in options.get("without", ()) for kind in ("conv", "relu")}
    assert set(plain.layers) - set(net.layers) == missing
    kept = [number for number in range(1, 7) if number not in options.get("without", ())]
    for number in kept:
        channels = plain.layer(f"conv{number}").shape[0]
        assert net.layer(f"conv{number}").shape == (
            round(channels * options.get("width", 1)),
            *plain.layer(f"conv{number}").shape[1:],
        )
    assert net.output.shape == (100,) and parameters(net.body) != parameters(plain.body)
    with pytest.raises(ValueError, match=r"2 to 6 can be left out, not \[1\]"):
        zfnet64(without=(1,))


def test_layer_5_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match=r"3, 4, 6 and 7 can be left out, not \[5\]"):
        zfnet(without=(5,))


def test_response_normalisation_is_the_written_formula() -> None:
    """Krizhevsky et al. 2012, sec. 3.3: b = a / (k + alpha * sum a^2)^beta, k = 2, n = 5, alpha = 1e-4, beta = 3/4."""
    a = torch.randn(2, 9, 3, 4, dtype=torch.float64) * 80
    wanted = torch.empty_like(a)
    for i in range(9):
        near = a[:, max(0, i - 2) : min(8, i + 2) + 1].square().sum(1)
        wanted[:, i] = a[:, i] / (2 + 1e-4 * near) ** 0.75
    norm = dict(zfnet(2, full=8).named_children())["norm1"]
    assert torch.allclose(norm(a), wanted, rtol=1e-12) and not torch.allclose(wanted, a / 2**0.75, rtol=1e-3)


def test_zfnet_reads_pixels_of_0_to_255_less_their_mean() -> None:
    seen = bare("zfnet").normalise(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2))
    assert seen.amin() == pytest.approx(-0.485 * 255) and seen.amax() == pytest.approx((1 - 0.406) * 255)


# LeNet-5


def connections(net: Net) -> dict[str, int]:
    """Count connections as the paper does: inputs of every unit, and its bias."""
    count = dict[str, int]()
    for name, module in net.body.named_children():
        positions = math.prod(net.layer(name).shape[1:])
        if isinstance(module, nn.Conv2d):
            count[name] = positions * parameters(module)
        elif isinstance(module, nn.Linear):
            count[name] = parameters(module)
        elif name in ("s2", "s4"):
            count[name] = math.prod(net.layer(name).shape) * (4 + 1)
    return count | {"output": 84 * 10}


def test_lenet5_1998_has_the_published_parameters_and_connections() -> None:
    net = load("lenet5-1998", weights=None)
    own = {name: parameters(module) for name, module in net.body.named_children() if parameters(module)}
    assert own == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert sum(own.values()) == 60_000
    counted = connections(net)
    assert counted == {
        "c1": 122_304, "s2": 5_880, "c3": 151_600, "s4": 2_000, "c5": 48_120, "f6": 10_164, "output": 840
    }  # fmt: skip
    assert sum(counted.values()) == 340_908
    shapes = {name: net.layer(name).shape for name in ("c1", "s2", "c3", "s4", "c5", "f6", "")}
    assert shapes == {
        "c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5), "c5": (120, 1, 1), "f6": (84,),
        "": (10,),
    }  # fmt: skip


def test_lenet5_1998_reads_maps_as_in_table_1() -> None:
    table = """X...XXX..XXXX.XX
               XX...XXX..XXXX.X
               XXX...XXX..X.XXX
               .XXX..XXXX..X.XX
               ..XXX..XXXX.XX.X
               ...XXX..XXXX.XXX"""
    reads = torch.tensor([[dot == "X" for dot in row.strip()] for row in table.splitlines()]).T
    weight = lenet5_1998().get_submodule("c3").weight
    assert torch.equal(weight.flatten(2).abs().sum(2) > 0, reads) and reads.sum() == 60


def test_the_kernels_that_table_1_leaves_out_stay_zero_while_it_learns() -> None:
    body = lenet5_1998()
    zero = body.get_submodule("c3").weight == 0
    optimiser = torch.optim.SGD(body.parameters(), 0.1, weight_decay=0.1)
    before = body.get_submodule("c3").weight.detach().clone()
    body(torch.rand(4, 1, 32, 32)).square().sum().backward()
    optimiser.step()
    after = body.get_submodule("c3").weight
    assert torch.equal(after == 0, zero) and not torch.equal(after, before)


def test_lenet5_1998_squashes_subsamples_and_measures_as_written() -> None:
    """LeCun et al. 1998, sec. II-B: A tanh(S a), A = 1.7159, S = 2/3; a sum of four; y = sum (x - w)^2."""
    parts = dict(lenet5_1998().double().named_children())
    x = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    assert torch.allclose(parts["squash1"](x), 1.7159 * torch.tanh(2 * x / 3))
    assert parts["squash1"](torch.ones(1, dtype=torch.float64)).item() == pytest.approx(1.0, abs=1e-4), "f(1) = 1"
    s2 = parts["s2"]
    with torch.no_grad():
        s2.coefficient.uniform_(-1, 1)
        s2.bias.uniform_(-1, 1)
    for channel in range(6):
        four = x[1, channel, 2:4, 0:2].sum()
        wanted = four * s2.coefficient[channel, 0, 0] + s2.bias[channel, 0, 0]
        assert s2(x)[1, channel, 1, 0].item() == pytest.approx(wanted.item())
    f6, codes = torch.randn(2, 84, dtype=torch.float64), parts["output"].codes
    for digit in range(10):
        assert parts["output"](f6)[1, digit].item() == pytest.approx(-((f6[1] - codes[digit]) ** 2).sum().item())
    assert codes.shape == (10, 84) and set(codes.flatten().tolist()) == {-1.0, 1.0}
    apart = torch.cdist(codes, codes, p=0) + 84 * torch.eye(10)
    assert apart.min() >= 8, "no two digits have nearly the same code"


def test_lenet5_1998_reads_paper_as_minus_a_tenth_and_ink_as_1_175() -> None:
    seen = load("lenet5-1998", weights=None).normalise(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
    assert seen.flatten().tolist() == pytest.approx([-0.1, 1.175])


# zfnet64


def test_zfnet64_is_plain_and_small_and_takes_larger_pictures() -> None:
    net = load("zfnet64")
    kinds = {type(part) for part in net.body.children()}
    assert kinds == {nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear}
    assert parameters(net.body) <= 2_500_000 and net.convolution(1).field.size == (7, 7)
    assert len(net.classes) == len(set(net.classes)) == 100 and net.size == (64, 64)
    for side in (64, 96, 128, 160, 331):
        assert net(torch.rand(1, 3, side, side)).shape == (1, 100)
    assert parameters(zfnet64(batch_norm=True, dropout=0.5)) < 2_500_000


def test_a_network_of_another_size_shares_its_weights_and_says_so() -> None:
    net = load("zfnet64")
    large = net.sized(128)
    assert large.size == (128, 128) and large.body is net.body and large.classes == net.classes
    assert large.layer("conv1").shape == (48, 64, 64) and "128 × 128" in large.note
    pixels = large.read(pictures.coffee())
    assert torch.equal(pixels, net.read(pictures.coffee(), size=128)) and torch.equal(large(pixels), net(pixels))


# What ships


def test_all_shipped_weights_stay_under_25_megabytes() -> None:
    files = list(shipped("").rglob("*.safetensors"))
    assert len(files) >= 18 and sum(path.stat().st_size for path in files) < 25_000_000


@pytest.mark.parametrize("name", shipping())
def test_a_shipped_network_has_history_snapshots_and_card(name: str) -> None:
    folder = shipped(name)
    history, card = read_history(folder), (folder / "card.md").read_text()
    assert history.network == name
    assert [epoch.epoch for epoch in history.epochs] == list(range(1, len(history.epochs) + 1))
    kept = [epoch.epoch for epoch in history.snapshots]
    assert kept == [1, 2, 5, 10, 20, len(history.epochs)]
    assert {path.name for path in folder.glob("*.safetensors")} == {epoch.snapshot for epoch in history.snapshots}
    digests = set[str]()
    for epoch in history.snapshots:
        with safe_open(folder / str(epoch.snapshot), "pt") as file:
            assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
        net = load(name, epoch=epoch.epoch)
        digests.add(net.digest)
        assert f"epoch {epoch.epoch}" in net.note and net.classes == history.classes
        assert f"| {epoch.epoch} |" in card and f"{epoch.accuracy:.2%}" in card
    assert len(digests) == len(kept) and load(name).digest == load(name, epoch=kept[-1]).digest
    assert history.epochs[-1].accuracy > history.epochs[0].accuracy
    for word in ("## Data", "## Recipe", "seed", "## Machine", "minutes", "per class", "no held-out picture"):
        assert word in card
    for line in card.splitlines():
        assert "Not described" not in line


def test_zfnet_does_not_ship_and_says_how_to_get_it() -> None:
    with pytest.raises(WeightsError, match="convscope train zfnet --data FOLDER"):
        load("zfnet")
    assert set(shipping()) == {"zfnet64", "lenet5", "lenet5-1998"} < set(list_networks())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "zfnet64", "epoch": 3}, ["no snapshot of epoch 3", "1, 2, 5, 10, 20"]),
        ({"name": "zfnet64", "epoch": -1}, ["no snapshot of epoch -1"]),
        ({"name": "torchvision:resnet18", "epoch": 3, "weights": None}, ["resnet18", "lenet5", "zfnet64"]),
        ({"name": "lenet5", "epoch": 3, "weights": None}, ["random weights have no epoch 3"]),
        ({"name": "lenet5", "epoch": 3, "weights": shipped("lenet5") / "epoch-001.safetensors"}, ["leave out epoch"]),
    ],
)
def test_epochs_that_do_not_exist(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        load(**options)
    assert all(word in str(caught.value) for word in words)


def test_weights_of_another_network_are_named() -> None:
    with pytest.raises(WeightsError, match="holds weights of zfnet64, not of lenet5"):
        load("lenet5", weights=shipped("zfnet64") / "epoch-001.safetensors")


def test_the_nearest_variant_is_offered() -> None:
    with pytest.raises(NetworkError, match="alexnet-zf:no-3-4"):
        load("alexnet-zf:no-34")


def test_the_default_is_lenet5_for_digits_and_zfnet64_for_all_else(tmp_path: Path) -> None:
    Image.new("L", (200, 200)).save(tmp_path / "grey.png")
    Image.new("RGB", (28, 28)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    assert default_for(digits()) == "lenet5"
    for others in (photographs(), [], [tmp_path / "grey.png"], [tmp_path / "small.png"], [tmp_path / "text.png"]):
        assert default_for(others) == "zfnet64"
    assert default_for([*digits(), *photographs()]) == "zfnet64"


# What the trained networks can do


@pytest.fixture(scope="module")
def validation(data: Callable[[str], Path]) -> tuple[list[bytes], Tensor]:
    """The 5,000 validation pictures and the index of each one's class."""
    found: list[tuple[str, bytes]] = []
    with tarfile.open(data("tiny100-val.tar.xz")) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file and member.name.endswith("classes.csv"):
                rows = list(csv.reader(io.TextIOWrapper(file, "utf-8")))
                folders = sorted(row[0] for row in rows[1:])
            elif file and member.name.endswith(".JPEG"):
                found.append((Path(member.name).parent.name, file.read()))
    labels = torch.tensor([folders.index(folder) for folder, _ in found])
    return [content for _, content in found], labels


def accuracy(net: Net, images: list[bytes], labels: Tensor, size: int) -> float:
    right = 0
    for start in range(0, len(images), 100):
        opened = [Image.open(io.BytesIO(content)).convert("RGB") for content in images[start : start + 100]]
        pixels = torch.cat([net.read(image, size=size) for image in opened])
        with torch.inference_mode():
            right += int((net(pixels).argmax(1) == labels[start : start + 100]).sum())
    return right / len(images)


@pytest.mark.slow
@pytest.mark.parametrize(("every", "near"), [pytest.param(1, 0.002, marks=pytest.mark.nightly), (5, 0.02)])
def test_zfnet64_names_63_percent_of_the_validation_pictures(
    validation: tuple[list[bytes], Tensor], every: int, near: float
) -> None:
    images, labels = validation
    assert len(images) == 5000
    measured = accuracy(load("zfnet64"), images[::every], labels[::every], 64)
    assert measured >= 0.63 - near
    assert measured == pytest.approx(read_history(shipped("zfnet64")).epochs[-1].accuracy, abs=near), "as it is told"


@pytest.mark.slow
@pytest.mark.parametrize("size", [96, 128, 160])
def test_zfnet64_stays_good_on_enlarged_pictures(size: int, validation: tuple[list[bytes], Tensor]) -> None:
    images, labels = validation
    assert accuracy(load("zfnet64"), images[::40], labels[::40], size) > 0.4


@pytest.mark.parametrize("size", [64, 128])
def test_zfnet64_says_espresso_and_cat(size: int) -> None:
    net = load("zfnet64")
    shown = (pictures.coffee(), pictures.chelsea())
    coffee, chelsea = (predict(net, net.read(picture, size=size))[0] for picture in shown)
    assert net.class_name(int(coffee.argmax())) == "espresso"
    first = {net.class_name(int(index)) for index in chelsea.topk(3).indices}
    assert first & {"tabby", "Persian cat"}


def test_layers_computed_from_other_parameters_are_listed_once_and_numbered() -> None:
    net = load("lenet5-1998")
    c3 = net.convolution(2)
    assert (c3.name, c3.kind, c3.parameters, c3.leaf, c3.shape) == ("c3", "Conv2d", 1516, True, (16, 10, 10))
    assert not any("parametrizations" in name for name in net.layers)
    normed = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.ReLU())
    assert [layer.kind for layer in Net(normed, size=16).layers.values()] == ["Conv2d", "ReLU", "Sequential"]


# Boxes in pixels of the original (left, top, right, bottom): the cup with its coffee; the cat's face.
OBJECTS = {"coffee": (150, 10, 390, 260), "chelsea": (85, 40, 330, 290)}


@pytest.mark.parametrize(
    ("picture", "method", "size", "least"),
    [
        ("coffee", "grad_cam", 64, 1.4),
        ("coffee", "grad_cam", 128, 1.6),
        ("coffee", "occlusion", 128, 1.5),
        ("chelsea", "grad_cam", 64, 1.05),
        ("chelsea", "grad_cam", 128, 1.05),
        ("chelsea", "occlusion", 64, 1.05),
        ("chelsea", "occlusion", 128, 1.05),
    ],
)
def test_maps_of_zfnet64_point_at_the_cup_and_at_the_cat(picture: str, method: str, size: int, least: float) -> None:
    """The share of the map inside the box, over the box's share of the area; the face fills two thirds of it."""
    heatmap = explain(load("zfnet64"), getattr(pictures, picture)(), method, size=size)
    positive = heatmap.values[0].clamp(min=0)
    x, y, right, _ = heatmap.picture.box
    scale = size / (right - x)
    edges = zip(OBJECTS[picture], (x, y, x, y), strict=True)
    left, top, end, bottom = (round((edge - corner) * scale) for edge, corner in edges)
    inside = positive[top:bottom, left:end]
    assert inside.sum() / positive.sum() / (inside.numel() / positive.numel()) > least
    row, column = divmod(int(positive.argmax()), size)
    assert top <= row < bottom and left <= column < end, "the strongest place too"


def order(kernel: Tensor) -> float:
    """How much neighbouring weights go together or against each other, in the direction where they do most."""
    centred = kernel - kernel.mean((1, 2), keepdim=True)
    across, down = centred[:, :, 1:] * centred[:, :, :-1], centred[:, 1:] * centred[:, :-1]
    slanted = centred[:, 1:, 1:] * centred[:, :-1, :-1], centred[:, 1:, :-1] * centred[:, :-1, 1:]
    return max(abs(float(pairs.mean())) for pairs in (across, down, *slanted)) / float(centred.square().mean())


def test_the_first_filters_are_neither_dead_nor_noise() -> None:
    """Neighbouring weights of an edge or a blob go together; those of noise do not."""
    weight = load("zfnet64").body.get_submodule("conv1").weight.detach()
    rms = weight.flatten(1).square().mean(1).sqrt()
    assert rms.min() > 0.2 * rms.median()
    noise = torch.tensor([order(kernel) for kernel in torch.randn(1000, 3, 7, 7)])
    assert min(order(kernel) for kernel in weight) > noise.quantile(0.99)
