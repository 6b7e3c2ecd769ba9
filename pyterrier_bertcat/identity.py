"""Equality, hash and ``repr`` of objects by their constructor's options."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Digest:
    """Stands in an identity for a large or unhashable value: a short description, and a hexadecimal hash."""

    what: str
    digest: str

    @classmethod
    def of_pairs(cls, pairs: Sequence[tuple[str, str]]) -> Digest:
        """Stands for a list of pairs of strings."""
        content = json.dumps([list(pair) for pair in pairs])
        return cls(f"{len(pairs)} pairs", hashlib.sha256(content.encode()).hexdigest())

    def __repr__(self) -> str:
        return f"<{self.what} {self.digest[:16]}>"


class IdentifiedByOptions:
    """A mixin for classes that store each constructor parameter unchanged, under its own name.

    Two objects of the same class are equal if all options except those in ``_not_identity`` are. ``repr`` shows the
    first option, and the others that differ from their defaults. A subclass has its base class's options, and those of
    its own parameters that it stores in the same way.
    """

    _not_identity: ClassVar[frozenset[str]] = frozenset()

    def _options(self) -> dict[str, Any]:
        # A subclass may store its own parameters after the base class's constructor has asked for the options.
        return {name: getattr(self, name) for name in _defaults(type(self)) if hasattr(self, name)}

    def _identity(self) -> dict[str, Any]:
        """The options that count, with hashable values. Subclasses refine it."""
        return {name: value for name, value in self._options().items() if name not in self._not_identity}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IdentifiedByOptions) or type(other) is not type(self):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((type(self), *self._identity().items()))

    def _chosen(self) -> dict[str, Any]:
        """The first option, and the others that count and differ from their defaults."""
        first, *others = self._identity().items()
        defaults = _defaults(type(self))
        return dict([first, *((name, value) for name, value in others if value != defaults[name])])

    def __repr__(self) -> str:
        first, *others = self._chosen().items()
        shown = [repr(first[1]), *(f"{name}={value!r}" for name, value in others)]
        return f"{type(self).__name__}({', '.join(shown)})"


def _defaults(cls: type) -> dict[str, Any]:
    """The default of every option, the base class's parameters first."""
    defaults: dict[str, Any] = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(IdentifiedByOptions)]):
        if "__init__" in vars(base):
            _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            named = (one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD))
            defaults |= {parameter.name: parameter.default for parameter in named}
    return defaults
