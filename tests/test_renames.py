"""Old names work and warn; new names do not warn."""

from __future__ import annotations

import warnings

import pytest
import torch

import convscope
from convscope.errors import OptionError
from networks import tiny

NET = tiny("sequential")
PICTURE = torch.rand(3, 16, 16, dtype=torch.float64)


def test_old_names_of_the_package_and_its_attributes() -> None:
    with pytest.warns(DeprecationWarning, match="ask is called as_objective now"):
        assert convscope.ask is convscope.as_objective
    heat = convscope.explain(NET, PICTURE, "saliency", of=1)
    with pytest.warns(DeprecationWarning, match="view is called picture now"):
        assert heat.view is heat.picture
    with pytest.warns(DeprecationWarning, match="seen is called pixels now"):
        assert heat.picture.seen is heat.picture.pixels
    with pytest.warns(DeprecationWarning, match="view is called prepare now"):
        assert (NET.view(PICTURE).pixels == NET.prepare(PICTURE).pixels).all()


def test_old_names_of_options() -> None:
    new = convscope.explain(NET, PICTURE, "occlusion", of=1, baseline="grey", patch=4)
    with pytest.warns(DeprecationWarning, match="'fill' of occlusion is called 'baseline' now"):
        old = convscope.explain(NET, PICTURE, "occlusion", of=1, fill="grey", patch=4)
    assert torch.equal(old.values, new.values)
    assert old.recipe.key == new.recipe.key
    with pytest.raises(OptionError, match="has no option 'fill'"):
        convscope.explain(NET, PICTURE, "saliency", of=1, fill="grey")


def test_new_names_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        convscope.explain(NET, PICTURE, "occlusion", of=1, baseline="grey", patch=4)
