"""The capacity queue as a request router: one queue for a deployment, in an actor, and who asks it.

config.py     what users write about it
messages.py   what routers, the queue and replicas tell each other
hub.py        the queue with its routers and replicas: events in, messages out
actor.py      the hub in a process of its own
offers.py     what each replica is taken to hold
shown.py      what people are told of it
policy.py     a router's side: asks the queue
lease.py      a request that asks, and its lease
outbox.py     what the router has to say
alone.py      what it may do while the queue is down
costs.py      what a request takes
session.py    the stream between the two
running.py    a replica's side: which leases it runs, and of which epoch
"""
