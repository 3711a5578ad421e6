"""`reproduce`: go through a paper's experiments on networks, and judge its claims."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from .. import outputs
from ..context import Parts, listen, say, track, whole
from ..data.boxes import box_rows
from ..errors import OptionError
from ..interruptions import orderly
from ..net import Net
from ..provenance import versions
from ..recipes import Recipe
from ..running import blank, check_net, check_repeatable
from ..zoo.loading import load
from .papers import find_paper
from .registration import Found, experiments
from .reproduction import Looked, Reproduction
from .sources import Given, Pool, pool
from .subject import Subject

_DEFAULT = "zfnet64"


@orderly
def reproduce(
    paper: str,
    nets: Net | str | Sequence[Net | str] = _DEFAULT,
    data: Any = None,
    train: Any = None,
    transfer: Any = None,
    *,
    labels: str | Path | None = None,
    boxes: str | Path | None = None,
    parts: str | Path | None = None,
    limit: int = 0,
    keep: str | Path | None = None,
    quick: bool = False,
    seed: int = 0,
) -> Reproduction:
    """Go through the experiments of a paper on networks, and judge which of its claims hold there.

    Args:
        paper: the paper's name, "zeiler-fergus" or "simonyan".
        nets: a network or several: Nets, or names as `load` takes them.
        data: pictures that the networks were not trained on, as `convscope.data.read_pictures` reads them, best with a
            folder for each class; or such sources by the networks' names, "" for the others. By default pictures that
            ship, of which those for most networks have no labels.
        train: some pictures that they were trained on, in the same forms.
        transfer: pictures of classes that they were not taught, in the same forms.
        labels: a table of labels (.csv) of `data`, with columns path and label.
        boxes: boxes around the objects of `data`: a table (.csv; path, left, top, right, bottom), COCO or VOC.
        parts: the same of parts, named by a column class; by default eyes and noses in Tiny ImageNet's pictures.
        limit: pictures of each source that are taken at most, as many of each class as there are; by default 5,000, or
            1,000 where the network reads large ones.
        keep: a folder that keeps what took long, so that the same call goes on after it was ended.
        quick: take about a quarter of the pictures and repetitions.
        seed: of whatever is drawn at random.

    What a network or the data does not allow is left open, with the reason. Raises OptionError for an unknown paper,
    DataError for pictures that nobody can count, PictureError where none can be read, NetworkError for a network that
    answers at random.
    """
    chosen = find_paper(paper)
    _check(limit, seed, (boxes, parts), keep)
    loaded = _loaded(nets)
    given = Given(data, train, transfer, labels)
    with whole(), listen() as remarks, _kept(keep) as place:
        pools = [pool(net, given, place, limit=limit, seed=seed, quick=quick) for net in track(loaded, "pictures")]
        asked = (seed, quick, boxes, parts)
        subjects = [_subject(net, found, place, *asked) for net, found in zip(loaded, pools, strict=True)]
        wanted = experiments(chosen)
        steps = [(each, subject) for subject in subjects for each in wanted]
        made = dict[tuple[str, int], Found]()
        for each, subject in track(Parts(steps, [each.work for each, _ in steps]), f"reproduce {chosen.name}"):
            made[each.name, id(subject)] = each.found(subject)
    recipe = _recipe({"paper": chosen.name, "seed": seed, "quick": quick}, remarks)
    return Reproduction(
        chosen,
        tuple(_looked(subject, found) for subject, found in zip(subjects, pools, strict=True)),
        tuple((each, tuple(made[each.name, id(subject)] for subject in subjects)) for each in wanted),
        recipe,
        tuple(dict.fromkeys(failed for found in pools for failed in found.data.failed)),
        quick,
    )


def _recipe(options: dict[str, Any], remarks: Sequence[str]) -> Recipe:
    return Recipe(method="reproduce", options=options, remarks=tuple(remarks), versions=versions())


@contextmanager
def _kept(keep: str | Path | None) -> Generator[Path]:
    """Yield the folder that keeps what took long, a temporary one where none is named."""
    if keep is not None:
        yield Path(keep)
        return
    with TemporaryDirectory(prefix="convscope-") as folder:
        yield Path(folder)


def _check(limit: int, seed: int, tables: Sequence[str | Path | None], keep: str | Path | None) -> None:
    """Refuse what makes no sense before anything is loaded or read. Raises OptionError, DataError, OutputError."""
    if limit < 0 or seed < 0:
        raise OptionError(f"limit and seed are whole numbers from 0 on, not {limit} and {seed}")
    for table in filter(None, tables):
        deque(box_rows(Path(table)), maxlen=0)
    if keep is not None:
        outputs.check_folder(Path(keep))


def _loaded(nets: Net | str | Sequence[Net | str]) -> list[Net]:
    given = list(nets) if isinstance(nets, (list, tuple)) else [nets]
    if not given:
        raise OptionError(f"no network to look at: give one or several, as nets=[{_DEFAULT!r}, 'lenet5']")
    found = list[Net]()
    for each in given:
        found.append(load(each) if isinstance(each, str) else cast(Net, each))
        check_net(found[-1], "reproduce")
    names = [net.name for net in found]
    if again := next((name for name in names if names.count(name) > 1), None):
        raise OptionError(f"two networks are called {again!r}: give each a name of its own, as Net(..., name='mine')")
    for net in found:
        check_repeatable(net, blank(net, net.size))
    return found


def _subject(net: Net, found: Pool, keep: Path | None, seed: int, quick: bool, *tables: str | Path | None) -> Subject:
    subject = Subject(net, found.data, found.source, found.learnt, found.others, keep, seed, quick, *tables)
    for remark in found.data.remarks:
        say(f"{net.name}: {remark}")
    if found.learnt is not None and (shared := found.data.shared_with(found.learnt)):
        say(
            f"{net.name}: {len(shared):,} of {len(found.data):,} pictures are among those that it was trained on, too, "
            f"such as {shared[0][0]}: what is said of them says little of new pictures"
        )
    return subject


def _looked(subject: Subject, found: Pool) -> Looked:
    net, data = subject.net, subject.data
    present = len({*data.targets} - {-1})
    learnt, others = (0 if part is None else len(part) for part in (found.learnt, found.others))
    return Looked(net.name, net.digest, net.note, found.words, len(data), present, learnt, others)
