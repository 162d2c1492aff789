"""Who calls, and owns what comes back: calls, values, tasks, actors, and where each of them is."""
