"""The capacity queue as a request router: one queue for a deployment, in an actor, and who asks it.

config.py     what users write about it
messages.py   what routers, the queue and replicas tell each other
hub.py        the queue with its routers and replicas: events in, messages out
actor.py      the hub in a process of its own
policy.py     a router's side: asks the queue, and does without it while it is down
session.py    the stream between the two
running.py    a replica's side: which leases it runs, and of which epoch
"""
