"""Variational solvers: fields that make an energy least.

Read `_functional` (the energy and its derivatives on a network), then `_natural` (one step),
`_ritz` (training); `_descent` is Sobolev-preconditioned descent in function space, `_unrolled` the
same with a network for each iterate. Public names are those of `solvers.pinn`.
"""
