"""All that a request asks for under `"specdec"`.

{"steer": [{"feature": 123, "add": 8}], "on": "generated",      specdec/steering/program.py
 "read": {"features": [5, 123]},                                specdec/steering/reading.py
 "figures": true,                                               specdec/metrics/figures.py
 "tenant": "team-a"}                                            the label that its drafts are counted under
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from specdec.errors import SpecdecError
from specdec.steering.parts import Part, as_object, parse
from specdec.steering.program import Catalog, Program
from specdec.steering.reading import Read

WHERE_TO_STEER = (
    'this server does not steer, so "specdec" cannot be served: start it with '
    '--worker-cls specdec.engines.vllm.Worker and {"specdec": {"steering": {...}}} in --additional-config'
)


class _Counted(Part):
    """The part that has to do with metrics."""

    figures: bool = False
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:@/-]{1,64}$")] | None = None


@dataclass(frozen=True)
class Request:
    """In its final form. steer, read: None where it does not steer, or not read. figures: whether its answer is to hold
    its acceptance figures.
    """

    steer: Program | None = None
    read: Read | None = None
    figures: bool = False
    tenant: str | None = None

    def canonical(self) -> str:
        """A text that `Offer.request` and `parse_request` understand, the same for the same request."""
        found: dict[str, Any] = {} if self.steer is None else self.steer.dumped()
        if self.read is not None:
            found["read"] = self.read.dumped()
        if self.figures:
            found["figures"] = True
        if self.tenant is not None:
            found["tenant"] = self.tenant
        return json.dumps(found, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Offer:
    """What a server can be asked for. catalog None: it does not steer. counts: whether it keeps figures; tenants:
    whether it keeps those of tenants apart.
    """

    catalog: Catalog | None = None
    counts: bool = True
    tenants: bool = False

    def request(self, raw: Any) -> Request:
        """What a request asked for, a JSON text or the object it stands for, in its final form.

        SpecdecError, one sentence: malformed, or nothing that this server can be asked for; see Catalog.
        """
        given = as_object(raw)
        if not isinstance(given, Mapping):
            return Request(self._catalog().program(given))
        counted = self._counted({key: given[key] for key in ("figures", "tenant") if key in given})
        read = given.get("read")
        program = {key: value for key, value in given.items() if key not in ("read", "figures", "tenant")}
        alone = read is not None or counted.figures or counted.tenant is not None
        return Request(
            self._catalog().program(program) if program or not alone else None,
            None if read is None else self._catalog().read(read),
            counted.figures,
            counted.tenant,
        )

    def _counted(self, raw: dict[str, Any]) -> _Counted:
        counted = parse(_Counted, raw, "request")
        if counted.figures and not self.counts:
            raise SpecdecError("this server keeps no figures: metrics.enabled is false in its settings")
        if counted.tenant is not None and not self.tenants:
            raise SpecdecError("this server does not tell tenants apart: metrics.max_tenants is 0 in its settings")
        return counted

    def _catalog(self) -> Catalog:
        if self.catalog is None:
            raise SpecdecError(WHERE_TO_STEER)
        return self.catalog


def parse_request(text: str) -> Request:
    """The request of a text that `Request.canonical` wrote."""
    raw = json.loads(text)
    read, figures, tenant = raw.pop("read", None), raw.pop("figures", False), raw.pop("tenant", None)
    return Request(
        Program.model_validate(raw) if raw else None,
        None if read is None else Read.model_validate(read),
        figures,
        tenant,
    )
