"""Quadratic and second-order cone programs; their names are in :mod:`constraints`."""
