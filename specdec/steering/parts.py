"""What a request's JSON is read with: its parts, and one sentence where they do not fit."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from specdec.errors import SpecdecError


class Part(BaseModel):
    """Unknown keys and numbers that are none are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    def dumped(self) -> dict[str, Any]:
        """As JSON has it, what is not set left out."""
        return self.model_dump(by_alias=True, exclude_none=True)


Kind = TypeVar("Kind", bound=Part)


def as_object(raw: Any) -> Any:
    """raw, or what it says where it is a text. SpecdecError: it is no JSON."""
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except json.JSONDecodeError as error:
        raise SpecdecError(
            f'"specdec" holds no JSON ({error}): give {{"steer": [...]}} as a text or an object'
        ) from None


def parse(kind: type[Kind], raw: Any, what: str, where: str = "") -> Kind:
    """raw as a `kind`. what: its name for people; where: what stands before its keys. SpecdecError: it does not fit."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        place = where + ".".join(str(part) for part in problem["loc"]) or f"the {what}"
        if problem["type"] == "extra_forbidden":
            raise SpecdecError(f'unknown key "{place}" in a {what}') from None
        given = repr(problem["input"])
        raise SpecdecError(f"{place.rstrip('.')} is {given[:80]}: {problem['msg']}") from None


def known(names: Any) -> str:
    """For the end of a sentence about a name that is not among them."""
    listed = ", ".join(str(name) for name in names)
    return f"this server has {listed}" if listed else "this server has none"
