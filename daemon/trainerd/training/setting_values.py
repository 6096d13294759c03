"""Reads the settings that a script gives: each as the type that it has, or an error that says what is meant.

Pure. A rule of `keep_best`, `keep_every` and `every` may have the form that it has in a spec: a dict.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, get_args

from trainerd.contract.nearest import nearest_hint
from trainerd.contract.policy import Cadence, KeepBest, KeepEvery, Mode, OnTie, RetentionPolicy
from trainerd.errors import UserError

SHOWN_MAX: Final = 80
"""How many characters of a value a message shows."""

SEED_MIN: Final = -(1 << 63)
SEED_MAX: Final = (1 << 64) - 1
"""Smallest and largest seed that torch takes."""

_Rule = TypeVar("_Rule", Cadence, KeepBest, KeepEvery)


class SettingValues:
    """Reads the arguments of one function.

    Args:
        of: Name of the function, such as ``session``.
    """

    def __init__(self, of: str) -> None:
        self._of = of

    def error(self, name: str, value: Any, meant: str, *, hint: str | None = None) -> UserError:
        """Return the error of a value that is not what is meant."""
        try:
            shown = f"{value!r:.{SHOWN_MAX}}"
        except Exception:  # noqa: BLE001 - whatever the user's class raises there
            shown = "…"
        kind = type(value).__name__
        return UserError(
            f"{self._of}({name}={shown}): {meant} is meant, not a value of type {kind}", hint=hint
        )

    def flag(self, name: str, value: Any) -> bool:
        """Return True or False. A text such as ``"no"`` would be true.

        Raises:
            UserError: It is neither.
        """
        if isinstance(value, bool):
            return value
        is_array_bool = type(value).__name__ in {"bool", "bool_"} and hasattr(value, "item")
        if not is_array_bool and not (isinstance(value, int) and value in {0, 1}):
            raise self.error(name, value, "True or False")
        return bool(value)

    def integer(self, name: str, value: Any, *, at_least: int, at_most: int | None = None) -> int:
        """Return an integer; a float without a fraction is one.

        Raises:
            UserError: It is not one, or out of range.
        """
        number = _as_integer(value)
        if number is None:
            raise self.error(name, value, "an integer")
        if number < at_least or (at_most is not None and number > at_most):
            limit = f"at least {at_least}" if number < at_least else f"at most {at_most}"
            raise UserError(f"{self._of}({name}={number}): must be {limit}")
        return number

    def seconds(self, name: str, value: Any) -> float:
        """Return a number of seconds, which may be infinite.

        Raises:
            UserError: It is not a number, or negative.
        """
        is_number = isinstance(value, int | float) or hasattr(type(value), "__float__")
        if isinstance(value, bool) or not is_number:
            raise self.error(name, value, "a number of seconds")
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise self.error(name, value, "a number of seconds") from None
        if math.isnan(number) or number < 0:
            raise UserError(f"{self._of}({name}={number}): must be a non-negative number of seconds")
        return number

    def text(self, name: str, value: Any, meant: str) -> str:
        """Return a text.

        Raises:
            UserError: It is none.
        """
        if not isinstance(value, str):
            raise self.error(name, value, meant)
        return value

    def folder(self, name: str, value: Any) -> str | os.PathLike[str]:
        """Return the path of a folder.

        Raises:
            UserError: It is neither a text nor a path.
        """
        is_path = isinstance(value, str | os.PathLike)
        if not is_path or not isinstance(os.fspath(value), str):
            raise self.error(name, value, "the path of a folder")
        return value  # type: ignore[no-any-return]

    def texts(self, name: str, value: Any, meant: str) -> tuple[str, ...]:
        """Return the texts of a list; a single text is a list of one.

        Raises:
            UserError: It is something else.
        """
        if isinstance(value, str):
            return (value,)
        if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
            raise self.error(name, value, meant)
        found = list(value)
        if not all(isinstance(each, str) for each in found):
            raise self.error(name, value, meant)
        return tuple(found)

    # ------------------------------------------------------------------ policies

    def retention(self, keep_last: Any, keep_best: Any, keep_every: Any) -> RetentionPolicy:
        """Return what is kept.

        Raises:
            UserError: A setting is not valid.
        """
        last = None if keep_last is None else self.integer("keep_last", keep_last, at_least=0)
        return RetentionPolicy(last, self.keep_best(keep_best), self.keep_every(keep_every))

    def cadence(self, value: Any) -> Cadence:
        """Return when to checkpoint.

        Raises:
            UserError: It is not valid.
        """
        if value is None:
            return Cadence()
        rule = self._rule("every", value, Cadence, 'a dict such as {"steps": 200, "seconds": 300}')
        return Cadence(
            steps=self._limit("every", "steps", rule.steps),
            seconds=None if rule.seconds is None else self.seconds("every: seconds", rule.seconds),
            epochs=self._limit("every", "epochs", rule.epochs),
            at_start=self.flag("every: at_start", rule.at_start),
            auto=self.flag("every: auto", rule.auto),
        )

    def keep_best(self, value: Any) -> tuple[KeepBest, ...]:
        """Return which checkpoints are kept by score.

        Raises:
            UserError: It is not valid.
        """
        if value is None:
            return ()
        is_one = isinstance(value, str | bytes | KeepBest | Mapping) or not isinstance(value, Iterable)
        return tuple([self._best(each) for each in ([value] if is_one else value)])

    def _best(self, value: Any) -> KeepBest:
        hint = f"write keep_best=trainerd.KeepBest({value!r:.60})" if isinstance(value, str) else None
        meant = 'trainerd.KeepBest("accuracy", n=2), {"metric": "accuracy", "n": 2} or a list of these'
        rule = self._rule("keep_best", value, KeepBest, meant, hint=hint)
        metric = self.text("keep_best: metric", rule.metric, "the name of a score")
        if not metric or any(letter.isspace() for letter in metric):
            raise UserError(f"{self._of}(keep_best: metric={metric!r:.80}): a name without spaces is meant")
        n = self.integer("keep_best: n", rule.n, at_least=1)
        for name, word, known in (
            ("mode", rule.mode, get_args(Mode)),
            ("on_tie", rule.on_tie, get_args(OnTie)),
        ):
            if word not in known:
                raise self.error(f"keep_best: {name}", word, " or ".join(map(repr, known)))
        return KeepBest(metric, n, rule.mode, rule.on_tie)

    def keep_every(self, value: Any) -> KeepEvery | None:
        """Return which checkpoints are kept for good.

        Raises:
            UserError: It is not valid.
        """
        if value is None:
            return None
        rule = self._rule(
            "keep_every", value, KeepEvery, 'trainerd.KeepEvery(epochs=10) or a dict such as {"epochs": 10}'
        )
        return KeepEvery(
            steps=self._limit("keep_every", "steps", rule.steps),
            seconds=None if rule.seconds is None else self.seconds("keep_every: seconds", rule.seconds),
            epochs=self._limit("keep_every", "epochs", rule.epochs),
        )

    def _limit(self, rule: str, name: str, value: Any) -> int | None:
        return None if value is None else self.integer(f"{rule}: {name}", value, at_least=1)

    def _rule(
        self, name: str, value: Any, kind: type[_Rule], meant: str, *, hint: str | None = None
    ) -> _Rule:
        """Return a rule of this kind, of which no field is checked yet."""
        fields = dataclasses.fields(kind)
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise self.error(name, value, meant, hint=hint)
        known = [field.name for field in fields]
        for key in value:
            if key not in known:
                raise UserError(
                    f"{self._of}({name}=…): unknown key {key!r:.80}", hint=nearest_hint(str(key), known)
                )
        for field in fields:
            if field.default is dataclasses.MISSING and field.name not in value:
                raise UserError(f"{self._of}({name}=…): {field.name} is missing", hint=f"{meant} is meant")
        return kind(**value)


def _as_integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return operator.index(value)
    except TypeError:
        return None
