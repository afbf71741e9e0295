"""Iterative methods that build a space from products with the operator."""
