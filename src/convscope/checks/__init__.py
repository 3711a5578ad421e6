"""Checks: does a map follow the model, is it faithful to the answer, does it point at the thing?"""

from __future__ import annotations

from ..data.boxes import Boxed as Boxed
from ..data.boxes import read_boxes as read_boxes
from .fidelity import Infidelity as Infidelity
from .fidelity import Removal as Removal
from .fidelity import curves as curves
from .fidelity import deletion as deletion
from .fidelity import infidelity as infidelity
from .fidelity import insertion as insertion
from .fidelity import sensitivity as sensitivity
from .localisation import Localisation as Localisation
from .localisation import localise as localise
from .randomisation import Cascade as Cascade
from .randomisation import cascade as cascade
from .randomisation import cascades as cascades
from .randomisation import checked as checked
from .randomisation import randomised as randomised
