"""The policy of the capacity queue with its hub in the same process: what is said is heard and answered at once."""

from actorrt.serve.base.news import DeploymentNews
from actorrt.serve.capacity_queue.config import DEFAULT, CapacityQueueConfig
from actorrt.serve.capacity_queue.hub import Hub
from actorrt.serve.capacity_queue.messages import Messages, Snapshot, encode, incarnation_of, to_queue
from actorrt.serve.capacity_queue.policy import CapacityQueuePolicy, Lease
from actorrt.serve.policies.policy import Grant, PolicyContext, Refused, Request


class QueueInMemory(CapacityQueuePolicy):
    def __init__(self, context: PolicyContext, config: CapacityQueueConfig = DEFAULT, hub: Hub | None = None) -> None:
        super().__init__(context)
        self._config = config
        self.hub = hub or Hub(1, context.clock(), context.random, config)
        self._messages = Messages()
        self._written: list[bytes] = []
        self._settling = False
        self._turns = self  # type: ignore[assignment]
        self._session = self  # type: ignore[assignment]
        self.hub.join(self.router, context.clock())
        self._deliver()

    # The end of a turn.

    def soon(self) -> None:
        if self._settling:
            return
        self._settling = True
        try:
            self._flush()
            while self._written:
                written, self._written = b"".join(self._written), []
                for message in self._messages.feed(written):
                    self.hub.take(self.router, to_queue.decode(message), self._clock())
                self._deliver()
                self._flush()
        finally:
            self._settling = False

    def within(self, seconds: float) -> None:
        self.soon()

    # A session.

    def write(self, data: bytes) -> None:
        self._written.append(data)

    def leave(self) -> None:
        self.hub.leave(self.router, self._clock())

    def _deliver(self) -> None:
        for name, message in self.hub.told():
            assert name == self.router
            for data in Messages().feed(encode(message)):
                self.came(data)
        while self._came:
            self._take(self._came.popleft())

    def _watch(self) -> None:
        pass  # the queue is never silent

    # A policy.

    def update(self, news: DeploymentNews) -> None:
        now = self._clock()
        new = [each.id for each in news.replicas if each.id not in self._places]
        self.hub.update(self._config, news.max_ongoing, news.max_queued, [each.id for each in news.replicas], now)
        super().update(news)
        for id in new:
            self.hub.replica_said(id, Snapshot(1, incarnation_of(id), None, ()), now)
        self._deliver()

    def died(self, replica: str) -> None:
        super().died(replica)
        self.hub.drop_replica(replica, self._clock())
        self._deliver()

    def submit(self, request: Request) -> Lease | None:
        return super().submit(request) or self._at_once(request)

    def again(self, request: Request) -> Lease | None:
        return super().again(request) or self._at_once(request)

    def _at_once(self, request: Request) -> Lease | None:
        found = self._ready.pop(request, None)
        if isinstance(found, Refused):
            raise found
        return found

    def ledger_is(self, grants: list[Grant]) -> bool:
        """Whether the hub has these leases and no others."""
        numbers = sorted(grant.tag.number for grant in grants)
        return sorted(self.hub.queue.ledger.leases) == numbers
