"""The gradient family against plain autograd, finite differences, captum and the papers' identities."""

from __future__ import annotations

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from torch import Tensor, nn

from convscope import Net, ask
from convscope.methods.gradient import gradient, gradient_x_input, saliency
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
    (slope,) = torch.autograd.grad(net.body(read * 1)[:, CLASS].sum(), read)
    torch.testing.assert_close(gradient(net, pixels, ask(net, CLASS)), slope / std, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("of", ["dog", "0:3@2,4", "0:3@max", "3:1", "dog - 0.5*ant"])
def test_the_gradient_is_what_a_small_step_changes(of: str) -> None:
    net, pixels = tiny("sequential"), pictures(1)
    objective, slope = ask(net, of), gradient(net, pixels, ask(net, of))
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        step = 1e-6 * torch.randn(pixels.shape, generator=generator, dtype=pixels.dtype)
        change = objective(net, pixels + step) - objective(net, pixels - step)
        torch.testing.assert_close(change, 2 * (slope * step).sum()[None], rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("kind", TINY)
def test_saliency_is_the_largest_magnitude_over_colours(kind: str) -> None:
    """Simonyan et al., sec. 3.1; captum's has a map for each colour."""
    net, pixels = tiny(kind), pictures()
    expected = Saliency(net).attribute(pixels.clone(), target=CLASS).amax(1, keepdim=True)
    found = saliency(net, pixels, ask(net, CLASS))
    assert found.any()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", TINY)
def test_gradient_x_input_is_that_of_what_the_body_reads(kind: str) -> None:
    net, pixels = tiny(kind), pictures()
    read, _ = normalised(net, pixels)
    expected = InputXGradient(net.body).attribute(read.clone(), target=CLASS).sum(1, keepdim=True)
    torch.testing.assert_close(gradient_x_input(net, pixels, ask(net, CLASS)), expected, rtol=1e-10, atol=1e-13)


def test_without_biases_gradient_x_input_adds_up_to_the_score() -> None:
    """I15."""
    net, pixels = tiny("sequential"), pictures(3)
    with torch.no_grad():
        for name, parameter in net.body.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    total = gradient_x_input(net, pixels, ask(net, CLASS)).sum((1, 2, 3))
    torch.testing.assert_close(total, net(pixels)[:, CLASS], rtol=1e-10, atol=1e-13)


def test_a_bias_free_network_has_the_same_saliency_at_any_contrast() -> None:
    """I13: homogeneous of degree zero."""
    body = nn.Sequential(
        nn.Conv2d(3, 5, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5 * 81, 4, bias=False)
    )
    net, pixels = Net(body.double(), size=SIZE), pictures()
    one, other = (saliency(net, scale * pixels, ask(net, CLASS)) for scale in (1, 0.4))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
