"""How long a batch takes, how fast images are decoded, and how wrong both are, learnt while running.

::

    time(n) = pace · (a + b · n)      a: what every batch costs, b: what an instance adds

The shape (a, b) belongs to the model: it is the least-squares line through very many batches. The pace
belongs to the moment: it follows a machine that slows down within a few batches. Learning both with one
memory fails: a short one takes noise for shape, a long one takes minutes to notice a busy machine.

As long as all batches were of one size the line is not determined: then the last known share of b is kept,
at first all, which overestimates larger batches (admission errs on the side of refusing).

From the same line comes how large a batch is worth its members' time. All of them are answered when it ends,
so a batch longer than `_LONG_S` is made no longer than it takes to spread a over enough instances: where a
is small (a ResNet on a CPU), many short batches give the same throughput as few long ones, and the
answers come sooner and more evenly.
"""

from __future__ import annotations

# The memories are about 1 / (1 - forgetting) batches.
_FORGETTING_PACE = 0.95
_FORGETTING_SHAPE = 0.998
# Until so many batches have been seen (those of the warm-up), there is only one pace.
_FIRST_BATCHES = 10
# One measurement counts at most so many times what was expected, so that a stall of the machine is
# not taken for its speed. A real slowdown still gets through, within a few batches.
_OUTLIER = 4.0
# Members of a batch this short do not notice that they wait for each other.
_LONG_S = 0.08
# Share of a in a batch's time below which a larger batch gains nothing.
_SMALL_SHARE = 0.05
# Variance of the batch size below which the slope is noise.
_FLAT = 0.05


class CostModel:
    """The learnt line. Before the first batch it predicts 0: nothing is refused on a guess.

    Attributes:
        best_s: The shortest batch that was ever measured; noise only adds, so this much is certain.
    """

    __slots__ = ("_a", "_b", "_n", "_nn", "_nt", "_pace", "_seen", "_t", "_weight", "best_s")

    def __init__(self) -> None:
        self.best_s = 0.0
        self._a = self._b = 0.0
        self._pace = 1.0
        self._seen = 0
        # Weighted sums: of 1, n, n², time, n · time.
        self._weight = self._n = self._nn = self._t = self._nt = 0.0

    def __repr__(self) -> str:
        return f"<CostModel {self.overhead_s * 1e3:.3f} ms + {self.per_instance_s * 1e3:.3f} ms * n>"

    @property
    def overhead_s(self) -> float:
        """What every batch costs at present."""
        return self._pace * self._a

    @property
    def per_instance_s(self) -> float:
        """What an instance adds at present."""
        return self._pace * self._b

    def predict_s(self, n: int) -> float:
        """Seconds one batch of n instances takes; 0 for n = 0."""
        return self._pace * (self._a + self._b * n) if n else 0.0

    def drain_s(self, n: int, batch_size: int) -> float:
        """Seconds n instances take in full batches and a rest."""
        full, rest = divmod(n, batch_size)
        return full * self.predict_s(batch_size) + self.predict_s(rest)

    def worthwhile_size(self, max_batch_size: int, lanes: int = 1) -> int:
        """The largest batch size, up to the limit, that is worth its members' time.

        Args:
            max_batch_size: The limit.
            lanes: How many such batches share the machine; each takes so many times longer.
        """
        if not self._b:
            return max_batch_size
        in_time = (_LONG_S / lanes - self.overhead_s) / self.per_instance_s
        spread = self._a / self._b * (1 / _SMALL_SHARE - 1)
        return int(min(max_batch_size, max(1.0, in_time, spread)))

    def learn(self, n: int, seconds: float) -> None:
        """Take in one measured batch of n instances."""
        self.best_s = min(self.best_s, seconds) if self._seen else seconds
        self._seen += 1
        expected_s = self.predict_s(n)
        if expected_s:
            seconds = min(seconds, _OUTLIER * expected_s)
            if self._seen > _FIRST_BATCHES:
                self._pace *= 1 + (1 - _FORGETTING_PACE) * (seconds / expected_s - 1)
        self._learn_shape(n, seconds / self._pace)

    def _learn_shape(self, n: int, seconds: float) -> None:
        # Noise is in proportion to the time, so a batch weighs the inverse of its time squared.
        weight = 1.0 / (self._a + self._b * n or seconds or 1.0) ** 2
        self._weight = _FORGETTING_SHAPE * self._weight + weight
        self._n = _FORGETTING_SHAPE * self._n + weight * n
        self._nn = _FORGETTING_SHAPE * self._nn + weight * n * n
        self._t = _FORGETTING_SHAPE * self._t + weight * seconds
        self._nt = _FORGETTING_SHAPE * self._nt + weight * n * seconds
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - mean_n * mean_n
        if variance > _FLAT:
            slope = (self._nt / self._weight - mean_n * mean_t) / variance
        else:
            slope = self._share(mean_n) * mean_t / mean_n
        self._b = min(max(slope, 0.0), mean_t / mean_n)
        self._a = mean_t - self._b * mean_n

    def _share(self, n: float) -> float:
        """The known share of b in the time of a batch of n; all of it where nothing is known."""
        known_s = self._a + self._b * n
        return self._b * n / known_s if known_s else 1.0


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
        share = max(
            1 / self._seen, 1 - _FORGETTING_PACE
        )  # at first the plain mean: one cold image is no pace
        self.interval_s += share * (seconds - self.interval_s)

    def drain_s(self, n: int) -> float:
        """Seconds until n images are decoded."""
        return n * self.interval_s


class Lateness:
    """How far off the predicted time of an answer is, and the margin that follows from it.

    ::

        margin = 6 · mean |error|        of the last batches

    Six, since the errors of neighbours are alike: in simulated overload the late ones are then fewer than
    one in a hundred, at no loss of throughput (there is always somebody waiting).
    """

    __slots__ = ("_error_s",)

    def __init__(self) -> None:
        self._error_s = 0.0

    @property
    def margin_s(self) -> float:
        """What to add to a prediction so that it is seldom exceeded."""
        return 6 * self._error_s

    def learn(self, error_s: float) -> None:
        """An answer came so much later than predicted; negative: earlier."""
        self._error_s += (abs(error_s) - self._error_s) / 32
