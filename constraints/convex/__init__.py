"""Convex programs written in cvxpy; the layer is in :mod:`constraints`."""
