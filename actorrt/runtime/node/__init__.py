"""Who leases workers and holds segments, and the head that starts nodes and outlives them."""
