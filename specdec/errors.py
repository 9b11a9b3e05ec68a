"""Errors that a user can act on; the command line shows them without a traceback."""


class SpecdecError(ValueError):
    """One sentence that names the offending value and the remedy."""


class BadLogitsError(SpecdecError):
    """A row of logits that is no distribution: it holds NaN or +inf, or nothing but -inf.

    `request` is the index in the batch, `row` the row of the logits matrix.
    """

    def __init__(self, request: int, row: int, what: str = "target") -> None:
        super().__init__(
            f"Row {row} of the {what} logits (request {request}) holds NaN or +inf, or nothing but -inf: "
            "check the model's weights and the request's logits processors, or drop this request from the batch."
        )
        self.request = request
        self.row = row
