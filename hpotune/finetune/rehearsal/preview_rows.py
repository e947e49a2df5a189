"""The rows of a study as `hpotune preview` shows them, and the distribution of their lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpotune.finetune.data.tokenization import LeftOutRow, TokenizedRow
from hpotune.finetune.training.loss import Row
from hpotune.records.rehearsal_record import LengthBin, Lengths, PreviewRow, RowReason

BINS = 10
"""At most so many bars in the histogram of lengths."""


def preview_rows(used: Sequence[TokenizedRow], *, labels: Sequence[str] | None) -> list[PreviewRow]:
    """The rows with their text, its counted part, and the number of their tokens after truncation.

    `labels`: the classes in their order; None for a language model.
    """
    return [
        PreviewRow(
            row=row.number,
            text=row.text,
            counted=row.counted if labels is None else _label_text(row.tokens, labels),
            tokens=len(row.tokens.ids),
            parts=list(row.pieces),
            source=row.source,
        )
        for row in used
    ]


def _label_text(row: Row, labels: Sequence[str]) -> str:
    """The class of a row, its classes, or its number."""
    if row.number is not None:
        return f"{row.number:g}"
    return ", ".join(labels[one] for one in (row.targets[:1] if row.classes is None else row.classes))


def row_reasons(left_out: Sequence[LeftOutRow]) -> list[RowReason]:
    """The rows that are left out, in the order of the split."""
    return [
        RowReason(row=row.number, reason=row.reason, source=row.source)
        for row in sorted(left_out, key=lambda row: row.number)
    ]


def lengths(tokens: Sequence[int]) -> Lengths | None:
    """Minimum, median, mean, 95th percentile, maximum and histogram of lengths in tokens; None without rows."""
    if not tokens:
        return None
    counts = np.array(tokens)
    low, high = int(counts.min()), int(counts.max())
    width = max(1, -(-(high + 1 - low) // BINS))
    edges = np.arange(low, high + 1 + width, width)
    rows, _ = np.histogram(counts, bins=edges)
    return Lengths(
        min=low,
        median=float(np.median(counts)),
        mean=float(counts.mean()),
        p95=float(np.percentile(counts, 95)),
        max=high,
        histogram=[
            LengthBin(start=int(start), end=int(end), rows=int(number))
            for start, end, number in zip(edges, edges[1:], rows, strict=False)
        ],
    )
