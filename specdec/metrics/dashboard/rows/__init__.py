"""The dashboard's rows, from "is it worth it" down to what a step costs."""

from specdec.metrics.dashboard.rows.acceptance import ACCEPTANCE
from specdec.metrics.dashboard.rows.entropy import ENTROPY
from specdec.metrics.dashboard.rows.glance import GLANCE
from specdec.metrics.dashboard.rows.load import LOAD
from specdec.metrics.dashboard.rows.time import TIME

ROWS = (GLANCE, ACCEPTANCE, ENTROPY, LOAD, TIME)
