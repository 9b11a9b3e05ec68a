"""The options that train one head for every temperature and filter that requests ask for (`specdec train --robust`).

Measured on examples/tiny-lm (README). End-to-end TV above temperature 1 is what gives the longest acceptance at all
temperatures from 0.8 up: its slope fades where the head is sure of the wrong token, as it mostly is where it is wrong
at a low temperature, so training *at* low temperatures gave shorter acceptance even there. What is needed there is the
order of the first few tokens, and a small KL at temperature 1, whose slope does not fade, teaches it.
"""

from typing import Any

ROBUST: dict[str, Any] = {
    "loss": "e2e-tv",
    "temperatures": (0.9, 2.0),
    "top_p": 0.95,
    "filtered": 0.25,
    "kl_weight": 0.15,
}
