"""The end of an item's way: its outcome recorded, or held back while it may be the whole run's fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import get_cancelled_exc_class

from batchrunner.errors import StoreError
from batchrunner.limits.breaker import Refusals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchrunner.records import Outcome
    from batchrunner.runner.brakes import Brakes
    from batchrunner.runner.ports import Watch


class Recorder:
    """Takes outcomes to the store and tells the watch. A store that fails drains the run."""

    def __init__(self, record: Callable[[Outcome], Awaitable[None]], watch: Watch, brakes: Brakes) -> None:
        self.record, self._watch, self._brakes = record, watch, brakes
        self.refusals = Refusals()

    async def settle(self, outcome: Outcome, label: str) -> None:
        """Record an outcome that came over the lane of that label, unless it is held back."""
        if not self._held_back(outcome, label):
            await self.write(outcome)

    def _held_back(self, outcome: Outcome, label: str) -> bool:
        """Whether a refusal may yet turn out to be the whole run's."""
        if outcome.status != "rejected" or not self.refusals.counts(outcome.error_type):
            return False
        held = self.refusals.hold(outcome)
        end = self.refusals.judge(outcome, label)
        if end is not None:
            self._brakes.drain(end)
        return held or end is not None

    async def write(self, outcome: Outcome) -> None:
        """Returns once a kill does not take the outcome any more, or once the run drains."""
        try:
            await self.record(outcome)
        except StoreError as error:
            self._brakes.drain(error)
            # What was answered is billed, and no record says so.
            self._watch.left(possibly_billed=outcome.possibly_billed + (outcome.attempts > 0))
            return
        except get_cancelled_exc_class():
            self._tell(outcome)  # It was written all the same.
            raise
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        if outcome.status == "unfinished":
            self._watch.answered(outcome)
        else:
            self._watch.settled(outcome)

    async def close(self) -> None:
        """Refusals that showed no pattern are their items' own; those that ended the run are nobody's."""
        for outcome in self.refusals.release():
            if self._brakes.cause is None:
                await self.write(outcome)
            else:
                self._watch.left(possibly_billed=outcome.possibly_billed)
