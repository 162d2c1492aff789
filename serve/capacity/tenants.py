"""What each tenant has waiting and running, beside what it may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """How a tenant counts beside others, and what it may have; None: as much as there is."""

    weight: float = 1.0
    waiting_tokens: int | None = None
    waiting_requests: int | None = None
    running_tokens: int | None = None
    """A request beyond it waits, and others pass it."""

    def times(self, size: int) -> TenantLimits:
        """Where what is counted takes so many tokens each."""
        waiting, running = self.waiting_tokens, self.running_tokens
        if waiting is running is None:
            return self
        return replace(
            self,
            waiting_tokens=None if waiting is None else waiting * size,
            running_tokens=None if running is None else running * size,
        )


class Tenant:
    """As long as it has something."""

    __slots__ = ("limits", "running", "running_tokens", "waiting", "waiting_tokens")

    def __init__(self, limits: TenantLimits) -> None:
        self.limits = limits
        self.waiting = self.waiting_tokens = self.running = self.running_tokens = 0

    def begin(self, tokens: int, count: int = 1) -> None:
        """So many of its requests run, each of which takes `tokens`."""
        self.running += count
        self.running_tokens += count * tokens

    def end(self, tokens: int, count: int = 1) -> None:
        self.running -= count
        self.running_tokens -= count * tokens

    def wait(self, tokens: int) -> None:
        """One more of its requests waits."""
        self.waiting += 1
        self.waiting_tokens += tokens

    def leave(self, tokens: int) -> None:
        """One of its requests does not wait any more."""
        self.waiting -= 1
        self.waiting_tokens -= tokens

    def set_limits(self, limits: TenantLimits) -> None:
        self.limits = limits

    def may_run(self, tokens: int) -> bool:
        """Whether it may run so many more. With nothing running it may, however many they are."""
        most = self.limits.running_tokens
        return most is None or not self.running or self.running_tokens + tokens <= most


class Tenants:
    def __init__(self, limits_of: Callable[[str], TenantLimits], set_weight: Callable[[str, float], None]) -> None:
        self._limits_of, self._set_weight = limits_of, set_weight
        self.known: dict[str, Tenant] = {}

    def of(self, name: str) -> Tenant:
        tenant = self.known.get(name)
        if tenant is None:
            tenant = Tenant(self._limits_of(name))
            if tenant.limits.weight != 1.0:
                self._set_weight(name, tenant.limits.weight)
            self.known[name] = tenant
        return tenant

    def forget_if_idle(self, name: str) -> None:
        tenant = self.known.get(name)
        if tenant is not None and not tenant.waiting and not tenant.running:
            del self.known[name]
            if tenant.limits.weight != 1.0:
                self._set_weight(name, 1.0)

    def changed(self, name: str) -> bool:
        """Other limits count for it from now on. False if it has nothing: then they will when it comes."""
        tenant = self.known.get(name)
        if tenant is None:
            return False
        limits = self._limits_of(name)
        self._set_weight(name, limits.weight)
        tenant.set_limits(limits)
        return True
