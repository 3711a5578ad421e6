"""Chapters for two occasions: pictures that are named wrongly, and pictures of a clinic."""

from __future__ import annotations

from dataclasses import replace

from ..data.pictures import Pictures
from ..errors import DataError
from ..evaluation.predicting import predict_many
from ..evaluation.truth import find_truth
from .chapters import Contents, Request
from .pictures import chapters, how_to_read, why


def wrong(request: Request) -> Contents:
    """Return a chapter for each picture that is named wrongly, the most certain mistakes first.

    Raises DataError without labels, or where none is wrong.
    """
    net, source = request.net, request.source or Pictures([list(request.pictures)])
    said = predict_many(net, source, labels=request.labels, names=request.names, size=request.size)
    if not said.labelled:
        raise DataError(
            "the preset wrong needs to know what is right: a folder of pictures for each class, named as the network's "
            "classes are, or a table of labels, --labels FILE.csv (path, label)"
        )
    mistaken = {each.where: each.values[0] for each in said.wrong}
    if not mistaken:
        raise DataError(f"none of the {len(said)} pictures is named wrongly: there is nothing to report")
    pictures = [picture for picture in request.pictures if picture.where in mistaken]
    pictures.sort(key=lambda picture: -mistaken[picture.where])
    quality = "" if said.quality is None else f" {said.quality.headline}."
    lead = (
        f"`{net.name}` names {len(pictures):,} of {len(said):,} pictures wrongly.{quality} For each of them: what it "
        "said, what made it say so, and what in the picture speaks for the class that it is."
    )
    asked = replace(request, pictures=pictures)
    truth = find_truth(net, source, request.labels, request.names)
    title = f"Where {net.name} is wrong, and why"
    return Contents(title, f"{lead}\n\n{how_to_read(request)}", chapters(asked, truth), len(pictures))


def medical(request: Request) -> Contents:
    """Return a chapter for each picture, with what must stand at the head of such a report."""
    whole = why(request)
    asked = "" if request.of is None else f" The question is `{request.of}`; a position in it is marked by a cross."
    lead = (
        f"{whole.lead}{asked}\n\nNo diagnosis: a map says what this network reacted to, which may be a marker, an edge "
        "or a device as well as a finding. Pictures of more than 8 bits are read with all their values; from which to "
        "which value they are shown stands under each."
    )
    count = len(request.pictures)
    title = f"{request.net.name} on {count} picture{'s' * (count != 1)}, for review"
    return replace(whole, title=title, lead=lead)
