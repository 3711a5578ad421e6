"""Effects of channels: exact ablation against a loop of hooks, what is kept on the way, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.errors import DataError, LayerError, OptionError
from convscope.studies import effects as module
from networks import pictures, tiny


def study(kind: str = "residual", count: int = 3, **options: Any) -> cs.Study:
    return cs.effects(tiny(kind), pictures(count), **{"limit": 0, **options})


def by_hooks(net: cs.Net, pixels: Tensor, layer: str, new: Tensor) -> np.ndarray:
    """The oracle: a full pass of every picture for every channel, changed by a hook of its own."""
    name, _, call = layer.partition("#")
    drops = np.zeros(new.shape[:2])
    for row, picture in enumerate(pixels):
        for channel in range(new.shape[1]):
            calls = []

            def hook(
                _: Any, __: Any, output: Tensor, row: int = row, channel: int = channel, calls: Any = calls
            ) -> Any:
                calls.append(1)
                if call and len(calls) != int(call):
                    return None
                output = output.clone()
                output[:, channel] = new[row, channel]
                return output

            with torch.no_grad():
                clean = net(picture[None])[0]
                handle = net.body.get_submodule(name).register_forward_hook(hook)
                drops[row, channel] = float((clean - net(picture[None])[0])[clean.argmax()])
                handle.remove()
    return drops


@pytest.mark.parametrize(
    ("kind", "layer"), [("residual", "relu#2"), ("concat", "a"), ("relu6", "4"), ("in-place", "4")]
)
def test_drops_are_those_of_full_passes(kind: str, layer: str) -> None:
    net, pixels = tiny(kind), pictures(3)
    found = study(kind, layers=[layer], references=["zero", "mean", "resample"], seed=1)
    activity = cs.tap(net, pixels, [layer])[layer]
    order = np.random.default_rng(1).permutation(3)
    donors = torch.empty_like(activity)
    donors[order] = activity[np.roll(order, -1)]
    replacements = {
        "zero": torch.zeros_like(activity),
        "mean": activity.mean((0, 2, 3), keepdim=True).expand_as(activity),
        "resample": donors,
    }
    for reference, new in replacements.items():
        expected = by_hooks(net, pixels, layer, new)
        np.testing.assert_allclose(found.values[f"{layer}_{reference}"], expected, rtol=1e-6, atol=1e-8)
        rows = [row for row in found.table.records if row["replaced_by"] == reference]
        means = expected.mean(0)
        assert {row["channel"]: row["drop"] for row in rows} == pytest.approx(dict(enumerate(means)), abs=1e-7)
        assert [row["drop"] for row in rows] == sorted((row["drop"] for row in rows), reverse=True)
        assert all(row["low"] <= row["drop"] <= row["high"] and row["n"] == 3 for row in rows)


def test_where_the_score_is_linear_the_gradient_is_exact() -> None:
    found = study("sequential", layers=["5.1"], references=["zero", "mean"])
    for row in found.table.records:
        assert row["gradient"] == pytest.approx(row["drop"], abs=1e-9)
    assert "activation × gradient 1.00" in found.gist


class Tokens(nn.Module):
    """A small transformer: patches, a class token beside them, and a layer of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.first = nn.Conv2d(3, 6, 5, stride=5), nn.Parameter(torch.randn(1, 1, 6))
        self.mlp, self.act, self.norm, self.head = nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.norm(self.act(self.mlp(tokens))).mean(1))


def test_channels_of_tokens_are_ablated_in_all_of_them() -> None:
    net = cs.Net(Tokens().eval(), size=20, channels=3)
    pixels = pictures(2).float()
    found = cs.effects(net, pixels, layers=["act"], references=["zero"])
    for channel in range(8):
        with torch.no_grad():
            handle = net.body.act.register_forward_hook(  # type: ignore[union-attr]
                lambda _, __, output, channel=channel: output.index_fill(2, torch.tensor([channel]), 0)
            )
            changed = net(pixels)
            handle.remove()
            clean = net(pixels)
        first = clean.argmax(1)[:, None]
        drops = (clean - changed).gather(1, first)[:, 0]
        torch.testing.assert_close(found.values["act_zero"][:, channel], drops, rtol=1e-5, atol=1e-6)
    layers = {row["layer"] for row in cs.effects(net, pixels).table.records}
    assert layers == {"patches", "act"}


def test_objectives_below_the_output_and_outputs_that_are_no_classes() -> None:
    net = tiny("sequential")
    found = cs.effects(net, pictures(3), of="4:2", layers=["1"], references=["zero"], limit=0)
    activity = cs.tap(net, pictures(3), ["1"])["1"]
    unit = cs.tap(net, pictures(3), ["4"])["4"][:, 2].flatten(1)
    without = activity.clone()
    without[:, 3] = 0
    with torch.no_grad():
        rest = nn.Sequential(*list(net.body.children())[2:5])  # type: ignore[arg-type]
        changed = rest(without)[:, 2].flatten(1)
    drops = unit.amax(1) - changed.amax(1)
    torch.testing.assert_close(found.values["1_zero"][:, 3], drops, rtol=1e-5, atol=1e-6)
    one = cs.Net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 18 * 18, 1)), size=20)
    rows = cs.effects(one, pictures(2).float(), layers=["1"]).table.records
    assert all(np.isnan(row["changed"]) for row in rows), "one number is no choice"


def test_a_run_that_was_ended_goes_on_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = study(count=18, layers=["a"])
    real, calls = module.effects_of, list[int]()

    def ending(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "effects_of", ending)
    with pytest.raises(KeyboardInterrupt):
        study(count=18, layers=["a"], keep=tmp_path)
    again = study(count=18, layers=["a"], keep=tmp_path)
    assert len(calls) == 4, "two blocks were kept, and the third is computed again"
    assert again.table.csv() == whole.table.csv()
    assert again.render().tobytes() == whole.render().tobytes()


def test_the_true_class_needs_labels() -> None:
    pixels = pictures(4)
    with pytest.raises(DataError, match="has no label"):
        study(of="true")
    labelled = cs.effects(tiny("concat"), [(one, "dog") for one in pixels], of="true", layers=["a"], limit=0)
    named = cs.effects(tiny("concat"), pixels, of="dog", layers=["a"], limit=0)
    assert torch.equal(labelled.values["a_zero"], named.values["a_zero"])


def test_one_picture_is_ablated_by_zero_only() -> None:
    found = study(count=1, layers=["a"])
    assert {row["replaced_by"] for row in found.table.records} == {"zero"}
    assert "replaced by zero only" in found.table.note


def test_what_cannot_be_ablated_is_refused() -> None:
    with pytest.raises(LayerError, match="no layer 'conv9'"):
        study(layers=["conv9"])
    with pytest.raises(OptionError, match="references is empty"):
        study(references=[])
    with pytest.raises(DataError, match="several sizes"):
        cs.effects(tiny("concat"), [torch.rand(3, 20, 20), torch.rand(3, 24, 24)], limit=0)


def test_layers_by_default_are_those_after_the_rectifiers() -> None:
    found = study("sequential")
    assert dict.fromkeys(row["layer"] for row in found.table.records) == {"1": None, "4": None}


def test_of_a_long_table_the_first_rows_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    table = cs.Table((cs.Column("n", "whole"),), tuple((n,) for n in range(100, 150)), title="Long")
    table.print(40)
    printed = capsys.readouterr().out
    assert "the first 40 of 50 rows" in printed and "139" in printed and "140" not in printed
    table.print(50)
    assert "149" in capsys.readouterr().out
