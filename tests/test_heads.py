"""What the output means: softmax, sigmoid, probabilities, values; and that no other number is called a probability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope import Net
from convscope.errors import NetworkError, ObjectiveError
from networks import SIZE, pictures

PIXELS = pictures(1)


def body(outputs: int = 5, *after: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    trunk = (nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(*trunk, nn.Linear(24, outputs), *after).double().eval()


def net(outputs: int = 5, *after: nn.Module, **options: Any) -> Net:
    return Net(body(outputs, *after), size=SIZE, name="tiny", **options)


def title(network: Net, of: Any = None) -> str:
    return cs.explain(network, PIXELS, "gradient", of).title


class ByHand(nn.Module):
    """A softmax that no operation of torch's name computes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp() / x.exp().sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("network", "kind", "certain"),
    [
        (net(), "softmax", False),
        (net(head="softmax"), "softmax", True),
        (net(5, nn.Softmax(1)), "probability", True),
        (net(5, nn.Softmax(1), head="softmax"), "probability", True),
        (net(5, nn.LogSoftmax(1)), "softmax", True),
        (net(5, nn.Sigmoid()), "probability", True),
        (net(5, nn.Sigmoid(), head="sigmoid"), "probability", True),
        (net(4, nn.Sigmoid(), nn.Unflatten(1, (1, 2, 2))), "probability", True),
        (net(5, head="sigmoid"), "sigmoid", True),
        (net(1), "value", False),
        (net(1, nn.Sigmoid()), "probability", True),
        (net(1, head="sigmoid"), "sigmoid", True),
        (net(5, head="value"), "value", True),
        (net(1, nn.Flatten(0)), "value", False),
        (net(4, nn.Unflatten(1, (2, 2))), "value", False),
        (net(8, nn.Unflatten(1, (2, 2, 2))), "softmax", False),
    ],
)
def test_what_the_output_is_comes_from_the_user_or_the_last_operation(network: Net, kind: str, certain: bool) -> None:
    assert (network.head.kind, network.head.certain) == (kind, certain)


def test_a_head_is_one_of_four_words_and_fits_the_output() -> None:
    with pytest.raises(NetworkError, match=r"head is one of 'softmax'.*not 'logits'"):
        net(head="logits")
    with pytest.raises(NetworkError, match="softmax of one number is always 1: head='sigmoid'"):
        title(net(1, head="softmax"))
    with pytest.raises(NetworkError, match="not a probability, as head='probability' says"):
        title(net(head="probability"))


@pytest.mark.parametrize(
    ("network", "of", "expected"),
    [
        (net(), 1, lambda o: o.softmax(1)),
        (net(head="softmax"), 1, lambda o: o.softmax(1)),
        (net(5, nn.LogSoftmax(1)), 1, lambda o: o.exp()),
        (net(5, nn.Softmax(1)), 1, lambda o: o),
        (net(5, ByHand()), 1, lambda o: o),
        (net(5, nn.Sigmoid()), 1, lambda o: o),
        (net(head="sigmoid"), 1, lambda o: o.sigmoid()),
        (net(1, head="sigmoid"), 0, lambda o: o.sigmoid()),
    ],
)
def test_the_probability_of_a_class_follows_the_head(network: Net, of: int, expected: Any) -> None:
    """Value and gradient; `predict` and the title say the same number."""
    pixels = PIXELS.clone().requires_grad_()
    true = expected(network.body(pixels))
    (gradient,) = torch.autograd.grad(true[:, of].sum(), pixels)
    objective = cs.as_objective(network, f"p({of})")
    assert str(objective) == f"p({of})" and cs.as_objective(network, str(objective)) == objective
    torch.testing.assert_close(objective(network, PIXELS).detach(), true[:, of].detach())
    values = cs.attribute(network, PIXELS, "gradient", f"p({of})")
    torch.testing.assert_close(values, gradient)
    torch.testing.assert_close(cs.predict(network, PIXELS), true.detach().float())
    assert f"{float(true.detach()[0, of]):.2f}" in title(network, of)


def test_only_what_is_certain_is_called_a_probability() -> None:
    """An assumed softmax is called one, and p(class) says how to state what the outputs are."""
    unsaid, said = net(classes=list("abcde")), net(classes=list("abcde"), head="softmax")
    assert ", softmax 0." in title(unsaid) and "softmax" not in title(said)
    asked = cs.explain(unsaid, PIXELS, "occlusion", "p(a)", patch=10)
    assert "an assumption: state it with Net(..., head=...)" in asked.note
    assert asked.title.startswith("Softmax of a") and "softmax" in asked.unit
    asked = cs.explain(said, PIXELS, "occlusion", "p(a)", patch=10)
    assert "assumption" not in asked.note
    assert asked.title.startswith("Probability of a") and "probability" in asked.unit


def test_one_output_is_a_score_and_never_the_softmax_of_one_number() -> None:
    network = net(1, classes=["tumour"])
    number = float(network(PIXELS))
    assert title(network) == title(network, 0) == f"Tumour, score {number:.3g}: what raises it?"
    assert title(net(1)) == f"The output, score {number:.3g}: what raises it?"
    assert title(net(1, head="value")) == f"The output, value {number:.3g}: what raises it?"
    with pytest.raises(ObjectiveError, match=r"p\(0\) is no probability: .*head='sigmoid'"):
        cs.as_objective(network, "p(0)")
    with pytest.raises(NetworkError, match="gives a score, not probabilities"):
        cs.predict(network, PIXELS)
    share = torch.tensor(number).sigmoid()
    said = net(1, head="sigmoid")
    assert (
        title(said) == f"the positive class, {share:.2f}: what {'made it say so' if share >= 0.5 else 'speaks for it'}?"
    )
    assert title(net(1, head="sigmoid", classes=["tumour"])).startswith("tumour, ")


def test_of_labels_the_most_confident_one_is_explained() -> None:
    """Labels do not exclude each other: what is said of one is whether it is above one half."""
    network = net(head="sigmoid")
    shares = cs.predict(network, PIXELS)[0]
    heatmap = cs.explain(network, PIXELS, "gradient")
    assert heatmap.recipe.objective == str(int(shares.argmax()))
    assert "several labels may hold at once" in heatmap.note
    for index, share in enumerate(shares):
        assert ("made it say so" in title(network, index)) == bool(share >= 0.5)
    (many,) = cs.explain_many(network, PIXELS, "gradient")
    assert (many.title, many.note) == (heatmap.title, heatmap.note)


def test_of_values_one_must_be_named(tmp_path: Path) -> None:
    """The largest of an embedding's numbers is no answer; a dimension or a direction of them is an objective."""
    import numpy as np

    network = net(head="value")
    with pytest.raises(ObjectiveError, match="gives 5 values, none of which is its answer: name one"):
        title(network)
    assert title(network, 3).startswith("Output 3, value ")
    np.save(tmp_path / "d.npy", np.eye(5)[2])
    along = cs.as_objective(network, f"direction(output, {tmp_path / 'd.npy'})")
    assert along.layers == ("",)


def test_pixels_have_probabilities_too() -> None:
    network = net(8, nn.Unflatten(1, (2, 2, 2)), head="softmax")
    shares = network(PIXELS).softmax(1)
    for of, true in (("p(:1@0,1)", shares[:, 1, 0, 1]), ("p(:1@mean)", shares[:, 1].mean((1, 2)))):
        torch.testing.assert_close(cs.as_objective(network, of)(network, PIXELS), true)


def test_an_occlusion_study_follows_the_head() -> None:
    def study(network: Net, **options: Any) -> Any:
        return cs.occlusion_study(network, PIXELS, patch=8, stride=4, **options)

    said = " ".join(tile.caption for tile in study(net(head="softmax")).sheet().tiles)
    assert "(d) probability of class" in said and "(e) the top-1 class" in said
    labels = study(net(head="sigmoid"))
    said = " ".join(tile.caption for tile in labels.sheet().tiles)
    assert "(d) probability of class" in said and "(e) the most confident label" in said
    one = study(net(1))
    assert set(one.values) == {"activity", "score"}
    assert not any("probab" in tile.caption for tile in one.sheet().tiles)
    assert "(d) softmax of class" in " ".join(tile.caption for tile in study(net()).sheet().tiles)


def test_areas_of_a_score_are_not_called_those_of_a_probability() -> None:
    from convscope import checks
    from convscope.context import listen

    network = net(1)
    with listen() as remarks:
        path = checks.deletion(network, cs.explain(network, PIXELS, "saliency"), steps=4)
    assert path.objective == "0" and path.scores[0] == pytest.approx(float(network(PIXELS)))
    assert any("no probability" in remark for remark in remarks)
    labels = net(head="sigmoid")
    path = checks.deletion(labels, cs.explain(labels, PIXELS, "saliency", of=2), steps=4)
    assert path.objective == "p(2)" and path.scores[0] == pytest.approx(float(labels(PIXELS)[0, 2].sigmoid()))


def test_the_head_is_part_of_how_a_network_is_read(tmp_path: Path) -> None:
    """It decides p(class), so that recipes with another head have another key."""
    keys = {cs.explain(net(head=head), PIXELS, "gradient", of=1).recipe.key for head in (None, "softmax", "sigmoid")}
    assert len(keys) == 3
    file = tmp_path / "made.py"
    file.write_text("from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), "
                    "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))\n")  # fmt: skip
    loaded = cs.load(f"file:{file}:build", size=16, head="sigmoid")
    assert loaded.head.kind == "sigmoid"
    cs.explain(loaded, "sample:chelsea", "gradient", of="p(1)").save(tmp_path / "a.png")
    cs.remake(tmp_path / "a.png", net=loaded).save(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_sources_that_know_say_so() -> None:
    assert cs.load("zfnet64").head.certain
    assert cs.load("lenet5").head.certain


def test_making_pictures_says_what_its_numbers_are() -> None:
    made = cs.maximize(net(1), of=0, steps=2, batch=1)
    assert "p =" not in made.sheet().tiles[0].caption
    made = cs.maximize(net(), of=1, steps=2, batch=1)
    assert ", softmax " in made.sheet().tiles[0].caption
    made = cs.maximize(net(head="sigmoid"), of=1, steps=2, batch=1)
    assert ", p = " in made.sheet().tiles[0].caption


def test_one_output_may_be_called_the_output() -> None:
    assert cs.as_objective(net(1), "output").class_index == 0
    assert str(cs.as_objective(net(1, head="sigmoid"), "p(output)")) == "p(0)"


def test_class_models_say_what_their_number_is_of() -> None:
    """A low probability under an evident picture is of the picture as it is shown, and its rank says more."""
    made = cs.class_model(net(head="softmax"), of=1, steps=2, batch=1).sheet()
    assert "p: probability that tiny gives the picture shown" in made.subtitle
    assert " · p = 0." in made.tiles[0].caption and "of 5 · lambda" in made.tiles[0].caption
    made = cs.class_model(net(), of=1, steps=2, batch=1).sheet()
    assert "softmax that tiny gives" in made.subtitle and " · softmax 0." in made.tiles[0].caption
    made = cs.class_model(net(1), of=0, steps=2, batch=1).sheet()
    assert "p =" not in made.tiles[0].caption and "rank" not in made.tiles[0].caption
