"""Implementations to name on the command line."""

import os
import time

from specdec.conformance.base import DRAFT_ROWS, DRAWS_DRAFTS, MANY_DRAWS, Step
from specdec.conformance.mutants import ForgetsMinP, Mutant

NOT_AN_IMPLEMENTATION = dict


class Wrong(ForgetsMinP):
    name = "wrong"


class Sleeps(Mutant):
    def verify(self, step: Step):
        if step.sampling.min_p.any():
            time.sleep(1000)
        return super().verify(step)


class Dies(Mutant):
    def verify(self, step: Step):
        if step.sampling.min_p.any():
            os._exit(3)
        return super().verify(step)


class TokenRuleOnly(Mutant):
    def __init__(self) -> None:
        super().__init__()
        self.lacks = {DRAWS_DRAFTS: "none to draw", DRAFT_ROWS: "none to keep", MANY_DRAWS: "too slow"}
