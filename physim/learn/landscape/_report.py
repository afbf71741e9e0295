"""The landscape of a training at a glance: one picture and one file of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from physim.learn.landscape._connectivity import Barrier, barrier
from physim.learn.landscape._intrinsic import IntrinsicDimension
from physim.learn.landscape._spectrum import Outliers, Spectrum, find_outliers, spectrum
from physim.learn.landscape._stability import Sharpness, sharpness
from solvers.core import check_output, to_json, write_whole
from solvers.curvature import Mode, Objective

__all__ = ["LandscapeReport", "landscape_report"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LandscapeReport:
    """What surrounds a solution.

    Attributes:
        name: Of the training.
        parameters: Number of parameters.
        loss: At the solution.
        spectrum: Of the Hessian.
        outliers: Of its largest eigenvalues.
        sharpness: Of the Gauss-Newton matrix; None for objectives without outputs.
        rates: Largest stable learning rate by batch, an estimate from below for residuals with
            gradients of one length, for the objective's own scale of the loss; valid near a loss
            of zero. Of gradient descent alone, batch 0, without outputs.
        barriers: To other solutions, by name.
        intrinsic: Sweep of the intrinsic dimension, if one was made.
    """

    name: str
    parameters: int
    loss: float
    spectrum: Spectrum
    outliers: Outliers
    sharpness: Sharpness | None
    rates: Mapping[int, float]
    barriers: Mapping[str, Barrier] = field(default_factory=dict)
    intrinsic: IntrinsicDimension | None = None

    def numbers(self) -> dict[str, Any]:
        """Everything as plain numbers that :mod:`json` can write."""
        found = self.intrinsic
        return {
            "name": self.name,
            "parameters": self.parameters,
            "loss": self.loss,
            "hessian": {
                "largest": self.spectrum.top.tolist(),
                "smallest": self.spectrum.lowest,
                "trace": self.spectrum.trace,
                "outliers": self.outliers.count,
                "gap_ratio": self.outliers.gap_ratio,
            },
            "gauss_newton": None
            if self.sharpness is None
            else {
                "trace": self.sharpness.trace,
                "frobenius": self.sharpness.frobenius,
                "largest": self.sharpness.largest,
            },
            "largest_stable_rate": {str(batch): rate for batch, rate in self.rates.items()},
            "barriers": {
                name: {"height": line.height, "log_height": line.log_height}
                for name, line in self.barriers.items()
            },
            "intrinsic_dimension": None
            if found is None
            else {
                "dimension": found.dimension,
                "interval": list(found.interval),
                "threshold": found.threshold,
                "scores": {str(d): list(scores) for d, scores in found.scores.items()},
            },
        }

    def save(self, path: str | Path) -> Path:
        """Write the numbers to a JSON file, whole or not at all.

        Args:
            path: The file.

        Returns:
            The path.
        """
        target = check_output("path", path)
        with write_whole(target) as partial:
            partial.write_text(to_json(self.numbers()), encoding="utf-8")
        return target

    def plot(self, path: str | Path) -> Path:
        """Draw spectrum, density, barriers and intrinsic dimension into one picture.

        Args:
            path: File that ends in ``.png``, ``.svg`` or ``.pdf``.

        Returns:
            The path.

        Raises:
            MissingExtraError: If matplotlib is not installed.
        """
        from solvers.figures import draw_curves, open_figure, save_figure

        rows = 2 if self.barriers or self.intrinsic is not None else 1
        figure, axes = open_figure(width=10.0, heights=[3.2] * rows, columns=2)
        top = self.spectrum.top
        order = torch.arange(1, len(top) + 1).double().numpy()
        draw_curves(
            axes[0], order, {"eigenvalue": top.double().numpy()}, x_label="rank",
            y_label="largest eigenvalues of the Hessian", is_logarithmic=bool((top > 0).all()),
        )  # fmt: skip
        low, high = self.spectrum.lowest, float(top[0])
        grid = torch.linspace(low, high, 600, dtype=torch.float64)
        density = self.spectrum.density
        smeared = density.evaluate(grid.to(density.nodes), width=0.01 * (high - low))
        draw_curves(
            axes[1], grid.numpy(), {"density": smeared.double().clamp(min=1e-8).numpy()},
            x_label="eigenvalue", y_label="density", is_logarithmic=True,
        )  # fmt: skip
        if rows == 2:
            self._plot_second_row(axes[2:])
        figure.suptitle(
            f"{self.name}: {self.parameters} parameters, loss {self.loss:.2e}\n"
            f"largest stable rate by batch: {self._rates()}"
        )
        return save_figure(figure, path)

    def _plot_second_row(self, axes: Any) -> None:
        from solvers.figures import draw_curves

        if self.barriers:
            lines = {name: line.losses.double().numpy() for name, line in self.barriers.items()}
            t = next(iter(self.barriers.values())).t.double().numpy()
            draw_curves(
                axes[0], t, lines, x_label="place on the line", y_label="loss",
                is_logarithmic=all((values > 0).all() for values in lines.values()),
            )  # fmt: skip
        else:
            axes[0].set_axis_off()
        found = self.intrinsic
        if found is None:
            axes[1].set_axis_off()
            return
        d = torch.tensor(list(found.scores), dtype=torch.float64)
        scores = torch.tensor([list(s) for s in found.scores.values()], dtype=torch.float64)
        curves = {
            "median of seeds": scores.median(1).values.numpy(),
            "goal": torch.full_like(d, found.threshold).numpy(),
        }
        draw_curves(axes[1], d.numpy(), curves, x_label="dimension of subspace", y_label="score")

    def _rates(self) -> str:
        return ", ".join(
            f"{'all' if batch == 0 else batch}: {rate:.2e}" for batch, rate in self.rates.items()
        )

    def __str__(self) -> str:
        text = [
            f"{self.name}: {self.parameters} parameters, loss {self.loss:.3e}",
            f"  Hessian: largest {float(self.spectrum.top[0]):.4g}, smallest "
            f"{self.spectrum.lowest:.3g}, trace {self.spectrum.trace:.4g}, "
            f"{_count(self.outliers)}",
        ]
        if self.sharpness is not None:
            text.append(
                f"  Gauss-Newton: largest {self.sharpness.largest:.4g}, trace "
                f"{self.sharpness.trace:.4g}"
            )
        text.append(f"  largest stable learning rate by batch: {self._rates()}")
        text += [
            f"  barrier to {name}: {line.height:.3g} (in the logarithm {line.log_height:.3g})"
            for name, line in self.barriers.items()
        ]
        if self.intrinsic is not None:
            found = self.intrinsic
            if found.dimension is None:
                text.append(f"  no subspace of up to {max(found.scores)} dimensions suffices")
            else:
                text.append(
                    f"  intrinsic dimension {found.dimension}, between seeds {found.interval}"
                )
        return "\n".join(text)


def landscape_report(
    name: str,
    objective: Objective,
    theta: Float[Tensor, " n"] | None = None,
    *,
    others: Mapping[str, Float[Tensor, " n"]] | None = None,
    batches: tuple[int, ...] = (1, 16),
    intrinsic: IntrinsicDimension | None = None,
    mode: Mode | None = None,
    count: int = 8,
    probes: int = 3,
    points: int = 21,
) -> LandscapeReport:
    """Look around a solution.

    Args:
        name: Of the training, for titles.
        objective: What was minimised: a physics-informed residual, a policy loss, a classifier.
        theta: The solution; the objective's start by default.
        others: Other solutions, for barriers.
        batches: Batches to give stable rates for, besides all at once.
        intrinsic: A sweep made with :func:`intrinsic_dimension`.
        mode: Of the Hessian's products, see :func:`solvers.curvature.hessian`; the objective's
            own by default.
        count: Eigenvalues to look at.
        probes: Random vectors for the density.
        points: Evaluations on each line to another solution.

    Returns:
        The report.

    Cost: some hundred Hessian products.
    """
    point = objective.start if theta is None else theta
    seen = spectrum(objective, point, mode=mode, count=count, probes=probes)
    sharp = None if objective.outputs is None else sharpness(objective, point)
    # Batch 0 stands for all samples at once.
    rates = {0: 2.0 / max(abs(float(seen.top[0])), 1e-300)}
    if sharp is not None:
        scale = _samples(objective, point)
        rates = {batch: sharp.rate(batch) for batch in batches if batch < scale}
        rates[0] = sharp.rate(10**12)
    lines = {
        other: barrier(objective, point, end, points=points)
        for other, end in (others or {}).items()
    }
    return LandscapeReport(
        name=name,
        parameters=point.numel(),
        loss=float(objective.check_repeatable(point)),
        spectrum=seen,
        outliers=find_outliers(seen.top) if len(seen.top) > 2 else _no_outliers(),
        sharpness=sharp,
        rates=rates,
        barriers=lines,
        intrinsic=intrinsic,
    )


def _samples(objective: Objective, point: Tensor) -> int:
    assert objective.outputs is not None
    # With grad enabled: outputs may differentiate inside.
    return objective.outputs(point).numel()


def _no_outliers() -> Outliers:
    return Outliers(count=None, gap_ratio=1.0, edge=0.0)


def _count(outliers: Outliers) -> str:
    if outliers.count is None:
        return f"no clear outliers (widest gap {outliers.gap_ratio:.2g})"
    return f"{outliers.count} outliers (gap {outliers.gap_ratio:.2g})"
