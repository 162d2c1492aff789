"""The lease of a capacity queue by which the running request is in its replica."""

from contextvars import ContextVar

from .messages import Tag

current_lease: ContextVar[Tag | None] = ContextVar("actorrt_serve_lease", default=None)
