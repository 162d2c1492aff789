"""From a handle or a proxy to a replica, and the answer back: a router for each deployment in each process.

`router` asks the policy that `policy_maker` made, under a lock; `handle` and `response` are what user code holds.
"""
