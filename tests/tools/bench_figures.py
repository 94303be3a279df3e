"""The figures of a bench: compared round by round, with their spread, and written as a table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table: a median, its ratio to `to`, and the quartiles of that ratio."""

    row: str
    name: str
    value: float
    unit: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    to: str = ""

    @property
    def repeat(self) -> str:
        """The command that measures this row alone."""
        return f"python tests/bench.py --only {self.row}"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile; one value is all three."""
    several = values if values[1:] else [*values, *values]
    low, middle, high = statistics.quantiles(several, n=4, method="inclusive")
    return low, middle, high


def compared(
    row: str, what: str, unit: str, rounds: Mapping[str, Sequence[float]], to: str
) -> list[Figure]:
    """A figure for each contestant: its ratio to one of them, taken round by round."""
    figures = []
    for name, values in rounds.items():
        ratios = [mine / base for mine, base in zip(values, rounds[to], strict=True)]
        low, ratio, high = quartiles(ratios)
        value = statistics.median(values)
        figures.append(Figure(row, f"{what}{name}", value, unit, ratio, low, high, to))
    return figures


def percentile(values: Sequence[float], share: float) -> float:
    """The value, in milliseconds, below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


def written(figures: Sequence[Figure], titles: Mapping[str, str]) -> str:
    """The table, a paragraph for each row under its title."""
    lines, row = [], ""
    for figure in figures:
        if figure.row != row:
            row = figure.row
            lines += ["", titles[row].rstrip("."), f"    {figure.repeat}"]
        ratio = f"{figure.ratio:8.2f} x" if figure.ratio is not None else " " * 10
        spread = f"{figure.low:.2f}-{figure.high:.2f}" if figure.low is not None else ""
        digits = 0 if figure.value == int(figure.value) or figure.value >= 1000 else 2
        value = f"{figure.value:,.{digits}f} {figure.unit}"
        lines.append(f"  {figure.name:<64}{ratio}  {spread:<12} {value:>14}")
    return "\n".join(lines[1:])
