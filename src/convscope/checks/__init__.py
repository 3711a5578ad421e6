"""Checks: does a map depend on what was learnt, is it faithful to the score, does it lie on the object?"""

from __future__ import annotations

from ..data.boxes import Boxed as Boxed
from ..data.boxes import read_boxes as read_boxes
from .box_scores import Criteria as Criteria
from .localisation import localise as localise
from .localisation_table import Localisation as Localisation
from .perturbation import Infidelity as Infidelity
from .perturbation import infidelity as infidelity
from .perturbation import sensitivity as sensitivity
from .random_weights import randomised as randomised
from .randomisation import Cascade as Cascade
from .randomisation import cascade as cascade
from .randomisation import checked as checked
from .randomisation_figure import cascades as cascades
from .removal import Removal as Removal
from .removal import deletion as deletion
from .removal import insertion as insertion
from .removal_curves import curves as curves
