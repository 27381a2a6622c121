"""The station's figures for Prometheus: every name, its type, its labels and what it means.

docs/monitoring.md, the dashboard and the alert rules use exactly these names; a test compares them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pipeline.monitor.figures import LATENCY_BOUNDS_S, STATES, Snapshot
from pipeline.plugins import vendor
from pipeline.types import Verdict

Samples: TypeAlias = Mapping[tuple[str, ...], float]
"""Label values to value."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; ``read`` takes its samples from a snapshot. A counter's name ends in _total."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...]
    read: Callable[[Snapshot], Samples]


def _one(read: Callable[[Snapshot], float]) -> Callable[[Snapshot], Samples]:
    return lambda s: {(): float(read(s))}


def _by(read: Callable[[Snapshot], Mapping[str, float]]) -> Callable[[Snapshot], Samples]:
    return lambda s: {(label,): float(value) for label, value in read(s).items()}


HISTOGRAM = "lineguard_decision_seconds"
HISTOGRAM_HELP = "From the exposure that led to the decision, to the reject command."

METRICS = (
    Metric(
        "lineguard_state", "gauge", "1 for the state that the station is in, 0 for the others.",
        ("state",), _by(lambda s: {name: name == s.state for name in STATES}),
    ),
    Metric(
        "lineguard_ready", "gauge", "1 while verdicts can be trusted (ready or degraded).",
        (), _one(lambda s: s.ready),
    ),
    Metric(
        "lineguard_fault", "gauge", "1 for each part of the station that is at fault.",
        ("part",), _by(lambda s: dict.fromkeys(s.faults, 1)),
    ),
    Metric(
        "lineguard_frozen_workers", "gauge", "Threads that have not ended their step for too long.",
        (), _one(lambda s: len(s.frozen)),
    ),
    Metric(
        "lineguard_frames_captured_total", "counter", "Frames that the camera gave.",
        (), _one(lambda s: s.captured),
    ),
    Metric(
        "lineguard_frames_inspected_total", "counter", "Frames that were looked at.",
        (), _one(lambda s: s.inspected),
    ),
    Metric(
        "lineguard_frames_dropped_total", "counter", "Frames that were not looked at, by reason.",
        ("reason",), _by(lambda s: s.dropped),
    ),
    Metric(
        "lineguard_exposures_lost_total", "counter", "Gaps in the camera's own numbering.",
        (), _one(lambda s: s.lost_exposures),
    ),
    Metric(
        "lineguard_camera_reopened_total", "counter", "Times that the camera was opened again.",
        (), _one(lambda s: s.reopened),
    ),
    Metric(
        "lineguard_frame_age_seconds", "gauge", "Since the last frame came; absent before one did.",
        (), lambda s: {} if s.frame_age_s is None else {(): s.frame_age_s},
    ),
    Metric(
        "lineguard_parts_total", "counter", "Parts that were decided, by verdict.",
        ("verdict",), _by(lambda s: {v.value: s.verdicts.get(v.value, 0) for v in Verdict}),
    ),
    Metric(
        "lineguard_records_waiting", "gauge", "Records that a receiver has not confirmed yet.",
        ("receiver",), _by(lambda s: s.waiting),
    ),
    Metric(
        "lineguard_model_info", "gauge", "1, with what runs in its labels.",
        ("bundle", "sha256", "runtime"),
        lambda s: {(s.model.bundle, s.model.sha256, s.model.runtime): 1.0},
    ),
    Metric(
        "lineguard_model_signed", "gauge", "1 if a trusted key signed the model bundle.",
        (), _one(lambda s: s.model.signed_by is not None),
    ),
    Metric(
        "lineguard_golden_pictures", "gauge", "Golden pictures that the self-test asks for.",
        (), _one(lambda s: s.model.golden_pictures),
    ),
    Metric(
        "lineguard_self_tests_passed_total", "counter",
        "Self-tests that the model passed, the one before the start included.",
        (), _one(lambda s: s.self_tests),
    ),
    Metric(
        "lineguard_second_looks_total", "counter",
        "Pictures that left the model in doubt, so that a more exact artefact looked again.",
        (), _one(lambda s: s.rechecks),
    ),
    Metric(
        "lineguard_threads", "gauge", "Threads of the station's process.",
        (), _one(lambda s: threading.active_count()),
    ),
)  # fmt: skip


class Exposition:
    """Writes snapshots in Prometheus' text format, with the figures of the process.

    Raises:
        MissingExtra: the package ``prometheus_client`` is not installed.
    """

    def __init__(self) -> None:
        self._prometheus = vendor("prometheus_client", "monitor")
        self._families = vendor("prometheus_client.core", "monitor")

    def text(self, snapshot: Snapshot) -> bytes:
        """Return all metrics of a snapshot."""
        registry = self._prometheus.CollectorRegistry()
        registry.register(_Collected(self._families, snapshot))
        self._prometheus.ProcessCollector(registry=registry)
        return bytes(self._prometheus.generate_latest(registry))


class _Collected:
    """One snapshot in the form that a Prometheus registry asks for."""

    def __init__(self, families: Any, snapshot: Snapshot) -> None:
        self._families = families
        self._snapshot = snapshot

    def collect(self) -> Iterator[Any]:
        for metric in METRICS:
            counter = metric.kind == "counter"
            kind = (
                self._families.CounterMetricFamily
                if counter
                else (self._families.GaugeMetricFamily)
            )
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in metric.read(self._snapshot).items():
                family.add_metric(labels, value)
            yield family
        yield self._latencies()

    def _latencies(self) -> Any:
        seen = self._snapshot.latencies
        bounds = [str(bound) for bound in LATENCY_BOUNDS_S]
        buckets = [*zip(bounds, seen.below, strict=True), ("+Inf", seen.count)]
        return self._families.HistogramMetricFamily(
            HISTOGRAM, HISTOGRAM_HELP, buckets=buckets, sum_value=seen.sum_s
        )
