"""What the machine itself allows: the figures that no system built from the same parts is expected to pass by much."""
