"""Processes and their files, and what the kernel says of them."""
