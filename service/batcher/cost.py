"""How long a batch takes, how fast images are decoded, and how wrong both are, learnt while running.

::

    time(n) = a + b · n        a: what every batch costs, b: what an instance adds

a and b are the weighted least-squares line through the batches seen, each batch weighing
``forgetting`` times as much as the one after it. Both are kept ≥ 0. As long as all batches were of
one size, the line is not determined: then the last known share of b is kept, at first all, which
overestimates larger batches (admission errs on the side of refusing) until one has been seen.

From the same line comes how large a batch is worth its members' time. All of them are answered when it ends,
so a batch longer than `_LONG_S` is made no longer than it takes to spread a over enough instances: where a
is small (a ResNet on a CPU), many short batches give the same throughput as few long ones, and the
answers come sooner and more evenly, with the next images being decoded in between.
"""

from __future__ import annotations

# The memory is about 1 / (1 - forgetting) batches: long enough to average out noise, short enough
# to follow a machine that slows down.
_FORGETTING = 0.95
# One measurement counts at most so many times what was expected, so that a stall of the machine is
# not taken for its speed. A real slowdown still gets through, within a few batches.
_OUTLIER = 4.0
# Members of a batch this short do not notice that they wait for each other.
_LONG_S = 0.05
# Share of a in a batch's time below which a larger batch gains nothing.
_SMALL_SHARE = 0.02
# Variance of the batch size below which the slope is noise.
_FLAT = 0.05


class CostModel:
    """The learnt line. Before the first batch it predicts 0: nothing is refused on a guess.

    Attributes:
        overhead_s: a.
        per_instance_s: b.
        best_s: The shortest batch that was ever measured; noise only adds, so this much is certain.
    """

    __slots__ = ("_n", "_nn", "_nt", "_t", "_weight", "best_s", "overhead_s", "per_instance_s")

    def __init__(self) -> None:
        self.best_s = 0.0
        self.overhead_s = 0.0
        self.per_instance_s = 0.0
        # Weighted sums: of 1, n, n², time, n · time.
        self._weight = self._n = self._nn = self._t = self._nt = 0.0

    def __repr__(self) -> str:
        return f"<CostModel {self.overhead_s * 1e3:.3f} ms + {self.per_instance_s * 1e3:.3f} ms * n>"

    def predict_s(self, n: int) -> float:
        """Seconds one batch of n instances takes; 0 for n = 0."""
        return self.overhead_s + self.per_instance_s * n if n else 0.0

    def drain_s(self, n: int, batch_size: int) -> float:
        """Seconds n instances take in full batches and a rest."""
        full, rest = divmod(n, batch_size)
        return full * self.predict_s(batch_size) + self.predict_s(rest)

    def worthwhile_size(self, max_batch_size: int) -> int:
        """The largest batch size, up to the limit, that is worth its members' time."""
        if not self.per_instance_s:
            return max_batch_size
        in_time = (_LONG_S - self.overhead_s) / self.per_instance_s
        spread = self.overhead_s / self.per_instance_s * (1 / _SMALL_SHARE - 1)
        return int(min(max_batch_size, max(1.0, in_time, spread)))

    def learn(self, n: int, seconds: float) -> None:
        """Take in one measured batch of n instances."""
        self.best_s = min(self.best_s, seconds) if self._weight else seconds
        if self._weight:
            seconds = min(seconds, _OUTLIER * self.predict_s(n))
        self._weight = _FORGETTING * self._weight + 1.0
        self._n = _FORGETTING * self._n + n
        self._nn = _FORGETTING * self._nn + n * n
        self._t = _FORGETTING * self._t + seconds
        self._nt = _FORGETTING * self._nt + n * seconds
        self._fit()

    def _fit(self) -> None:
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - mean_n * mean_n
        if variance > _FLAT:
            slope = (self._nt / self._weight - mean_n * mean_t) / variance
        else:
            growing_s = self.per_instance_s * mean_n
            known_s = self.overhead_s + growing_s
            share = growing_s / known_s if known_s else 1.0
            slope = share * mean_t / mean_n
        self.per_instance_s = min(max(slope, 0.0), mean_t / mean_n)
        self.overhead_s = mean_t - self.per_instance_s * mean_n


class DecodePace:
    """Seconds between one decoded image and the next, while there is always one being decoded.

    Where images are large, decoding limits the service and not the engine; a wait predicted from the
    engine alone would admit far more than can be answered in time.
    """

    __slots__ = ("_seen", "_since", "interval_s")

    def __init__(self) -> None:
        self.interval_s = 0.0
        self._since = 0.0
        self._seen = 0

    def resume(self, now: float) -> None:
        """Decoding begins again after a pause."""
        self._since = now

    def learn(self, now: float) -> None:
        """An image is decoded."""
        seconds = now - self._since
        self._since = now
        self._seen += 1
        share = max(1 / self._seen, 1 - _FORGETTING)  # at first the plain mean: one cold image is no pace
        self.interval_s += share * (seconds - self.interval_s)

    def drain_s(self, n: int) -> float:
        """Seconds until n images are decoded."""
        return n * self.interval_s


class Lateness:
    """How much later than predicted answers come: TCP's estimate of a round trip (RFC 6298), of an error.

    ::

        margin = mean error + 4 · mean deviation, never below 0
    """

    __slots__ = ("_deviation_s", "_mean_s")

    def __init__(self) -> None:
        self._mean_s = 0.0
        self._deviation_s = 0.0

    @property
    def margin_s(self) -> float:
        """What to add to a prediction so that it is seldom exceeded."""
        return max(0.0, self._mean_s + 4 * self._deviation_s)

    def learn(self, error_s: float) -> None:
        """An answer came so much later than predicted; negative: earlier."""
        surprise_s = error_s - self._mean_s
        self._deviation_s += (abs(surprise_s) - self._deviation_s) / 4
        self._mean_s += surprise_s / 8
