"""What each system brings to ``physim train constrained``: arms, tests, reference, picture."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from solvers.core import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from solvers.figures import Axes

__all__ = ["TRIALS", "Choice", "Trial", "save_picture"]

_ARMS = ("soft", "hard", "experts")
_TESTS = 8
_FLOWS = 4
_DAYS = (10, 100, 500)
_FINE = 2
"""How much finer the grid of the reference of vorticity is."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Options of an arm as they were given; None where they were not."""

    arm: str
    experts: int | None
    is_apart: bool
    functions: int | None
    width: int | None
    points: int | None
    slabs: int | None

    def check(self, least_functions: int) -> None:
        """Complain where options contradict each other.

        Raises:
            SettingsError: With the option.
        """
        from solvers.core import check_choice, check_positive

        check_choice("arm", self.arm, _ARMS)
        if self.experts is not None:
            check_positive("experts", self.experts)
        if self.arm != "experts" and (self.experts or 1) > 1:
            raise SettingsError(
                f"experts: got {self.experts} for arm {self.arm!r}, expected --arm experts"
            )
        if self.arm != "experts" and self.is_apart:
            raise SettingsError(f"apart: given for arm {self.arm!r}, expected --arm experts")
        if self.functions is None:
            return
        if self.arm == "soft" and self.functions != 1:
            raise SettingsError(f"functions: got {self.functions} for arm 'soft', expected 1")
        if self.arm != "soft" and self.functions < least_functions:
            raise SettingsError(
                f"functions: got {self.functions} for arm {self.arm!r}, expected at least "
                f"{least_functions}"
            )

    @property
    def parts(self) -> int:
        """Number of experts."""
        if self.arm != "experts":
            return 1
        return 4 if self.experts is None else self.experts

    @property
    def is_held(self) -> bool:
        """Whether experts are solved together."""
        return self.parts > 1 and not self.is_apart

    def given(self, **renamed: int | None) -> dict[str, int]:
        """Options that were given, by the names of an arm's attributes."""
        options = {"width": self.width, "points": self.points, **renamed}
        return {name: value for name, value in options.items() if value is not None}


class Trial(ABC):
    """A system that can be trained.

    Attributes:
        module: Where its arms, training and reference are.
        families: Names of its families of initial conditions; the first is the default.
        field: Name of its field among the features.
    """

    families: ClassVar[tuple[str, ...]]
    field: ClassVar[tuple[str]] = ("u",)
    module: Any

    @abstractmethod
    def arm(self, choice: Choice) -> Any:
        """The arm that was chosen."""

    @abstractmethod
    def functions(self, arm: Any) -> int:
        """Functions of the basis of an arm."""

    @abstractmethod
    def draw_test(self, family: str) -> Tensor:
        """Initial conditions that are not trained on."""

    @abstractmethod
    def solve(self, test: Tensor) -> Tensor:
        """The reference for them."""

    @abstractmethod
    def seen(self, test: Tensor) -> Tensor:
        """What a trained arm takes of them."""

    @abstractmethod
    def draw(self, axes: list[Axes], prediction: Tensor, solution: Tensor, fit: Any) -> None:
        """Draw one prediction beside its reference."""

    def reference(self, test: Tensor) -> tuple[Tensor, float]:
        """The reference, and how long it takes for one initial condition [s]."""
        began = time.perf_counter()
        solution = self.solve(test)
        return solution, (time.perf_counter() - began) / len(test)

    def jump(self, fit: Any, test: Tensor, parts: int) -> float | None:
        """Mean absolute jump of the field where experts meet."""
        if parts == 1:
            return None
        import torch

        with torch.no_grad():
            field = fit.solve(self.seen(test))
            return float(field.jump(self.field).mean())


class _Sorption(Trial):
    families = ("constant", "waves")

    def __init__(self) -> None:
        from constraints.systems import diffusion_sorption

        self.module = diffusion_sorption

    def arm(self, choice: Choice) -> Any:
        choice.check(least_functions=2)
        if choice.slabs is not None:
            raise SettingsError("slabs: given for diffusion-sorption, expected navier-stokes")
        functions = {"soft": 1, "hard": 128, "experts": 32}[choice.arm]
        return self.module.Arm(
            **{"functions": functions, **choice.given(functions=choice.functions)},
            experts=choice.parts,
            is_held=choice.is_held,
            is_local=not choice.is_apart,
        )

    def functions(self, arm: Any) -> int:
        return int(arm.functions)

    def draw_test(self, family: str) -> Tensor:
        import torch

        if family == "constant":
            return torch.linspace(0.01, 0.19, _TESTS, dtype=torch.float64)
        return _draw(self.module.draw_initial, _TESTS, family)

    def solve(self, test: Tensor) -> Tensor:
        return self.module.reference(test)  # type: ignore[no-any-return]

    def seen(self, test: Tensor) -> Tensor:
        return test

    def draw(self, axes: list[Axes], prediction: Tensor, solution: Tensor, fit: Any) -> None:
        import torch

        from solvers.figures import draw_curves

        cells, times = solution.shape
        x = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
        for axis, day in zip(axes, _DAYS, strict=True):
            moment = round(day / fit.system.duration * (times - 1))
            fields = {"trained": prediction, "reference": solution}
            curves = {name: u[:, moment].numpy() for name, u in fields.items()}
            draw_curves(axis, x.numpy(), curves, x_label="x [m]", y_label="concentration")
            axis.set_title(f"day {day}", fontsize="medium")


class _Vorticity(Trial):
    families = ("smooth", "rough", "vortices")
    field = ("w",)

    def __init__(self) -> None:
        from constraints.systems import navier_stokes

        self.module = navier_stokes

    def arm(self, choice: Choice) -> Any:
        own = self.module.Arm()
        choice.check(least_functions=3 * own.degrees)
        functions = choice.functions
        if choice.arm == "soft":
            return self.module.Arm(is_soft=True, **choice.given(slabs=choice.slabs))
        if functions is not None and functions % own.degrees:
            raise SettingsError(
                f"functions: got {functions}, expected a multiple of {own.degrees}, the "
                "polynomials of time"
            )
        # As square as it can be.
        along = next(n for n in range(math.isqrt(choice.parts), 0, -1) if choice.parts % n == 0)
        fields = None if functions is None else functions // own.degrees
        return self.module.Arm(
            **choice.given(slabs=choice.slabs, fields=fields),
            experts=(choice.parts // along, along),
            is_held=choice.is_held,
        )

    def functions(self, arm: Any) -> int:
        return 1 if arm.is_soft else int(arm.fields * arm.degrees)

    def draw_test(self, family: str) -> Tensor:
        cells = _FINE * self.module.Arm().cells
        return _draw(self.module.initial_fields, _FLOWS, family, cells=cells)

    def solve(self, test: Tensor) -> Tensor:
        cells = test.shape[-1] // _FINE
        return self.module.reference(test, points=cells)  # type: ignore[no-any-return]

    def seen(self, test: Tensor) -> Tensor:
        return test[:, ::_FINE, ::_FINE]

    def draw(self, axes: list[Axes], prediction: Tensor, solution: Tensor, fit: Any) -> None:
        largest = float(solution.abs().max())
        panels = {
            "start": solution[0], "trained, end": prediction[-1], "reference, end": solution[-1],
        }  # fmt: skip
        for axis, (title, field) in zip(axes, panels.items(), strict=True):
            axis.imshow(
                field.T.numpy(), origin="lower", extent=(0, 1, 0, 1), cmap="RdBu_r",
                vmin=-largest, vmax=largest,
            )  # fmt: skip
            axis.set_title(f"vorticity: {title}", fontsize="medium")


def _draw(draw: Any, count: int, family: str, **sizes: int) -> Tensor:
    import torch

    generator = torch.Generator().manual_seed(12345)
    found: Tensor = draw(count, family=family, generator=generator, **sizes)
    return found


TRIALS: Mapping[str, Callable[[], Trial]] = {
    "diffusion-sorption": _Sorption,
    "navier-stokes": _Vorticity,
}


def save_picture(trial: Trial, fit: Any, prediction: Tensor, solution: Tensor, path: Path) -> Path:
    """Draw one of the tests, and the loss."""
    import torch

    from solvers.figures import draw_curves, open_figure, save_figure

    figure, axes = open_figure(width=16.0, heights=[4.0], columns=4)
    middle = len(solution) // 2
    trial.draw(axes[:-1], prediction[middle], solution[middle], fit)
    if fit.losses:
        step = torch.arange(1, len(fit.losses) + 1).numpy()
        loss = {"loss": torch.tensor(fit.losses).numpy()}
        draw_curves(axes[-1], step, loss, x_label="step", y_label="loss", is_logarithmic=True)
    return save_figure(figure, path)
