"""A table of implementations by name, each imported only when it is first asked for."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, TypeVar

from specdec.errors import SpecdecError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to creators. `kind` is the noun that error messages use ("verify backend")."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._creators: dict[str, Callable[[], T]] = {}
        self._created: dict[str, T] = {}

    def register(self, name: str, creator: Callable[[], T]) -> None:
        """Raises SpecdecError when `name` is taken. `creator` runs once, at the first `get`."""
        if name in self._creators:
            raise SpecdecError(f"The {self.kind} '{name}' is registered twice: choose another name.")
        self._creators[name] = creator

    def register_attribute(self, name: str, module: str, attribute: str) -> None:
        """What the module calls `attribute`, made where it is a class; the module is imported at the first `get`."""

        def create() -> T:
            found: Any = getattr(import_module(module), attribute)
            made: T = found() if isinstance(found, type) else found
            return made

        self.register(name, create)

    def get(self, name: str) -> T:
        """Raises SpecdecError listing the valid names when `name` is unknown."""
        if name not in self._created:
            if name not in self._creators:
                raise SpecdecError(f"Unknown {self.kind} '{name}': use one of {', '.join(self.names())}.")
            self._created[name] = self._creators[name]()
        return self._created[name]

    def names(self) -> list[str]:
        return list(self._creators)
