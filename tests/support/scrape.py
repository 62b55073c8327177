"""``/metrics`` as the official parser reads it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """One answer of ``/metrics``."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, Metric] = {}
        for family in text_string_to_metric_families(text):
            assert family.name not in self.families, f"{family.name} twice"
            self.families[family.name] = family

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels."""
        return sum(value for found, value in self._samples(name) if labels.items() <= found.items())

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Values by these labels."""
        found: dict[tuple[str, ...], float] = {}
        for said, value in self._samples(name):
            key = tuple(said[label] for label in labels)
            found[key] = found.get(key, 0) + value
        return found

    def _samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        for family in self.families.values():
            for sample in family.samples:
                if sample.name == name:
                    yield sample.labels, sample.value

    def documented_names(self) -> dict[str, tuple[str, frozenset[str]]]:
        """Name as it is documented → type and labels."""
        found = {}
        for family in self.families.values():
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, frozenset(labels))
        return found
