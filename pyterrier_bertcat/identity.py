"""Objects that are what their constructor's options say: equality, hash and ``repr`` from the options."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

_DIGITS_SHOWN = 16


@dataclass(frozen=True)
class Digest:
    """Stands for an option in an identity whose value is large, or can't be hashed: equal content is equal.

    Attributes:
        what: in a word or two, for people.
        digest: of the content, in hexadecimal digits.
    """

    what: str
    digest: str

    @classmethod
    def of_pairs(cls, pairs: Sequence[tuple[str, str]]) -> Digest:
        """Stands for a list of pairs of strings."""
        content = json.dumps([list(pair) for pair in pairs])
        return cls(f"{len(pairs)} pairs", hashlib.sha256(content.encode()).hexdigest())

    def __repr__(self) -> str:
        return f"<{self.what} {self.digest[:_DIGITS_SHOWN]}>"


class IdentifiedByOptions:
    """A mixin for classes that store every constructor parameter raw, under its own name.

    A subclass has the options of its base class, and those parameters of its own that it stores in the same way.

    Two objects of the same class are equal when their options are, those in ``_not_identity`` aside. ``repr`` shows the
    first option, and of the others those that differ from their default.
    """

    _not_identity: ClassVar[frozenset[str]] = frozenset()

    def _options(self) -> dict[str, Any]:
        """Every option with its value."""
        # A subclass stores its own parameters after the base class's constructor has asked for the options.
        return {name: getattr(self, name) for name in _defaults(type(self)) if hasattr(self, name)}

    def _identity(self) -> dict[str, Any]:
        """The options that count, with hashable values; for subclasses to refine."""
        return {name: value for name, value in self._options().items() if name not in self._not_identity}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IdentifiedByOptions) or type(other) is not type(self):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((type(self), *self._identity().items()))

    def __repr__(self) -> str:
        (_, first), *others = self._identity().items()
        defaults = _defaults(type(self))
        shown = [repr(first), *(f"{name}={value!r}" for name, value in others if value != defaults[name])]
        return f"{type(self).__name__}({', '.join(shown)})"


def _defaults(cls: type) -> dict[str, Any]:
    """The default of every option: of the base class's named parameters first, then of those that subclasses add."""
    defaults: dict[str, Any] = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(IdentifiedByOptions)]):
        if "__init__" in vars(base):
            _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            named = (one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD))
            defaults |= {parameter.name: parameter.default for parameter in named}
    return defaults
