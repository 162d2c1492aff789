"""Where a head's directory outlives it: one file a kind of store, each loaded by the head that uses it and nobody else.

What is written, and what a store's mark says about who wrote it, is decided in actorrt/core/durable.py; a store keeps
entries and a mark, and compares.
"""
