"""Prometheus families from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from omnivec.server.histogram import Histogram

Labels = Sequence[str]


def gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=float(value))


def counter(name: str, words: str, labels: Labels, rows: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(name, words, labels=labels)
    for values, count in rows.items():
        family.add_metric(values, float(count))
    return family


def histogram(name: str, words: str, labels: Labels, rows: Mapping[Any, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, words, labels=labels)
    for values, found in rows.items():
        edges = (*map(floatToGoString, found.bounds), "+Inf")
        sums = [float(count) for count in accumulate(found.counts)]
        family.add_metric(values, list(zip(edges, sums, strict=True)), found.total)
    return family


def gauges(name: str, words: str, labels: Labels, rows: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=labels)
    for values, value in rows.items():
        family.add_metric(values, float(value))
    return family
