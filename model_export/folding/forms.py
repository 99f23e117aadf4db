"""The forms worth considering for each value: all that some operation could wish for, carried everywhere.

Every port wishes to see the original, every rule may suggest a form that makes it cheap. Each wish is carried
backward through producers and forward through consumers as far as it gets. The forms are few: a wish ends at
the next layer that takes any form.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import product

import torch

from model_export.folding.algebra import Affine, compressed
from model_export.folding.network import Network, Operation, Port, Value
from model_export.folding.rules import Carrier, Rearranger, Stored
from model_export.folding.rules.linear import Linear

# In a long residual chain a value is wished for in many forms; beyond these nothing is gained.
_MAX_FORMS = 14
# Scales and shifts beyond this have left the range of anything but float64.
_MAX_SIZE = 1e13

Forms = dict[Value, list[Affine]]


def collect_forms(network: Network) -> Forms:
    """All forms worth considering, the original's own first."""
    return _Collector(network).collect()


def plain_forms(network: Network) -> Forms:
    """Only the original's own forms and what each port sees: nothing is carried past an operator."""
    return {
        value: [
            Affine.identity(value.rank),
            *(port.view for port in value.ports if not port.view.is_identity),
        ]
        for value in network.values
    }


class _Collector:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._forms: Forms = {value: [Affine.identity(value.rank)] for value in network.values}
        self._partial: dict[Value, list[Affine]] = {value: [] for value in network.values}
        self._queue: deque[tuple[Value, Affine]] = deque()

    def collect(self) -> Forms:
        for value in self._network.values:
            self._queue.append((value, self._forms[value][0]))
        for operation in self._network.operations:
            self._seed(operation)
        while self._queue:
            value, form = self._queue.popleft()
            self._carry_back(value, form)
            # A layer writes whatever its only reader wishes for: nothing has to be carried to it.
            if not isinstance(value.operation.rule, Linear) or len(value.ports) > 1:
                for port in list(value.ports):
                    self._carry_on(port, form)
        return self._forms

    def _seed(self, operation: Operation) -> None:
        for port in operation.ports:
            # What the original reads must be among the forms, whatever their number and its size.
            self._enter(port.value, port.view, is_needed=True)
        if operation.output is not None and isinstance(operation.rule, Carrier):
            for form in operation.rule.output_suggestions():
                self._offer(operation.output, form)

    def _carry_back(self, value: Value, form: Affine) -> None:
        rule = value.operation.rule
        if not isinstance(rule, Carrier):
            return
        for wish in (form, *rule.near(form)):
            self._offer(value, wish)
            for seen in rule.wishes(wish):
                for port, part in zip(value.operation.ports, seen, strict=True):
                    self._offer(port.value, port.form(part))
        for index, port in enumerate(value.operation.ports):
            for other in list(self._forms[port.value]):
                self._complete(value.operation, rule, index, other, form)

    def _carry_on(self, port: Port, form: Affine) -> None:
        rule, output = port.operation.rule, port.operation.output
        if not isinstance(rule, Carrier) or output is None:
            return
        seen = port.stored(form)
        for near in rule.near(seen.form):
            self._offer(port.value, port.form(near))
        index = port.operation.ports.index(port)
        for result in rule.company(index, seen):
            self._offer(output, result)
        for result in list(self._forms[output]):
            self._complete(port.operation, rule, index, form, result)
        for stored in self._with_company(port, seen):
            arriving = rule.forward(stored)
            if arriving is not None:
                self._enter(output, arriving)

    def _complete(
        self, operation: Operation, rule: Carrier, index: int, form: Affine, result: Affine
    ) -> None:
        """The forms of the other inputs that one input's and the result's form call for."""
        if result.has_shift:
            return  # else one shift would call for another without end
        for other, seen in rule.complement(index, operation.ports[index].stored(form), result):
            port = operation.ports[other]
            self._offer(port.value, port.form(seen))

    def _with_company(self, port: Port, seen: Stored) -> Iterator[Sequence[Stored]]:
        """This input's form together with forms of the other inputs."""
        choices: list[list[Stored]] = []
        for other in port.operation.ports:
            if other is port:
                choices.append([seen])
            else:
                choices.append([other.stored(form) for form in self._company(other)])
        if isinstance(port.operation.rule, Rearranger) and len(choices) > 2:
            # Each input by itself: all others alike.
            yield [c[0] for c in choices]
            yield [c[-1] if len(c) > 1 else c[0] for c in choices]
        else:
            yield from product(*choices)

    def _company(self, port: Port) -> list[Affine]:
        return self._forms[port.value]

    def _offer(self, value: Value, form: Affine) -> None:
        """A wish; NaN where nothing is wished for."""
        gap = form.scale.isnan() | form.shift.isnan()
        if bool(gap.all()):
            return
        if bool(gap.any()):
            self._offer_partial(value, form)
        else:
            self._enter(value, form)

    def _offer_partial(self, value: Value, form: Affine) -> None:
        """A form of some channels: the others as they are, or as other partial forms have them."""
        identity = Affine.identity(value.rank)
        partial = self._partial[value]
        if _filled(form, identity).is_identity or any(_equal(form, other) for other in partial):
            return
        self._enter(value, _filled(form, identity))
        self._carry_partial_back(value, form)
        joined = form
        for other in reversed(self._partial[value]):
            joined = _filled(joined, other)
        self._partial[value].append(form)
        self._enter(value, _filled(joined, identity))

    def _carry_partial_back(self, value: Value, form: Affine) -> None:
        """The gaps stay open on the way back: another reader of the same value may fill them."""
        rule = value.operation.rule
        if isinstance(rule, Carrier):
            for seen in rule.wishes(form):
                for port, part in zip(value.operation.ports, seen, strict=True):
                    self._offer(port.value, port.form(part))

    def _enter(self, value: Value, form: Affine, *, is_needed: bool = False) -> None:
        form = Affine(compressed(form.scale), compressed(form.shift))
        forms = self._forms[value]
        if not is_needed and (len(forms) >= _MAX_FORMS or not _is_sane(form)):
            return
        if any(form.same(other, value.known) for other in forms):
            return
        forms.append(form)
        self._queue.append((value, form))


def _equal(form: Affine, other: Affine) -> bool:
    pairs = (form.scale, other.scale), (form.shift, other.shift)
    return all(a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all()) for a, b in pairs)


def _filled(form: Affine, other: Affine) -> Affine:
    gap = form.scale.isnan() | form.shift.isnan()
    return Affine(torch.where(gap, other.scale, form.scale), torch.where(gap, other.shift, form.shift))


def _is_sane(form: Affine) -> bool:
    sizes = form.scale.abs(), torch.nan_to_num(form.shift).abs()
    return bool((torch.maximum(*sizes) < _MAX_SIZE).all())
