"""HTTP in, calls out: the server that clients connect to, and what carries their requests to replicas.

`http_server`, `http_front`, `http_protocol` and `http_request` are the server; `proxy`, `forward` and `websockets` send
what it reads by a router.
"""
