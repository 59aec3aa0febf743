"""What a measurement comes to: a figure with its reference and its aim."""
import math
import statistics
from dataclasses import dataclass


@dataclass
class Figure:
    """`reference` was measured in the same run, interleaved with `value`; `aim` is the most that `value`, or with `of_ratio` the
    ratio, should be."""

    name: str
    value: float
    unit: str
    reference: float = None
    aim: float = None
    of_ratio: bool = False
    note: str = ""

    @property
    def ratio(self):
        return self.value / self.reference if self.reference else None

    def verdict(self):
        if self.aim is None:
            return ""
        return "ok" if (self.ratio if self.of_ratio else self.value) <= self.aim else "MISSED"

    def row(self):
        aim = "" if self.aim is None else f"<= {self.aim:g}" + (" x" if self.of_ratio else f" {self.unit}")
        return (self.name, number(self.value), self.unit, number(self.reference), number(self.ratio), aim, self.verdict(), self.note)

    def as_json(self):
        row = {"name": self.name, "value": round(self.value, 4), "unit": self.unit}
        if self.reference is not None:
            row.update(reference=round(self.reference, 4), ratio=round(self.ratio, 4))
        return row


def number(value):
    return "" if value is None else f"{value:.2f}"


def median(samples):
    return statistics.median(samples)


def p99(samples):
    """The value that 99 of 100 samples do not exceed."""
    return sorted(samples)[math.ceil(0.99 * len(samples)) - 1]


def spread(samples):
    return f"n={len(samples)} p50={median(samples):.2f} max={max(samples):.2f}"
