"""What a request router of one's own is written with: the public names.

    class ByTokens(LocalPolicy):
        def choose(self, request):
            free = [slots for slots in self.live if self.has_room(slots)]
            return min(free, key=lambda slots: slots.ongoing, default=None)

    @serve.deployment(request_router=ByTokens)

`LocalPolicy` keeps the queue and the counts. A class that decides elsewhere, or later, has all methods of `Policy`.
"""

from .base.news import DeploymentNews, ReplicaNews
from .capacity.fair_order import Band
from .capacity.queue import TenantLimits
from .capacity_queue.config import CapacityQueueConfig
from .capacity_queue.messages import QueueCost, QueueUse
from .declaration.router_options import RequestRouterConfig
from .policies.policy import NOTHING, Cost, Grant, Policy, PolicyContext, Refused, Request
from .policies.routing import LeastRequests, LocalPolicy, PowerOfTwo, RoundRobin, Slots

__all__ = [
    "Policy", "PolicyContext", "DeploymentNews", "ReplicaNews", "Request", "Cost", "NOTHING", "Grant", "Refused",
    "LocalPolicy", "Slots", "PowerOfTwo", "LeastRequests", "RoundRobin", "RequestRouterConfig",
    "CapacityQueueConfig", "QueueCost", "QueueUse", "Band", "TenantLimits",
]  # fmt: skip
