"""What a request asks for beside steering and reading, and what a server without them offers."""

from typing import Any

import pytest

from specdec.errors import SpecdecError
from specdec.request import Offer, Request, parse_request
from specdec.steering.program import Catalog

CATALOG = Catalog(8, saes={"mid": (4, 40)})
STEER = {"steer": [{"feature": 3, "add": 2}]}


@pytest.mark.parametrize(
    "asked",
    [
        {"figures": True},
        {"tenant": "team-a"},
        {**STEER, "figures": True, "tenant": "a.b:c@d/e_f-9"},
        {"read": {"top": 2}, "figures": True},
    ],
)
def test_a_request_comes_through_as_it_was_asked(asked: dict[str, Any]) -> None:
    offer = Offer(CATALOG, tenants=True)
    request = offer.request(asked)
    assert parse_request(request.canonical()) == request == offer.request(request.canonical())
    assert request.figures == asked.get("figures", False) and request.tenant == asked.get("tenant")
    assert (request.steer is None) == ("steer" not in asked)


def test_figures_need_no_steering() -> None:
    assert Offer().request('{"figures": true}') == Request(figures=True)


@pytest.mark.parametrize(
    ("offer", "asked", "says"),
    [
        (Offer(), STEER, "this server does not steer"),
        (Offer(), {"read": {"top": 1}}, "this server does not steer"),
        (Offer(), {}, "this server does not steer"),
        (Offer(CATALOG), {}, 'a steering program has either "steer"'),
        (Offer(CATALOG), {"figures": False}, 'a steering program has either "steer"'),
        (Offer(counts=False), {"figures": True}, "this server keeps no figures: metrics.enabled is false"),
        (Offer(), {"tenant": "a"}, "this server does not tell tenants apart: metrics.max_tenants is 0"),
        (Offer(tenants=True), {"tenant": 'a"} 1\n'}, "tenant is "),
        (Offer(tenants=True), {"tenant": "x" * 65}, "tenant is "),
        (Offer(), {"figures": "always"}, "figures is 'always': "),
    ],
)
def test_refused(offer: Offer, asked: Any, says: str) -> None:
    with pytest.raises(SpecdecError) as refused:
        offer.request(asked)
    assert str(refused.value).startswith(says) and "\n" not in str(refused.value)
