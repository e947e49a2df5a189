"""Sequences whose items are read from a file when they are used: some of its items, in an order of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T", covariant=True)
Positions = NDArray[np.int64]


class StoredSequence(Sequence[T], Generic[T]):
    """Items at some positions of a file; a slice is a list, so that it is read once."""

    def __init__(self, positions: Positions) -> None:
        self.positions = positions

    @abstractmethod
    def _item(self, position: int) -> T:
        """The item at a position of the file."""

    @abstractmethod
    def _at(self, positions: Positions) -> Self:
        """The items of the same file at other positions."""

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        """Read an item, or those of a slice."""
        if isinstance(index, slice):
            return [self._item(int(position)) for position in self.positions[index]]
        return self._item(int(self.positions[index]))

    def select(self, indices: Positions) -> Self:
        """The items at these indices of this sequence."""
        return self._at(self.positions[indices])

    def followed_by(self, other: Self) -> Self:
        """These items, then those of another sequence of the same file."""
        return self._at(np.concatenate([self.positions, other.positions]))


def selected(items: Sequence[T], indices: Positions) -> Sequence[T]:
    """The items at these indices."""
    if isinstance(items, StoredSequence):
        return cast("Sequence[T]", items.select(indices))
    return [items[index] for index in indices]


def joined(first: Sequence[T], second: Sequence[T]) -> Sequence[T]:
    """The items of both, which are in one file, or in memory."""
    if isinstance(first, StoredSequence) and isinstance(second, StoredSequence):
        return cast("Sequence[T]", first.followed_by(second))
    return [*first, *second]
