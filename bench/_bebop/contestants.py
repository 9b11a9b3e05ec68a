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
    "kl at 0.6": {"loss": "kl", "temperature": 0.6},
    "e2e-tv at 0.6": {"loss": "e2e-tv", "temperature": 0.6},
    "e2e-tv at 1.3": {"loss": "e2e-tv", "temperature": 1.3},
    "e2e-tv at 1.5 + kl": {"loss": "e2e-tv", "temperature": 1.5, "kl_weight": 0.15},
    "robust": ROBUST,  # ours
}

SETTINGS = [
    *(Filters(temperature) for temperature in (0.3, 0.6, 0.8, 1.0, 1.3)),
    Filters(1.0, top_p=0.95),
    Filters(0.6, top_p=0.95),
]
