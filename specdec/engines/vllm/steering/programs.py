"""Which program stands in which slot of the tables; requests with the same program share one."""

from collections.abc import Iterable

from specdec.engines.vllm.api.carried import program_of
from specdec.steering.change import Table
from specdec.steering.compile import Compiler
from specdec.steering.program import Program


class Programs:
    """tables: by layer."""

    def __init__(self, compiler: Compiler, tables: dict[int, Table], places: int) -> None:
        self._compiler, self._tables = compiler, tables
        self._free = list(range(places, 0, -1))  # slot 0 is nobody's
        self._slots: dict[str, int] = {}  # by program key
        self._requests: dict[str, str] = {}  # program key by request id
        self._users: dict[str, set[str]] = {}

    def slot(self, request_id: str, params: object) -> tuple[int, Program | None]:
        """0 and None for a request without a program. The program is written into its slot when it first comes."""
        program = program_of(params)
        if program is None:
            return 0, None
        if program.key not in self._slots:
            if not self._free:
                raise RuntimeError(
                    "more steering programs at once than steering.max_programs: the scheduler does not keep count"
                )
            slot = self._slots[program.key] = self._free.pop()
            layers = self._compiler.compile(program)
            for layer, table in self._tables.items():
                table.write(slot, layers.get(layer, ()))
        if request_id not in self._requests:
            self._requests[request_id] = program.key
            self._users.setdefault(program.key, set()).add(request_id)
        return self._slots[program.key], program

    @property
    def in_use(self) -> int:
        """How many programs stand in slots."""
        return len(self._slots)

    def release(self, request_id: str) -> None:
        """The request is over; its program's slot is free once nobody uses it."""
        key = self._requests.pop(request_id, None)
        if key is None:
            return
        self._users[key].discard(request_id)
        if not self._users[key]:
            del self._users[key]
            self._free.append(self._slots.pop(key))

    def counts(self, slots: Iterable[int]) -> dict[int, int]:
        """By layer, the most edits that a program in these slots has there; layers without any are left out."""
        used = list(slots)
        most = {layer: max(table.host_counts[slot] for slot in used) for layer, table in self._tables.items()}
        return {layer: count for layer, count in most.items() if count}
