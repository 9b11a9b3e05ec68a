"""Broken rows of logits in the log: each request concerned is named, and no line comes at every step."""

from collections.abc import Sequence

from vllm.logger import init_logger

from specdec.errors import BadLogitsError

logger = init_logger(__name__)

REMEMBERED = 4096  # requests, the last ones that had a broken row


class BadRowLog:
    """A request is named at its first broken step, and when their number has doubled since; a step makes one line."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}  # request id -> steps with a broken row

    def report(self, bad_row: Sequence[int], request_ids: Sequence[str]) -> None:
        """bad_row [B] as in VerifyOutput, on the host."""
        broken = [index for index, row in enumerate(bad_row) if row >= 0]
        counts = {index: self._count(request_ids[index]) for index in broken}
        due = [index for index, count in counts.items() if count & (count - 1) == 0]
        if due:
            named = ", ".join(f"{request_ids[index]} (step {counts[index]} of this kind)" for index in due)
            error = BadLogitsError(due[0], int(bad_row[due[0]]))
            logger.error("specdec: %s Only the requests concerned are affected: %s.", error, named)

    def _count(self, request_id: str) -> int:
        count = self._steps.pop(request_id, 0) + 1
        self._steps[request_id] = count  # behind all others: the first is the one that was seen longest ago
        if len(self._steps) > REMEMBERED:
            del self._steps[next(iter(self._steps))]
        return count
