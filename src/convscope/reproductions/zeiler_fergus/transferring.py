"""Tables 4 to 6 and Fig. 9: what pretrained features are worth at few pictures."""

from __future__ import annotations

from ...drawing.study import Study
from ...errors import NetworkError
from ...studies.intervals import Interval
from ...studies.labelled import Labelled
from ...studies.transfer import PRETRAINED, RANDOM, SCRATCH, transfer
from ...zoo.blueprints import blueprint_of
from ..claims import Statement, above, every
from ..numbers import of_row
from ..registration import Found, Unfit, experiment
from ..sampling import of_classes
from ..subject import Subject

_BETTER = Statement(
    "pretrained-beats-scratch",
    "Pretrained features beat the same network trained from scratch, by far",
    rule="at every number of pictures of each class, the interval of the difference of both accuracies lies above 0.",
    paper="Caltech-101 with 15 and 30 pictures of each class: 83.8% and 86.5%, from scratch 22.8% and 46.5%; "
    "Caltech-256 with 15, 30, 45 and 60: 65.7%, 70.6%, 72.7% and 74.2%, from scratch 9.0%, 22.5%, 31.2% and 38.8%.",
)
_FEW = Statement(
    "few-pictures-are-enough",
    "Pretrained features need a few pictures where a network from scratch needs many",
    rule="at some smaller number of pictures of each class pretrained features reach at least the accuracy that the "
    "network from scratch has at the largest number: the lower end of their interval lies above its value.",
    paper="on Caltech-256 six pictures of each class beat the best result that others had with 60.",
)

_NUMBERS = (1, 5, 20)


@experiment(
    "zeiler-fergus",
    100,
    "Tables 4 to 6 and Fig. 9",
    "Pretrained features on other data",
    did="layers 1 to 7 of the network trained on ImageNet were kept and a softmax trained on top, against the same "
    "network from scratch, on Caltech-101 and Caltech-256 (mean of the classes' accuracies, five folds); on PASCAL "
    "2012, whose pictures may show several things, it reached 79.0 on average, and the best of others 82.2.",
    differs="other classes, fewer of them, and short trainings. PASCAL is not among the data.",
    claims=(_BETTER, _FEW),
    work=10,
)
def transferring(subject: Subject) -> Found:
    """Compare pretrained features with the same network from scratch, on classes that it has not been taught."""
    labelled = _others(subject)
    data = of_classes(labelled, 20, subject.number(100, 60), subject.seed)
    least = min(count for count in data.counts.values() if count)
    numbers = [number for number in _NUMBERS if 2 * number <= least] or [1]
    numbers = numbers[: 2 if subject.quick else None]
    try:
        blueprint_of(subject.net)
        why = ""
    except NetworkError as error:
        why = str(error)
    repeats = 1 if subject.quick else 2
    study = transfer(
        subject.net,
        data,
        train=numbers,
        repeats=repeats,
        scratch=not why,
        seed=subject.seed,
        keep=subject.keep,
    )
    classes = sum(count > 0 for count in data.counts.values())
    did = f"{classes} classes of {len(labelled):,} pictures, {repeats} repeats, seed {subject.seed}. {study.gist}"
    figures, tables = [study], [study.readable]
    if why:
        return Found(did, [each.unjudged(why, _told(study, numbers)) for each in (_BETTER, _FEW)], figures, tables)
    n = len(data) - numbers[-1] * classes
    cells = {(row["train"], row["network"]): row for row in study.table.records}
    rates = {
        name: [of_row(cells[number, name], ("accuracy", "low", "high"), n) for number in numbers]
        for name in (PRETRAINED, SCRATCH, RANDOM)
        if (numbers[0], name) in cells
    }
    margins = {
        f"at {number}": of_row(cells[number, SCRATCH], ("margin", "margin_low", "margin_high"), n) for number in numbers
    }
    random = rates.get(RANDOM)
    claims = [
        _BETTER.judged(
            every([above(each) for each in margins.values()]),
            _told(study, numbers),
            numbers=margins,
            untrained=None
            if random is None
            else all(own.low > scratch.value for own, scratch in zip(random, rates[SCRATCH], strict=True)),
        ),
        _FEW.judged(
            enough(rates[PRETRAINED], rates[SCRATCH]),
            f"From scratch {rates[SCRATCH][-1].value:.1%} at {numbers[-1]} pictures of each class; pretrained "
            + ", ".join(
                f"{each.value:.1%} at {number}" for each, number in zip(rates[PRETRAINED], numbers, strict=True)
            )
            + ".",
            untrained=None if random is None else enough(random, rates[SCRATCH]),
            reason="one number of pictures alone",
        ),
    ]
    return Found(did, claims, figures, tables)


def enough(features: list[Interval], scratch: list[Interval]) -> bool | None:
    """Judge whether features reach, at some smaller number of pictures, what the network reaches at the largest."""
    if len(features) < 2:
        return None
    return any(each.low > scratch[-1].value for each in features[:-1])


def _others(subject: Subject) -> Labelled:
    """Return labelled pictures of classes that the network was not taught. Raises Unfit where there are none."""
    if subject.others is not None:
        return subject.labelled(subject.others)
    labelled = subject.labelled()
    if subject.known:
        raise Unfit(
            f"{subject.net.name} has learnt the classes of these pictures, so that nothing is transferred: give "
            "pictures of others, --transfer FOLDER"
        )
    return labelled


def _told(study: Study, numbers: list[int]) -> str:
    """Say the accuracies of all networks at each number of pictures."""
    texts = list[str]()
    for number in numbers:
        each = [row for row in study.table.records if row["train"] == number]
        found = [(row["network"], of_row(row, ("accuracy", "low", "high"), 0)) for row in each]
        texts.append(f"at {number}: " + ", ".join(f"{name} {one.value:.1%}" for name, one in found))
    return f"Pictures of each class {'; '.join(texts)}."
