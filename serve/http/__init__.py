"""What HTTP means to both ends of a request, the proxy and the replica: heads, bodies, options, refusals.

Nobody here listens on a port or knows of deployments. What a client is told where nothing runs its request is in
`unavailable`, `retry` and `websocket_rules`; how a socket gets from one process to the other in `listener` and `loan`.
"""
