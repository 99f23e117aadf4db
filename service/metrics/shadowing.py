"""What the metrics say of a shadow, as one table: the sums of all workers, since they started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from service.metrics.summing import Snapshot


@dataclass(frozen=True, slots=True)
class ShadowFigures:
    """A candidate beside the live version. Means are None before there is anything to average.

    Attributes:
        agreed: Images for which both name the same label.
        differed: Images for which they do not.
        dropped: Copies for which there was no time or no room.
        failed: Copies that the candidate did not answer.
        distance_mean: Between their probabilities, 0…1.
        live_inference_s: Mean seconds of the live version's inference.
        candidate_inference_s: Mean seconds of the candidate's.
    """

    agreed: int
    differed: int
    dropped: int
    failed: int
    distance_mean: float | None
    live_inference_s: float | None
    candidate_inference_s: float | None

    @property
    def agreement(self) -> float | None:
        """The share of compared images with the same label."""
        return _ratio(self.agreed, self.agreed + self.differed)


def shadow_figures(of: Snapshot, model: str, version: str, candidate: str) -> ShadowFigures:
    """The figures of one candidate behind one live version."""
    wanted = {"model": model, "version": version, "candidate": candidate}

    def read(family: str, sample: str, **labels: str) -> float:
        return sum(_values(of, f"foldserve_shadow_{family}", sample, {**wanted, **labels}))

    def mean(family: str, **labels: str) -> float | None:
        return _ratio(read(family, "_sum", **labels), read(family, "_count", **labels))

    def outcome(name: str) -> int:
        return int(read("images", "_total", outcome=name))

    return ShadowFigures(
        agreed=outcome("agreed"),
        differed=outcome("differed"),
        dropped=outcome("dropped"),
        failed=outcome("failed"),
        distance_mean=mean("distance"),
        live_inference_s=mean("inference_seconds", side="live"),
        candidate_inference_s=mean("inference_seconds", side="candidate"),
    )


def _values(of: Snapshot, family: str, sample: str, wanted: dict[str, str]) -> Iterator[float]:
    for name, labels, value in of[family]["samples"]:
        if name == family + sample and wanted.items() <= labels.items():
            yield float(value)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
