"""What is compared: the settings in which one head's training differs from another's."""

from typing import Any

from specdec.evaluation.filters import Filters
from specdec.training.robust import ROBUST

CONTESTANTS: dict[str, dict[str, Any]] = {
    "ce": {"loss": "ce"},
    "kl": {"loss": "kl"},
    "reverse-kl": {"loss": "reverse-kl"},
    "tv": {"loss": "tv"},
    "e2e-tv": {"loss": "e2e-tv"},
    "lk-hybrid": {"loss": "lk-hybrid"},
    "robust": ROBUST,  # ours
}

PLAIN = Filters()
SETTINGS = [
    *(Filters(temperature) for temperature in (0.3, 0.6, 0.8, 1.0, 1.3)),
    Filters(1.0, top_p=0.95),
    Filters(0.6, top_p=0.95),
]
