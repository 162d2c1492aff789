"""Engines: what runs a model inside of a replica."""
