"""One file a peer: how that system does the work. Each is imported only in the peer's own environment."""
