"""Ranges as Python values: `hpotune.search.double`, `int` and `categorical`, by the names of Katib's search API.

A range stands in the argument of `parameters`, or in a field of transformers.TrainingArguments and peft.LoraConfig.
These classes compare and convert their values when they are made, so a range is a number, text or list like any other
value of its field: the middle of the range, or the first option. What it stands for is in `study_value`. Where a class
replaces the value by another one (the text of `optim` by a member of an enum, a list by a set), the range first notes
itself on the object that holds it, under the name of the field (`held_ranges`). Arithmetic with a range would lose it,
so it is an error. Loads nothing.
"""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from hpotune.errors import StudyFileError

_HELD = "_hpotune_ranges"
_FRAMES = 8
"""Calls between the conversion of a value and the method of the object that holds it, at most."""
Spec: TypeAlias = dict[str, Any]
"""A range as a study file writes it: `{float: [1e-5, 5e-5], log: true}`."""


class Searched:
    """What every range has, beside the number, text or list that it is."""

    study_value: Any
    """A `Spec`; the only value of a range that has one."""
    call: str
    """As the program wrote it, for messages."""

    def __repr__(self) -> str:
        """The call that made it."""
        return self.call

    __str__ = __repr__


def held_ranges(holder: object) -> Mapping[str, Searched]:
    """Field -> range, for fields whose value the object has replaced by another one."""
    found: Mapping[str, Searched] = vars(holder).get(_HELD, {})
    return found


def _note_holder(value: Searched) -> None:
    """Write a range down on the object that is about to replace it, if there is one."""
    frame = sys._getframe(2)
    for _ in range(_FRAMES):
        holder = frame.f_locals.get("self")
        fields = getattr(holder, "__dict__", {}) if not isinstance(holder, Searched) else {}
        for name in [name for name, held in fields.items() if held is value]:
            fields.setdefault(_HELD, {})[name] = value
        if frame.f_back is None:
            return
        frame = frame.f_back


def _no_arithmetic(self: Searched, *others: object) -> NoReturn:
    raise StudyFileError(
        f"{self!r}: is a range, which has no value yet: write what follows from it in the study file, such as "
        "study={'lora': {'lora_alpha': {'expr': '2 * lora.r'}}}"
    )


_OPERATORS = "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow neg abs"


class _Number(Searched):
    pass


for _name in _OPERATORS.split():
    setattr(_Number, f"__{_name}__", _no_arithmetic)


class _Float(_Number, builtins.float):
    def __float__(self) -> builtins.float:
        _note_holder(self)
        return builtins.float.__add__(self, 0.0)

    def __int__(self) -> builtins.int:
        _note_holder(self)
        return math.trunc(self)

    __hash__ = builtins.float.__hash__


class _Int(_Number, builtins.int):
    def __int__(self) -> builtins.int:
        _note_holder(self)
        return builtins.int.__add__(self, 0)

    def __float__(self) -> builtins.float:
        _note_holder(self)
        return builtins.int.__truediv__(self, 1)

    __hash__ = builtins.int.__hash__


class _Text(Searched, str):
    def __hash__(self) -> builtins.int:  # an enum looks its member up by it
        _note_holder(self)
        return str.__hash__(self)

    __str__ = str.__str__


class _List(Searched, builtins.list[Any]):
    def __iter__(self) -> Any:  # noqa: ANN401 - the iterator of a list; a set is made from it
        _note_holder(self)
        return builtins.list.__iter__(self)


class _Mapping(Searched, dict[str, Any]):
    pass


class _Other(Searched):
    """A choice whose options are all null."""


_KINDS: tuple[tuple[type, type[Searched]], ...] = (
    (builtins.bool, _Int),
    (builtins.int, _Int),
    (builtins.float, _Float),
    (str, _Text),
    (builtins.list, _List),
    (dict, _Mapping),
)


def _range(value: object, spec: Any, call: str) -> Any:  # noqa: ANN401 - it stands for any value
    """A range that behaves as `value`."""
    kind = next((kind for of, kind in _KINDS if isinstance(value, of)), _Other)
    found = kind() if kind is _Other else kind(value)  # type: ignore[call-arg]
    found.study_value, found.call = spec, call
    return found


def _call(name: str, **arguments: object) -> str:
    given = ", ".join(
        f"{key}={value!r}" for key, value in arguments.items() if value is not None and value is not False
    )
    return f"search.{name}({given})"


def double(
    min: builtins.float,
    max: builtins.float,
    step: builtins.float | None = None,
    *,
    log: bool = False,
    prior: builtins.float | None = None,
) -> Any:  # noqa: ANN401 - as Katib's; it stands for a number
    """A number between `min` and `max`, bounds included.

    `step`: only multiples of it above `min`. `log`: on a logarithmic scale. `prior`: the value believed to be good,
    which is tried first; the last two are not in Katib.
    Raises: StudyFileError.
    """
    call = _call("double", min=min, max=max, step=step, log=log, prior=prior)
    low, high = (_checked(value, call) for value in (min, max))
    spec = _spec("float", low, high, step=step, log=log, prior=prior, call=call)
    middle = math.sqrt(low * high) if log else (low + high) / 2
    return _range(builtins.float(middle if prior is None else prior), spec, call)


def int(
    min: builtins.int,
    max: builtins.int,
    step: builtins.int | None = None,
    *,
    log: bool = False,
    prior: builtins.int | None = None,
) -> Any:  # noqa: ANN401 - as Katib's; it stands for a number
    """A whole number between `min` and `max`, bounds included; the options are those of `double`.

    Raises: StudyFileError.
    """
    call = _call("int", min=min, max=max, step=step, log=log, prior=prior)
    low, high = (_checked(value, call, whole=True) for value in (min, max))
    spec = _spec("int", low, high, step=step, log=log, prior=prior, call=call)
    middle = math.isqrt(low * high) if log else (low + high) // 2
    return _range(middle if prior is None else prior, spec, call)


def categorical(
    list: Sequence[Any],
    *,
    prior: Any = None,  # noqa: ANN401 - one of the options
    ordered: bool = False,
) -> Any:  # noqa: ANN401 - as Katib's; it stands for one of the options
    """One of the options of `list`, which may be lists themselves.

    `prior`: the option believed to be good, which is tried first. `ordered`: neighbouring options are similar. Both
    are not in Katib.
    Raises: StudyFileError.
    """
    call = _call("categorical", list=list, prior=prior, ordered=ordered)
    options = [*list] if isinstance(list, (builtins.list, tuple)) else []
    if not options:
        raise StudyFileError(f"{call}: needs a list with at least one option")
    spec: Any = {"choice": options}
    spec |= {"prior": prior} if prior is not None else {}
    spec |= {"ordered": True} if ordered else {}
    spec = spec if len(options) > 1 else options[0]
    first = prior if prior is not None else next((one for one in options if one is not None), None)
    return _range(first, spec, call)


def _checked(value: Any, call: str, *, whole: bool = False) -> Any:  # noqa: ANN401 - the user's value
    """A bound.

    Raises: StudyFileError if it is no number, or no whole number where that is needed.
    """
    wanted = builtins.int if whole else (builtins.int, builtins.float)
    if isinstance(value, bool) or not isinstance(value, wanted) or not math.isfinite(value):
        raise StudyFileError(
            f"{call}: {value!r} is no {'whole ' if whole else ''}number; min and max need one"
        )
    return value


def _spec(
    kind: str,
    low: Any,  # noqa: ANN401 - a number
    high: Any,  # noqa: ANN401 - a number
    *,
    step: object,
    log: bool,
    prior: object,
    call: str,
) -> Any:  # noqa: ANN401 - a Spec, or a number
    if low > high:
        raise StudyFileError(f"{call}: min is above max; exchange them")
    if log and low <= 0:
        raise StudyFileError(f"{call}: log=True needs a min above 0, e.g. 1e-6")
    if log and step is not None:
        raise StudyFileError(f"{call}: step and log exclude each other; remove one")
    convert = builtins.float if kind == "float" else builtins.int
    if low == high:
        return convert(low)
    spec: Spec = {kind: [convert(low), convert(high)]}
    spec |= {"log": True} if log else {}
    spec |= {"step": step} if step is not None and not (kind == "int" and step == 1) else {}
    return spec | ({"prior": prior} if prior is not None else {})
