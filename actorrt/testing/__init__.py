"""A cluster in virtual time, in one thread: seeded histories of the runtime's own code, with crashes and cut links."""
