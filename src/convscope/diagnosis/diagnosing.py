"""`diagnose`: look for everything that is known to go wrong with a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..context import listen, say, track, whole
from ..data.pictures import read_pictures
from ..errors import OptionError, PictureError, nearest
from ..interruptions import orderly
from ..net import Net
from ..provenance import network_record, versions, with_remarks
from ..recipes import Recipe
from ..running import blank, check_net, check_repeatable
from .diagnosis import Diagnosis
from .evidence import Evidence
from .finding import Finding, Healthy, Unseen
from .observing import check_counted
from .registration import Kind, all_kinds


@orderly
def diagnose(
    net: Net,
    data: Any,
    train: Any = None,
    *,
    kinds: Sequence[str] = (),
    labels: str | Path | None = None,
    names: str | Path | None = None,
    batch_size: int = 0,
    seed: int = 0,
) -> Diagnosis:
    """Look for what is wrong with a network: dead and duplicated units, overfitting, shortcuts, calibration and more.

    Args:
        net: the network.
        data: pictures that it was not trained on, as `convscope.data.read_pictures` reads them; best with a folder for
            each class.
        train: some pictures that it was trained on, where there are any at hand.
        kinds: names of kinds of findings; all of them by default.
        labels, names: what is true of the pictures, as `predict_many` takes it.
        batch_size: pictures in one pass; 8 on a CPU and 64 elsewhere by default.
        seed: of what is drawn at random.

    Without labels or `train`, what needs them is not looked at, and listed in `unseen`. Raises OptionError for a kind
    that there is not, DataError for no pictures, PictureError where none can be read,
    NetworkError for a network that answers at random.
    """
    check_net(net, "diagnose")
    chosen = _chosen(kinds)
    pictures, trained_on = read_pictures(data), None if train is None else read_pictures(train)
    check_counted(pictures)
    if trained_on is not None:
        check_counted(trained_on)
    check_repeatable(net, blank(net, net.size))
    evidence = Evidence(net, pictures, trained_on, labels, names, seed, batch_size)
    with whole(), listen() as remarks:
        if not evidence.data.read:  # everything begins with it, and its progress is told by itself
            failed = [each.error for each in evidence.data.pictures]
            raise PictureError(f"none of {len(failed):,} pictures can be read: {failed[0]}")
        said = [each for kind in track(chosen, "kinds") for each in kind.said(evidence)]
        _say_more(evidence)
    findings = sorted((each for each in said if isinstance(each, Finding)), key=lambda each: -each.severity)
    return Diagnosis(
        net.name,
        _named(data),
        len(evidence.data.read),
        tuple(findings),
        tuple(each for each in said if isinstance(each, Healthy)),
        tuple(each for each in said if isinstance(each, Unseen)),
        _recipe(evidence, remarks),
        tuple((each.where, each.error) for each in evidence.data.predictions if each.error),
    )


def _say_more(evidence: Evidence) -> None:
    """Say what makes every finding less sure: answers that are no numbers, and pictures that were trained on."""
    for site, answers in evidence.answers.items():
        if answers.broken:
            say(f"units of {site} gave NaN or infinity for {answers.broken:,} pictures, which are not counted there")
    if evidence.trained_on is not None and evidence.overlap:
        shared = evidence.overlap
        say(
            f"{len(shared):,} of {len(evidence.data.read):,} pictures of the data folder are in the training folder, "
            f"too, such as {shared[0]}: what is said of them says little of new pictures"
        )


def _chosen(names: Sequence[str]) -> list[Kind]:
    known = all_kinds()
    for name in names:
        if name not in known:
            raise OptionError(f"there is no kind {name!r} of findings; nearest: {nearest(name, known)}")
    return [kind for name, kind in known.items() if not names or name in names]


def _named(data: Any) -> str:
    """Name the data where it lies in files; pictures in memory have no name."""
    return str(data) if isinstance(data, (str, Path)) else ""


def _recipe(evidence: Evidence, remarks: Sequence[str]) -> Recipe:
    net = evidence.net
    options = {"seed": evidence.seed}
    recipe = Recipe(
        method="diagnose", network=network_record(net), weights=net.digest, options=options, versions=versions()
    )
    return with_remarks(net, recipe, remarks)
