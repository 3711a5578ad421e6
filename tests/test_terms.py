"""Objective terms against loops and closed forms, their grammar, and where they are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from convscope import Net, as_objective, explain
from convscope.errors import LayerError, ObjectiveError
from convscope.terms import Direction, Diversity, Energy, Penalty, total_variation
from convscope.tracing import PIXELS
from networks import pictures, tiny


@pytest.fixture(scope="module")
def net() -> Net:
    return tiny("sequential")


@pytest.fixture
def direction(tmp_path: Path) -> str:
    """A direction in the six channels of the first convolution."""
    np.save(tmp_path / "stripes.npy", np.array([3.0, -1, 0, 2, 0.5, -2], dtype=np.float32))
    return str(tmp_path / "stripes.npy")


def gradient(read: object, pixels: Tensor) -> Tensor:
    leaf = pixels.clone().requires_grad_()
    return torch.autograd.grad(read(leaf).sum(), leaf)[0]  # type: ignore[operator]


# What a picture costs


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("size", [(4, 6), (1, 5), (5, 1)])
def test_total_variation_by_loops(beta: float, size: tuple[int, int]) -> None:
    pixels = torch.rand(2, 3, *size, dtype=torch.float64)
    expected = torch.zeros(2, dtype=torch.float64)
    for n in range(2):
        for channel in pixels[n].tolist():
            for y in range(size[0]):
                for x in range(size[1]):
                    right = channel[y][x + 1] - channel[y][x] if x + 1 < size[1] else 0
                    down = channel[y + 1][x] - channel[y][x] if y + 1 < size[0] else 0
                    expected[n] += (right**2 + down**2) ** (beta / 2)
    torch.testing.assert_close(total_variation(pixels, beta), expected, rtol=1e-3 if beta != 2 else 1e-12, atol=1e-2)


def test_gradient_of_total_variation_is_twice_the_negative_laplacian() -> None:
    pixels = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    centre = pixels[..., 1:-1, 1:-1]
    around = pixels[..., :-2, 1:-1] + pixels[..., 2:, 1:-1] + pixels[..., 1:-1, :-2] + pixels[..., 1:-1, 2:]
    found = gradient(Penalty("tv").read, pixels)[..., 1:-1, 1:-1]
    torch.testing.assert_close(found, -2 * (around - 4 * centre), rtol=0, atol=1e-13)


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
def test_total_variation_has_a_gradient_on_a_flat_picture(beta: float) -> None:
    found = gradient(lambda pixels: total_variation(pixels, beta), torch.full((1, 3, 5, 5), 0.5))
    assert torch.equal(found, torch.zeros_like(found))


def test_norms_are_about_the_networks_mean_and_summed(net: Net) -> None:
    pixels = pictures(2, side=5)
    away = pixels - torch.tensor(net.mean, dtype=torch.float64)[:, None, None]
    for name, cost, grad in (("l1", away.abs(), away.sign()), ("l2", away**2, 2 * away)):
        penalty = as_objective(net, f"ant - {name}()").terms[1][1]
        torch.testing.assert_close(penalty.read(pixels), cost.sum((1, 2, 3)))
        torch.testing.assert_close(gradient(penalty.read, pixels), grad)


def test_blur_costs_what_a_gaussian_of_one_pixel_takes_away() -> None:
    pixels = pictures(2, side=12)

    def fine(values: np.ndarray) -> np.ndarray:
        return values - gaussian_filter(values, 1.0, mode="mirror", truncate=3, axes=(2, 3))

    detail = fine(pixels.numpy())
    np.testing.assert_allclose(Penalty("blur").read(pixels), (detail**2).sum((1, 2, 3)), rtol=1e-9)
    # d/dx |x - Bx|^2 . v = 2 (x - Bx) . (v - Bv)
    along = np.random.default_rng(0).normal(size=pixels.shape)
    found = float((gradient(Penalty("blur").read, pixels).numpy() * along).sum())
    assert found == pytest.approx(2 * (detail * fine(along)).sum(), rel=1e-9)


@pytest.mark.parametrize("name", ["tv", "l1", "l2", "blur"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_picture_costs_by_itself(name: str, channels: int) -> None:
    pixels = pictures(3, side=9, channels=channels)
    penalty = Penalty(name, (0.3,) * channels)
    costs = penalty.read(pixels)
    assert costs.shape == (3,) and (costs > 0).all()
    torch.testing.assert_close(costs[1:2], penalty.read(pixels[1:2]))


@pytest.mark.parametrize("name", ["tv", "blur"])
def test_a_flat_picture_is_smooth(name: str) -> None:
    assert float(Penalty(name).read(torch.full((1, 3, 8, 8), 0.3, dtype=torch.float64))) < 1e-20


# What a layer does


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 4, 5), (2, 7, 3)])
def test_energy_is_the_mean_square(shape: tuple[int, ...]) -> None:
    activity = torch.randn(shape, dtype=torch.float64)
    expected = [sum(value**2 for value in one.flatten().tolist()) / one.numel() for one in activity]
    torch.testing.assert_close(Energy("").read(activity), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(gradient(Energy("").read, activity), 2 * activity / activity[0].numel())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_diversity_by_loops(count: int) -> None:
    activity = torch.randn(count, 4, 3, 5, dtype=torch.float64)
    grams = []
    for one in activity.tolist():
        gram = np.zeros((4, 4))
        for i in range(4):
            for j in range(4):
                gram[i, j] = sum(one[i][y][x] * one[j][y][x] for y in range(3) for x in range(5))
        grams.append(gram.ravel() / np.linalg.norm(gram))
    expected = [-np.mean([grams[i] @ grams[j] for j in range(count) if j != i]) for i in range(count)]
    found = Diversity("").read(activity)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(Diversity("").read(activity * 7), found)


def test_diversity_of_one_of_equals_and_of_strangers() -> None:
    activity = torch.rand(1, 4, 3, 3, dtype=torch.float64)
    assert Diversity("").read(activity).tolist() == [0.0]
    torch.testing.assert_close(Diversity("").read(activity.repeat(3, 1, 1, 1)), -torch.ones(3, dtype=torch.float64))
    strangers = torch.zeros(2, 2, 1, 1, dtype=torch.float64)
    strangers[0, 0] = strangers[1, 1] = 1
    assert Diversity("").read(strangers).tolist() == [0.0, 0.0]
    assert torch.isfinite(gradient(Diversity("").read, torch.zeros(2, 4, 3, 3))).all()


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 2, 4)])
def test_direction_by_loops(direction: str, power: float, shape: tuple[int, ...]) -> None:
    activity = torch.randn(shape, dtype=torch.float64)
    vector = np.load(direction).astype(float)
    vector /= np.linalg.norm(vector)
    expected = []
    for one in activity.numpy():
        positions = one.reshape(6, -1).T
        each = []
        for position in positions:
            dot = position @ vector
            each.append(dot * max(dot / np.linalg.norm(position), 0.1) ** power)
        expected.append(np.mean(each))
    found = Direction("", direction, power).read(activity)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_direction_points_along_its_vector(direction: str) -> None:
    term = Direction("", direction)
    assert float(term.vector.norm()) == pytest.approx(1)
    along, against = (term.read(sign * 5 * term.vector[None]) for sign in (1, -1))
    assert float(along) == pytest.approx(5, rel=1e-5) and float(against) == pytest.approx(-0.5, rel=1e-5)
    assert torch.isfinite(gradient(term.read, torch.zeros(1, 6, 2, 2))).all()


# Grammar


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("energy(0)", Energy("0")),
        ("energy( 3 )", Energy("3")),
        ("energy(5)", Energy("5")),
        ("diversity(3)", Diversity("3")),
        *((f"{name}()", Penalty(name, (0.5, 0.4, 0.3))) for name in ("tv", "l1", "l2", "blur")),
    ],
)
def test_terms_are_read_and_written(net: Net, text: str, term: object) -> None:
    found = as_objective(net, text)
    assert found.terms == ((1.0, term),)
    assert as_objective(net, str(found)) == found


def test_a_direction_is_read_and_written(net: Net, direction: str) -> None:
    for text in (f"direction(0, {direction})", f"direction(0,{direction})", f"direction( 0 ,  {direction} )"):
        found = as_objective(net, text)
        assert found.terms == ((1.0, Direction("0", direction)),)
        assert as_objective(net, str(found)) == found


weights = st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6) | st.just(1.0) | st.just(-1.0)
terms = st.sampled_from(["tv()", "l1()", "l2()", "blur()", "energy(3)", "diversity(0)", "bee", "3:1@2,2", "p(ant)"])


@given(st.lists(st.tuples(weights, terms), min_size=1, max_size=5))
def test_sums_of_terms_go_round(terms: list[tuple[float, str]]) -> None:
    net = tiny("sequential")
    objective = as_objective(net, " + ".join(f"{weight!r}*{text}" for weight, text in terms))
    assert [weight for weight, _ in objective.terms] == [weight for weight, _ in terms]
    assert as_objective(net, str(objective)) == objective


def test_a_sum_is_scored_with_its_weights_and_signs(net: Net) -> None:
    pixels = pictures(2)
    found = as_objective(net, "bee - 0.01*tv() + 2*l1() - diversity(0)")(net, pixels)
    each = [as_objective(net, text)(net, pixels) for text in ("bee", "tv()", "l1()", "diversity(0)")]
    torch.testing.assert_close(found, each[0] - 0.01 * each[1] + 2 * each[2] - each[3])
    assert as_objective(net, "bee - tv()").layers == ("", PIXELS)


def test_terms_are_said_in_plain_words(net: Net, direction: str) -> None:
    titles = {
        "tv()": "total variation",
        "l1()": "L1 norm",
        "l2()": "squared L2 norm",
        "blur()": "fine detail",
        "energy(3)": "energy of 3",
        "diversity(3)": "diversity in 3",
        f"direction(0, {direction})": "direction stripes of 0",
    }
    for text, title in titles.items():
        assert as_objective(net, text).title(net) == title


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vt()", r"there is no vt\(\.\.\.\): known are .*'?tv"),
        ("pp(ant)", r"there is no pp\(\.\.\.\): known are 'p'"),
        ("tv(3)", r"takes no argument: write '243 - 0.01\*tv\(\)'"),
        ("direction(0)", r"as direction\(layer, file.npy\), with one number per channel"),
        ("direction()", r"as direction\(layer, file.npy\)"),
        ("direction(0, )", r"as direction\(layer, file.npy\)"),
        ("direction(0, nothing.npy)", "cannot read a direction from nothing.npy"),
    ],
)
def test_what_is_no_term_is_refused(net: Net, text: str, says: str) -> None:
    with pytest.raises(ObjectiveError, match=says) as caught:
        as_objective(net, text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("term", ["energy", "diversity"])
def test_a_term_without_a_layer_is_corrected(net: Net, term: str) -> None:
    with pytest.raises(ObjectiveError, match=rf"{term}\(\) needs a layer: write {term}\(.+\), or another") as caught:
        as_objective(net, f"{term}()")
    corrected = str(caught.value).split("write ")[1].split(", or")[0]
    assert str(as_objective(net, corrected)) == corrected


@pytest.mark.parametrize("layer", ["5", "5.2"])
def test_diversity_needs_spatial_positions(net: Net, layer: str) -> None:
    with pytest.raises(
        LayerError, match=r"has shape \(5,\), without spatial positions, which diversity needs: name .*, such as '"
    ) as caught:
        as_objective(net, f"diversity({layer})")
    assert as_objective(net, f"diversity({str(caught.value).split('such as ' + chr(39))[1].split(chr(39))[0]})")


@pytest.mark.parametrize("layer", ["nowhere", "99"])
def test_layers_that_do_not_exist_are_refused(net: Net, layer: str) -> None:
    for term in ("energy", "diversity"):
        with pytest.raises(LayerError, match=layer):
            as_objective(net, f"{term}({layer})")
    with pytest.raises(LayerError, match=layer):
        as_objective(net, f"direction({layer}, some.npy)")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros(6), "is zero, or not finite"),
        (np.array([1, 2, np.nan, 0, 0, 0]), "is zero, or not finite"),
        (np.array([1, 2, np.inf, 0, 0, 0]), "is zero, or not finite"),
        (np.ones(5), r"holds 5 numbers for layer '0' of shape \(6, 9, 9\): give one per channel"),
        (np.array(["a", "b"]), "cannot read a direction"),
        (np.array([None, 1], dtype=object), "cannot read a direction"),
    ],
)
def test_a_file_that_holds_no_direction_is_refused(net: Net, tmp_path: Path, values: np.ndarray, says: str) -> None:
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(ObjectiveError, match=says):
        as_objective(net, f"direction(0, {tmp_path / 'bad.npy'})")


@pytest.mark.parametrize("content", [b"", b"no numbers", b"PK\x03\x04 torn", b"\x93NUMPY\x01"])
def test_a_file_of_another_kind_is_refused(net: Net, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes.npy").write_bytes(content)
    with pytest.raises(ObjectiveError, match=r"cannot read a direction from .*notes\.npy"):
        as_objective(net, f"direction(0, {tmp_path / 'notes.npy'})")


def test_an_archive_of_several_directions_is_refused(net: Net, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", one=np.ones(6), other=np.ones(6))
    with pytest.raises(ObjectiveError, match=r"cannot read a direction from .*some\.npz"):
        as_objective(net, f"direction(0, {tmp_path / 'some.npz'})")


def test_a_direction_of_a_layer_without_channels_is_refused(tmp_path: Path) -> None:
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(2), torch.nn.Flatten())
    np.save(tmp_path / "four.npy", np.ones(4))
    with pytest.raises(ObjectiveError, match=r"holds 4 numbers for layer '1' of shape \(4, 36\)"):
        as_objective(Net(body, size=8), f"direction(1, {tmp_path / 'four.npy'})")


# Where they are refused


@pytest.mark.parametrize("judge", ["tv()", "l1()", "l2()", "blur()", "diversity(0)"])
@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_a_given_picture_is_not_judged_as_one_that_is_made(judge: str, method: str) -> None:
    net = tiny("sequential", dtype=torch.float32)
    picture = pictures(1, dtype=torch.float32)
    with pytest.raises(ObjectiveError, match="judges a picture that is being made, not a given one"):
        explain(net, picture, method, of=f"ant - 0.1*{judge}")


def test_energy_and_direction_of_a_given_picture_are_explained(direction: str) -> None:
    net = tiny("sequential", dtype=torch.float32)
    for of in ("energy(3)", f"direction(0, {direction})"):
        assert "made it respond" in explain(net, pictures(1, dtype=torch.float32), "gradient", of=of).sheet().title
