"""The checks, one for each known bug of other implementations; each one's docstring says which, and what is wanted."""

from specdec.conformance.base import Check
from specdec.conformance.checks import bad_rows, drafts, filters, inputs, randomness

CHECKS: dict[str, Check] = {
    check.name: check
    for check in sorted(
        (
            Check(name, bug, needs, run)
            for module in (randomness, bad_rows, inputs, filters, drafts)
            for name, bug, needs, run in module.CHECKS
        ),
        key=lambda check: int(check.bug),
    )
}
