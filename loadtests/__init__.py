"""Measurements of actorrt beside its peers and the machine's own limits; nothing here is part of the package."""
