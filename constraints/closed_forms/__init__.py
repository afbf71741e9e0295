"""Constraints with an explicit solution; their names are in :mod:`constraints`."""
