"""The gradient family against plain autograd, finite differences, captum and the papers' identities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from convscope import Net, as_objective, explain
from convscope.attribution.deconvnet import backward, deconvnet, guided_backprop
from convscope.attribution.gradient import gradient, gradient_x_input, noise_of, saliency, smooth_grad
from convscope.attribution.integrated import integrated_gradients
from convscope.context import listen
from convscope.errors import OptionError
from networks import SIZE, TINY, pictures, tiny

CLASS = 3
pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")


def normalised(net: Net, pixels: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(v, dtype=pixels.dtype)[:, None, None] for v in (net.mean, net.std))
    return (pixels - mean) / std, std


@pytest.mark.parametrize("kind", TINY)
def test_the_gradient_is_per_unit_of_pixel(kind: str) -> None:
    """1/std times the gradient of what the body reads."""
    net, pixels = tiny(kind), pictures()
    read, std = normalised(net, pixels)
    read.requires_grad_()
    (grad,) = torch.autograd.grad(net.body(read * 1)[:, CLASS].sum(), read)
    torch.testing.assert_close(gradient(net, pixels, as_objective(net, CLASS)), grad / std, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("of", ["dog", "0:3@2,4", "0:3@max", "3:1", "dog - 0.5*ant"])
def test_the_gradient_is_what_a_small_step_changes(of: str) -> None:
    net, pixels = tiny("sequential"), pictures(1)
    objective, grad = as_objective(net, of), gradient(net, pixels, as_objective(net, of))
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        step = 1e-6 * torch.randn(pixels.shape, generator=generator, dtype=pixels.dtype)
        change = objective(net, pixels + step) - objective(net, pixels - step)
        torch.testing.assert_close(change, 2 * (grad * step).sum()[None], rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("kind", TINY)
def test_saliency_is_the_largest_magnitude_over_colours(kind: str) -> None:
    """Simonyan et al., sec. 3.1; captum's has a map for each colour."""
    net, pixels = tiny(kind), pictures()
    expected = Saliency(net).attribute(pixels.clone(), target=CLASS).amax(1, keepdim=True)
    found = saliency(net, pixels, as_objective(net, CLASS))
    assert found.any()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", TINY)
def test_gradient_x_input_is_that_of_what_the_body_reads(kind: str) -> None:
    net, pixels = tiny(kind), pictures()
    read, _ = normalised(net, pixels)
    expected = InputXGradient(net.body).attribute(read.clone(), target=CLASS).sum(1, keepdim=True)
    torch.testing.assert_close(
        gradient_x_input(net, pixels, as_objective(net, CLASS)), expected, rtol=1e-10, atol=1e-13
    )


def test_without_biases_gradient_x_input_adds_up_to_the_score() -> None:
    """I15."""
    net, pixels = tiny("sequential"), pictures(3)
    with torch.no_grad():
        for name, parameter in net.body.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    total = gradient_x_input(net, pixels, as_objective(net, CLASS)).sum((1, 2, 3))
    torch.testing.assert_close(total, net(pixels)[:, CLASS], rtol=1e-10, atol=1e-13)


def test_a_bias_free_network_has_the_same_saliency_at_any_contrast() -> None:
    """I13: homogeneous of degree zero."""
    body = nn.Sequential(
        nn.Conv2d(3, 5, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5 * 81, 4, bias=False)
    )
    net, pixels = Net(body.double(), size=SIZE), pictures()
    one, other = (saliency(net, scale * pixels, as_objective(net, CLASS)) for scale in (1, 0.4))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def bias_free(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(6 * 49, 4),
        )  # fmt: skip
    return Net(body.double().eval(), size=SIZE)


def test_with_biases_their_share_completes_the_score() -> None:
    """I15: S = x.dS/dx + sum over biases b of b.dS/db."""
    net, pixels = bias_free(), pictures(1)
    of_pixels = float((gradient(net, pixels, as_objective(net, CLASS)) * pixels).sum())
    score = net.body(pixels)[0, CLASS]
    biases = [value for name, value in net.body.named_parameters() if name.endswith("bias")]
    share = sum(float((b * g).sum()) for b, g in zip(biases, torch.autograd.grad(score, biases), strict=True))
    assert abs(share) > 1e-3
    assert of_pixels + share == pytest.approx(float(score.detach()), rel=1e-10)


@given(factor=st.sampled_from([-3.0, -0.5, 0.0, 2.0, 1e6]))
def test_saliency_scales_with_the_magnitude_of_the_objective(factor: float) -> None:
    """I13."""
    net, pixels = tiny("residual"), pictures()
    found = saliency(net, pixels, factor * as_objective(net, CLASS))
    torch.testing.assert_close(
        found, abs(factor) * saliency(net, pixels, as_objective(net, CLASS)), rtol=1e-9, atol=1e-12
    )


def test_the_posterior_also_asks_for_other_classes_to_go_down() -> None:
    """I14: d log p_c = dS_c - sum_k p_k dS_k, and d p_c = p_c d log p_c."""
    net, pixels = tiny("concat"), pictures(1)
    grads = torch.stack([gradient(net, pixels, as_objective(net, k)) for k in range(5)])
    shares = net(pixels).softmax(1)[0]
    expected = grads[CLASS] - torch.einsum("k,knchw->nchw", shares, grads)
    posterior = gradient(net, pixels, as_objective(net, lambda output: output.log_softmax(1)[:, CLASS]))
    torch.testing.assert_close(posterior, expected, rtol=1e-10, atol=1e-13)
    probability = gradient(net, pixels, as_objective(net, f"p({CLASS})"))
    torch.testing.assert_close(probability, shares[CLASS] * expected, rtol=1e-10, atol=1e-13)


def test_saliency_moves_with_the_picture() -> None:
    """I16: circular padding and a mean over places know no position."""
    torch.manual_seed(0)
    conv = {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}
    body = nn.Sequential(
        nn.Conv2d(3, 6, **conv), nn.ReLU(), nn.Conv2d(6, 6, **conv), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 4),
    )  # fmt: skip
    net, pixels = Net(body.double(), size=SIZE), pictures()
    found = saliency(net, pixels.roll((3, -5), (2, 3)), as_objective(net, 1))
    torch.testing.assert_close(
        found, saliency(net, pixels, as_objective(net, 1)).roll((3, -5), (2, 3)), rtol=1e-10, atol=1e-15
    )


def crops_by_loops(net: Net, picture: Tensor, crop: int) -> Tensor:
    """Simonyan et al.: cut, mirror, enlarge, differentiate by the chain rule in matrices, put back, divide."""
    side, far = picture.shape[-1], picture.shape[-1] - crop
    enlarge = F.interpolate(torch.eye(crop, dtype=torch.float64)[None], size=side, mode="linear")[0].T  # (side, crop)
    total, count = torch.zeros(side, side, dtype=torch.float64), torch.zeros(side, side)
    for top, left in ((0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)):
        for mirror in (False, True):
            part = picture[0, :, top : top + crop, left : left + crop]
            part = part.flip(2) if mirror else part
            grad = gradient(net, (enlarge @ part @ enlarge.T)[None], as_objective(net, CLASS))[0]
            back = enlarge.T @ grad @ enlarge
            back = back.flip(2) if mirror else back
            total[top : top + crop, left : left + crop] += back.abs().amax(0)
            count[top : top + crop, left : left + crop] += 1
    return (total / count)[None, None]


@pytest.mark.parametrize("kind", ["sequential", "functional", "residual"])
def test_ten_crops_are_put_back_where_they_were_cut(kind: str) -> None:
    """F20."""
    net, pixels = tiny(kind), pictures(2)
    with listen() as remarks:
        found = saliency(net, pixels, as_objective(net, CLASS), crops=10)
    for one, picture in zip(found, pixels, strict=True):
        torch.testing.assert_close(one[None], crops_by_loops(net, picture[None], 18), rtol=1e-9, atol=1e-13)
    assert "mean over ten crops of 18 × 18 pixels, enlarged to 20 × 20" in remarks


def test_ten_crops_find_what_is_there() -> None:
    """A score that looks at one corner only: nothing is mirrored, nothing is moved, no border stands out."""
    body = nn.Sequential(nn.AvgPool2d(1), nn.Flatten(), nn.Linear(1200, 2, bias=False))
    net = Net(body.double(), size=SIZE)
    with torch.no_grad():
        body[2].weight.fill_(1.0)
    even = saliency(net, pictures(1), as_objective(net, 0), crops=10)
    # Enlarging by 10/9 along both sides makes every pixel weigh that much more, but for the crops' rims.
    torch.testing.assert_close(even.mean(), torch.tensor(100 / 81, dtype=torch.float64), rtol=0.01, atol=0)
    assert even.max() < 1.5 and even.min() > 0.8


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_ten_crops_in_any_surroundings(mode: Any) -> None:
    net, pixels = tiny("in-place"), pictures(2)
    expected, state = saliency(net, pixels, as_objective(net, CLASS), crops=10), torch.get_rng_state()
    with mode():
        found = saliency(net, pixels.clone(), as_objective(net, CLASS), crops=10).clone()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    alone = torch.cat([saliency(net, one[None], as_objective(net, CLASS), crops=10) for one in pixels])
    torch.testing.assert_close(alone, expected, rtol=1e-10, atol=1e-14)
    half = saliency(tiny("in-place", dtype=torch.bfloat16), pixels.bfloat16(), as_objective(net, CLASS), crops=10)
    assert half.isfinite().all() and torch.nn.functional.cosine_similarity(half.flatten(), expected.flatten(), 0) > 0.9
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("side", [1, 2, 7, 8, 9])
def test_ten_crops_of_pictures_that_are_hardly_there(side: int) -> None:
    net = Net(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).double(), size=side)
    found = saliency(net, pictures(1, side=side), as_objective(net, 0), crops=10)
    assert found.shape == (1, 1, side, side) and found.isfinite().all() and found.min() > 0


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("squared", [False, True])
def test_smooth_grad_equals_captum_on_the_same_noise(kind: str, squared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """NoiseTunnel draws with torch.normal(0, std): it is given our noise instead."""
    net, pixels = tiny(kind), pictures(1)
    deviation = float(0.2 * (pixels.max() - pixels.min()))
    drawn = deviation * noise_of(range(6), pixels[0], seed=4)
    monkeypatch.setattr(torch, "normal", lambda *_, **__: drawn)
    expected = NoiseTunnel(Saliency(net)).attribute(
        pixels.clone(), nt_type="smoothgrad_sq" if squared else "smoothgrad", nt_samples=6, stdevs=deviation,
        target=CLASS, abs=False,
    )  # fmt: skip
    monkeypatch.undo()
    found = smooth_grad(net, pixels, as_objective(net, CLASS), noise=0.2, samples=6, seed=4, squared=squared, batch=4)
    assert expected.any()
    torch.testing.assert_close(found, expected.detach(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", TINY)
def test_without_noise_it_is_the_gradient(kind: str) -> None:
    """I20."""
    net, pixels = tiny(kind), pictures()
    grad = gradient(net, pixels, as_objective(net, CLASS))
    for squared, expected in ((False, grad), (True, grad**2)):
        found = smooth_grad(net, pixels, as_objective(net, CLASS), noise=0, samples=3, squared=squared)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_a_linear_score_has_nothing_to_smooth() -> None:
    """I20: the mean is w exactly; where the network bends, mean and mean of squares part."""
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * 81, 3)).double()
    net, pixels = Net(linear, size=SIZE), pictures()
    found = smooth_grad(net, pixels, as_objective(net, 1), noise=0.5, samples=7)
    torch.testing.assert_close(found, gradient(net, pixels, as_objective(net, 1)), rtol=1e-11, atol=1e-15)
    net = tiny("sequential")
    mean, squares = (smooth_grad(net, pixels, as_objective(net, CLASS), squared=squared) for squared in (False, True))
    assert (squares - mean**2).min() > -1e-12 and (squares - mean**2).max() > 1e-6


@settings(max_examples=20)
@given(batch=st.integers(1, 8), samples=st.integers(1, 8), seed=st.integers(0, 2**63))
def test_neither_the_batch_nor_the_number_of_samples_changes_the_noise(batch: int, samples: int, seed: int) -> None:
    net, pixels = tiny("shared"), pictures(2)
    one, other = (
        smooth_grad(net, pixels, as_objective(net, CLASS), samples=samples, seed=seed, batch=size)
        for size in (batch, 100)
    )
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
    like = pixels[0]
    assert torch.equal(noise_of(range(samples), like, seed)[-1:], noise_of(range(samples - 1, samples), like, seed))


def test_noise_is_normal_independent_and_in_proportion_to_the_picture() -> None:
    drawn = noise_of(range(40), torch.zeros(3, 30, 30), 0)
    assert abs(drawn.mean()) < 0.01 and abs(drawn.std() - 1) < 0.01
    assert torch.corrcoef(drawn.flatten(1)).fill_diagonal_(0).abs().max() < 0.1
    assert not torch.equal(drawn[1], noise_of(range(40), drawn[0], 1)[0]), "seeds share no samples"
    # At half the contrast a bias-free network sees the same pictures, half as bright.
    net, pixels = Net(bias_free().body, size=SIZE), pictures(1)
    with torch.no_grad():
        for name, value in net.body.named_parameters():
            if name.endswith("bias"):
                value.zero_()
    one, half = (smooth_grad(net, scale * pixels, as_objective(net, 1), noise=0.3) for scale in (1, 0.5))
    torch.testing.assert_close(one, half, rtol=1e-10, atol=1e-14)


EVERY: dict[str, Any] = {
    "gradient": gradient, "saliency": saliency, "gradient_x_input": gradient_x_input, "smooth_grad": smooth_grad,
    "deconvnet": deconvnet, "guided_backprop": guided_backprop, "backward": backward,
    "integrated_gradients": integrated_gradients,
    "ten crops": lambda *args: saliency(*args, crops=10),
    "backward to the middle": lambda *args: backward(*args, switches=False),
}  # fmt: skip


@pytest.mark.parametrize("method", EVERY.values(), ids=EVERY)
def test_an_objective_that_the_picture_does_not_change_is_noted(method: Any) -> None:
    net, pixels = tiny("sequential"), pictures(1)
    with torch.no_grad():
        net.body[3].bias.fill_(-1e3)  # the rectifier below the head is silent
        net.body[5][2].weight.fill_(-1.0)  # and what a deconvnet sends there is negative
    with listen() as remarks:
        found = method(net, pixels, as_objective(net, CLASS))
    assert not found.any() and found.isfinite().all()
    assert any("zero everywhere" in remark or "the signal does not reach the pixels" in remark for remark in remarks)


def test_bad_options_are_refused() -> None:
    net, pixels = tiny("sequential"), pictures(1)
    for options, said in (
        ({"noise": -0.1}, "noise is a number, at least 0, not -0.1"),
        ({"noise": float("nan")}, "noise is .*, not nan"),
        ({"samples": 0}, "samples is .*, at least 1, not 0"),
        ({"seed": -1}, "seed is .*, at least 0, not -1"),
        ({"batch": 0}, "batch is .*, at least 1"),
    ):
        with pytest.raises(OptionError, match=said):
            explain(net, pixels[0], "smooth_grad", CLASS, **options)
    with pytest.raises(OptionError, match="crops is 1 or 10"):
        saliency(net, pixels, as_objective(net, CLASS), crops=5)
    with pytest.raises(OptionError, match="0:3@2,4 is another part of the picture in every crop"):
        saliency(net, pixels, as_objective(net, "dog - 0:3@2,4"), crops=10)
    assert saliency(net, pixels, as_objective(net, "0:3@max"), crops=10).any()


REAL = {"alexnet": 80, "vgg11": 48, "resnet18": 48, "squeezenet1_0": 48, "densenet121": 48}


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert expected.any()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_equals_captum_on_real_architectures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    body = models.get_model(name, weights=None).eval().double()
    net = Net(body, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=REAL[name], name=name)
    pixels, of = pictures(1, side=REAL[name]), as_objective(net, CLASS)
    read, _ = normalised(net, pixels)
    assert_near(saliency(net, pixels, of), Saliency(net).attribute(pixels.clone(), target=CLASS).amax(1, keepdim=True))
    expected = InputXGradient(net.body).attribute(read.clone(), target=CLASS).sum(1, keepdim=True)
    assert_near(gradient_x_input(net, pixels, of), expected)
    start = torch.zeros_like(pixels)
    path = IntegratedGradients(net).attribute(pixels.clone(), start, target=CLASS, n_steps=6, internal_batch_size=3)
    assert_near(integrated_gradients(net, pixels, of, baseline="0", steps=6), path.sum(1, keepdim=True))
    deviation = float(0.15 * (pixels.max() - pixels.min()))
    monkeypatch.setattr(torch, "normal", lambda *_, **__: deviation * noise_of(range(3), pixels[0], 0))
    noisy = NoiseTunnel(Saliency(net)).attribute(
        pixels.clone(), nt_type="smoothgrad", nt_samples=3, stdevs=deviation, target=CLASS, abs=False
    )
    monkeypatch.undo()
    assert_near(smooth_grad(net, pixels, of, samples=3), noisy.detach())
