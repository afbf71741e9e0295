r"""Steady flow past a circular cylinder in unbounded fluid.

Lengths in diameters, speeds in that of the stream, :math:`\nu = 1/Re`. With
:math:`\zeta = \ln r` and the angle :math:`\theta` from the wake, stream function and vorticity obey

.. math::
    \psi_{\zeta\zeta} + \psi_{\theta\theta} + r^2 \omega = 0, \qquad
    \psi_\theta \omega_\zeta - \psi_\zeta \omega_\theta
    = \nu\, (\omega_{\zeta\zeta} + \omega_{\theta\theta}),

:math:`\psi = \psi_\zeta = 0` on the cylinder. Far away the wake takes from the stream what the drag
needs, and a source gives it back (I. Imai 1951):

.. math::
    \psi = r \sin\theta + \tfrac14 C_D \left(\theta/\pi - \operatorname{erf} \eta\right), \qquad
    \eta = \sqrt{Re\, r}\, \sin(\theta/2).

Differences of sixth order on half the plane, rays closer in the wake; Newton's method for
:math:`\psi, \omega` and :math:`C_D` together. The head :math:`H = p + |u|^2/2` follows from
:math:`H_\zeta = -\psi_\zeta \omega - \nu \omega_\theta` along the axis before the cylinder and from
:math:`H_\theta = \nu \omega_\zeta - \psi_\theta \omega` around it.

Sources: B. Fornberg (1980), section 2, for the equations and the far field; S. C. R. Dennis and
G.-Z. Chang (1970) for the logarithm of the radius.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.interpolate import make_interp_spline
from scipy.sparse.linalg import splu
from scipy.special import erf

from solvers.core import NotConvergedError, SettingsError, check_count, check_number
from solvers.pde.references._cylinder_solution import (
    CROWDING,
    RADIUS,
    CylinderSolution,
    angle_of,
    wake_length,
)
from solvers.pde.references._differences import difference, periodic_difference
from solvers.pde.references._grid import GridFunction

__all__ = ["solve_cylinder"]

Array = NDArray[np.float64]

_TOLERANCE = 1e-8
_MOST_ITERATIONS = 20


def solve_cylinder(
    reynolds: float, *, rings: int = 96, rays: int = 64, radius: float = 80.0
) -> CylinderSolution:
    """Solve for the steady symmetric flow.

    It exists at all Reynolds numbers and is what one sees below 47, where shedding sets in.

    Args:
        reynolds: Speed times diameter over kinematic viscosity, 5 to 60.
        rings: Intervals between the cylinder and the outer circle.
        rays: Intervals of half a turn.
        radius: Radius of the outer circle in diameters.

    Returns:
        The flow. Discretisation and outer circle change the drag by 0.1 % at the defaults.

    Raises:
        SettingsError: If a number is out of range.
        NotConvergedError: If Newton's method fails.

    Cost: six sparse factorisations, about two seconds at the defaults.

    Example:
        >>> flow = solve_cylinder(20.0, rings=40, rays=32, radius=20.0)
        >>> 1.9 < flow.drag < 2.1, 0.88 < flow.wake_length < 0.96
        (True, True)
    """
    reynolds, radius = check_number("reynolds", reynolds), check_number("radius", radius)
    check_count("rings", rings)
    check_count("rays", rays)
    if not 5.0 <= reynolds <= 60.0:
        raise SettingsError(
            f"reynolds: got {reynolds:g}, expected 5 to 60; slower flow feels the outer circle, "
            "faster flow needs more rings and is far from what sheds vortices"
        )
    if min(rings, rays) <= 10 or not radius > 1.0:
        raise SettingsError(
            f"rings, rays, radius: got {rings}, {rays}, {radius:g}, expected more than 10 "
            "intervals and a radius above 1"
        )
    flow = _Flow(reynolds, rings, rays, radius)
    psi, omega, drag = flow.start()
    for iteration in range(_MOST_ITERATIONS):
        residual = flow.residual(psi, omega, drag)
        size = float(np.abs(residual).max())
        if not size > _TOLERANCE:
            return flow.solution(psi, omega, drag, iteration, size)
        if not math.isfinite(size):
            break
        step = flow.newton_step(psi, omega, residual)
        psi, omega = psi + step[0:-1:2], omega + step[1:-1:2]
        drag += float(step[-1])
    raise NotConvergedError(
        f"the flow past a cylinder at reynolds={reynolds:g} was not found in {_MOST_ITERATIONS} "
        f"iterations, residual {size:.1e}; use more rings and rays"
    )


class _Flow:
    """The discrete equations: values on all rings, on the rays strictly between axis and axis."""

    def __init__(self, reynolds: float, rings: int, rays: int, radius: float) -> None:
        self.nu = 1.0 / reynolds
        self.depth = np.linspace(math.log(RADIUS), math.log(radius), rings + 1)
        self.ray = np.arange(2 * rays) * np.pi / rays
        self.angle, self.rate = angle_of(self.ray), 1.0 - CROWDING * np.cos(self.ray)
        self.rings, self.rays = rings + 1, rays - 1
        self._differentiate()
        self._enclose(reynolds)

    def _differentiate(self) -> None:
        """Derivatives along rings and around them, of functions odd about the axis."""
        bend = CROWDING * np.sin(self.ray) / self.rate**3
        first = periodic_difference(self.ray, 1)
        second = sparse.diags_array(self.rate**-2) @ periodic_difference(self.ray, 2)
        self.turn = sparse.diags_array(1.0 / self.rate) @ first
        self.second_turn = second - sparse.diags_array(bend) @ first
        inner = np.arange(1, self.rays + 1)
        mirror = 2 * (self.rays + 1) - inner
        column = inner - 1
        sign = np.ones(self.rays)
        self.odd = sparse.csr_array(
            (np.r_[sign, -sign], (np.r_[inner, mirror], np.r_[column, column])),
            shape=(len(self.ray), self.rays),
        )
        outward, second_outward = (difference(self.depth, order) for order in (1, 2))
        here, there = (sparse.diags_array(np.ones(n)) for n in (self.rings, self.rays))
        half = slice(1, self.rays + 1)
        self.outward = outward
        self.by_depth = sparse.kron(outward, there).tocsr()
        self.by_angle = sparse.kron(here, (self.turn @ self.odd)[half]).tocsr()
        self.laplacian = (
            sparse.kron(second_outward, there)
            + sparse.kron(here, (self.second_turn @ self.odd)[half])
        ).tocsr()

    def _enclose(self, reynolds: float) -> None:
        """Places of the conditions, the far field, and the drag as a function of vorticity."""
        theta = self.angle[1 : self.rays + 1]
        ring = np.repeat(np.arange(self.rings), self.rays)
        self.is_wall, self.is_far = ring == 0, ring == self.rings - 1
        self.is_inside = ~(self.is_wall | self.is_far)
        radius = np.exp(np.repeat(self.depth, self.rays))
        self.square = radius**2
        self.stream = radius * np.tile(np.sin(theta), self.rings)
        far = math.exp(self.depth[-1])
        eta = np.sqrt(reynolds * far) * np.sin(theta / 2)
        self.far_psi, self.far_omega = np.zeros((2, len(ring)))
        self.far_psi[self.is_far] = 0.25 * (theta / np.pi - erf(eta))
        self.far_omega[self.is_far] = (
            -0.25 * reynolds * eta * np.exp(-(eta**2)) / (math.sqrt(math.pi) * far)
        )
        # Pressure by its slope along the wall, and friction: 4 a nu int (omega_zeta - omega) sin.
        weight = 4 * RADIUS * self.nu * np.sin(theta) * self.rate[1 : self.rays + 1]
        weight *= self.ray[1]
        self.drag_row = np.kron(self.outward[[0]].toarray()[0], weight)
        self.drag_row[: self.rays] -= weight

    def start(self) -> tuple[Array, Array, float]:
        """Flow without viscosity."""
        psi = self.stream * (1 - RADIUS**2 / self.square)
        return psi, np.zeros_like(psi), 1.0

    def residual(self, psi: Array, omega: Array, drag: float) -> Array:
        """What the equations leave: stream function and vorticity in turns, the drag last."""
        transport = (self.by_angle @ psi) * (self.by_depth @ omega)
        transport -= (self.by_depth @ psi) * (self.by_angle @ omega)
        first = np.where(self.is_inside, self.laplacian @ psi + self.square * omega, psi)
        first -= self.is_far * (self.stream + drag * self.far_psi)
        second = np.where(self.is_inside, transport - self.nu * (self.laplacian @ omega), omega)
        second = np.where(self.is_wall, self.by_depth @ psi, second) - drag * self.far_omega
        pairs: Array = np.stack([first, second], 1).reshape(-1)
        left: Array = np.append(pairs, drag - self.drag_row @ omega)
        return left

    def newton_step(self, psi: Array, omega: Array, residual: Array) -> Array:
        """Solve the linearised equations, in the order of the residual."""
        inside, wall, far = (
            sparse.diags_array(np.asarray(where, dtype=np.float64))
            for where in (self.is_inside, self.is_wall, self.is_far)
        )
        slopes = (
            sparse.diags_array(matrix @ field)
            for field in (psi, omega)
            for matrix in (self.by_angle, self.by_depth)
        )
        psi_turn, psi_out, omega_turn, omega_out = slopes
        by_psi = omega_out @ self.by_angle - omega_turn @ self.by_depth
        by_omega = psi_turn @ self.by_depth - psi_out @ self.by_angle - self.nu * self.laplacian
        blocks = [
            [inside @ self.laplacian + wall + far, inside * self.square],
            [inside @ by_psi + wall @ self.by_depth, inside @ by_omega + far],
        ]
        matrix = sparse.block_array(
            [
                [*blocks[0], -self.far_psi[:, None]],
                [*blocks[1], -self.far_omega[:, None]],
                [None, -self.drag_row[None], np.ones((1, 1))],
            ]
        ).tocsr()
        count = len(psi)
        turns = np.r_[np.arange(2 * count).reshape(2, count).T.reshape(-1), 2 * count]
        step: Array = splu(matrix[turns][:, turns].tocsc()).solve(-residual)
        return step

    def solution(
        self, psi: Array, omega: Array, drag: float, iterations: int, residual: float
    ) -> CylinderSolution:
        """Velocity and pressure on whole rings."""
        psi, omega = (
            (self.odd @ field.reshape(self.rings, self.rays).T).T for field in (psi, omega)
        )
        by_angle = [(self.turn @ field.T).T for field in (psi, omega)]
        by_depth = [self.outward @ field for field in (psi, omega)]
        radius = np.exp(self.depth)[:, None]
        outward, around = by_angle[0] / radius, -by_depth[0] / radius
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        head = self._head(
            self.rate * (self.nu * by_depth[1] - by_angle[0] * omega),
            -by_depth[0] * omega - self.nu * by_angle[1],
        )
        fields = (
            outward * cosine - around * sine,
            outward * sine + around * cosine,
            head - 0.5 * (outward**2 + around**2),
        )
        ends = (self.depth[0], 0.0), (self.depth[-1], 2 * np.pi)
        u, v, p = (GridFunction(*ends, field, (False, True)) for field in fields)
        return CylinderSolution(
            reynolds=1 / self.nu,
            drag=drag,
            wake_length=wake_length(self.depth, fields[0][:, 0]),
            iterations=iterations,
            residual=residual,
            velocity_x=u,
            velocity_y=v,
            pressure=p,
        )

    def _head(self, by_ray: Array, by_depth: Array) -> Array:
        """Integrate from far upstream to the cylinder, then around each ring.

        The axis before the cylinder keeps clear of the outflow, where the far field meets the wake.
        """
        waves = np.fft.rfft(by_ray, axis=1)
        number = np.arange(waves.shape[1])
        waves[:, 0] = 0.0
        waves[:, -1] = 0.0
        around = np.fft.irfft(waves / (1j * np.maximum(number, 1)), len(self.ray), axis=1)
        front = len(self.ray) // 2
        lost = make_interp_spline(self.depth, by_depth[:, front], k=5).antiderivative()(self.depth)
        head: Array = 0.5 + (lost - lost[-1])[:, None] + around - around[:, [front]]
        return head
