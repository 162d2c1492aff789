"""Who runs calls: executors, threads, the user's loop, and when a worker ends."""
