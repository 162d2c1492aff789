"""How a version of a deployment has done so far, and when its next replica may be started."""

from dataclasses import dataclass, replace
from typing import Final

FIRST_BACKOFF_S: Final = 0.1
LONGEST_BACKOFF_S: Final = 10.0
# A replica that served for this long did not fail as it started: its successor is started at once.
SETTLED_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class History:
    """How one version of a deployment has done so far."""

    version: str
    # A replica of it was ready once: from then on its failures are retried for ever.
    proven: bool = False
    # The wanted number of replicas was there once: less than that is unhealthy, no longer a deployment under way.
    settled: bool = False
    failures: int = 0
    failed_at: float = 0.0
    # So many replicas failed as they started, and their successors wait for `retry_at`; no other start does.
    held_back: int = 0
    # So many starts in a row have failed before the replica was ready.
    failed_starts: int = 0
    reason: str = ""
    refused_config: str = ""
    refused_reason: str = ""

    def after_start(self, now: float) -> "History":
        return replace(self, held_back=max(0, self.held_back - 1)) if now >= self.retry_at else self

    def after_start_failure(self, now: float, reason: str) -> "History":
        return replace(self._after_failure(now, reason), failed_starts=self.failed_starts + 1)

    def _after_failure(self, now: float, reason: str) -> "History":
        held_back = 1 if now >= self.retry_at else self.held_back + 1
        return replace(self, failures=self.failures + 1, failed_at=now, held_back=held_back, reason=reason)

    def after_death(self, lived_s: float, now: float, reason: str) -> "History":
        if lived_s < SETTLED_S:
            return self._after_failure(now, reason)
        return replace(self, failures=self.failures if self.held_back else 0, reason=reason)

    def after_ready(self) -> "History":
        # A version whose replicas come up and fall over at once keeps its count, so that it is not restarted in a rush.
        return replace(self, proven=True, failures=self.failures if self.proven else 0, failed_starts=0)

    def after_settling(self) -> "History":
        return replace(self, settled=True)

    def after_refused_config(self, config_version: str, reason: str) -> "History":
        return replace(self, refused_config=config_version, refused_reason=reason)

    @property
    def retry_at(self) -> float:
        if not self.failures:
            return self.failed_at
        return self.failed_at + min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(self.failures - 1, 16))
