"""The asyncio shell: the only place with tasks, sockets, clocks and processes. It acts; wire/ and core/ decide."""
