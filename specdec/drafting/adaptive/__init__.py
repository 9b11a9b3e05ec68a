"""How many drafts a step should have: as many as make the most tokens per second, by what the server itself shows.

    curves.py      a function of a count, learned from noisy values
    costs.py       what a step takes: as a whole by passes of the head and requests, less what rows left out save
    acceptance.py  how likely drafts are to be accepted: by position, and by request
    plan.py        the number of drafts of each request, and of passes of the head, that follows

A number of drafts may depend on all that has happened: it is settled before the drafts in question are drawn, and the
law of what comes out does not depend on it. But where a step ends does, and with it which random number decides which
token; requests with a seed of their own are to repeat, so they always have the full number.
"""

from specdec.drafting.adaptive.plan import Planner, Step

__all__ = ["Planner", "Step"]
