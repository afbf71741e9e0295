"""What do the papers behind training predict, and what is measured here?

One line a prediction, a picture with one panel a paper. Times play no part.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import Column, Result, Size
from torch import Tensor, nn

from physim.learn.landscape import (
    attention_svm,
    direction_cosine,
    find_outliers,
    fork_study,
    random_projection,
    stability_threshold,
)
from solvers.curvature import (
    Objective,
    convergence_time,
    exponential_family_fisher,
    gauss_newton,
    regime,
)
from solvers.figures import draw_curves, open_figure, save_figure
from solvers.optim import (
    DiffGrad,
    LowRankFactor,
    RebalanceOnce,
    diagnose_tail,
    equator_ratio,
    langevin_average,
    predicted_rate,
)

__all__ = ["run"]

TITLE = "Predictions of the papers, and what is measured"


@dataclass(frozen=True)
class Panel:
    """Curves over one abscissa."""

    x_label: str
    y_label: str
    x: list[float]
    curves: dict[str, list[float]]
    is_logarithmic: bool = False


Finding = tuple[str, float | None, float]
"""What, its prediction (None: the paper gives no number), and its measurement."""

Answer = tuple[list[Finding], Panel]


def diffgrad(size: Size) -> Answer:
    def path(make: Callable[..., torch.optim.Optimizer]) -> list[float]:
        x = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
        optimizer = make([x], lr=0.1, betas=(0.95, 0.999))
        places = []
        for _ in range(300):
            optimizer.zero_grad()
            torch.where(x <= 0, (x + 0.3) ** 2, (x - 0.2) ** 2 + 0.05).backward()
            optimizer.step()
            places.append(float(x.detach()))
        return places

    curves = {"Adam": path(torch.optim.Adam), "diffGrad": path(DiffGrad)}
    found: list[Finding] = [
        ("first function: end of Adam", 0.2, curves["Adam"][-1]),
        ("first function: end of diffGrad", -0.3, curves["diffGrad"][-1]),
    ]
    return found, Panel("step", "place", list(range(300)), curves)


def matrix_sensing(size: Size) -> Answer:
    steps = 200 if size == "tiny" else 8000
    g = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(30, 3, generator=g, dtype=torch.float64)).Q
    target = u @ u.T

    def losses(factor: LowRankFactor, lr: float, *, is_rebalanced: bool = False) -> list[float]:
        optimizer = torch.optim.SGD(factor.parameters(), lr=lr)
        square = lambda: (factor() - target).square().sum()  # noqa: E731
        if is_rebalanced:
            RebalanceOnce(optimizer, factor, square, level=1e-2)
        history: list[float] = []
        while len(history) < steps and (not history or history[-1] > 1e-24):
            optimizer.zero_grad()
            (0.5 * square()).backward()
            history.append(float(square().detach()))
            optimizer.step()
        return history

    equal = losses(LowRankFactor(30, 30, 6, is_symmetric=True, scale=0.3), 0.1)
    factor = LowRankFactor(30, 30, 6, scale=0.4)
    rate = predicted_rate(factor, 0.1)
    apart = losses(factor, 0.1)
    once = losses(LowRankFactor(30, 30, 6, scale=0.05), 0.1, is_rebalanced=True)
    shown = list(range(min(1500, steps)))
    padded = {
        name: [history[min(k, len(history) - 1)] for k in shown]
        for name, history in {"equal": equal, "unbalanced": apart, "rebalanced": once}.items()
    }
    found: list[Finding] = [
        ("equal factors: power of the loss in time", -2.0,
         diagnose_tail(torch.tensor(equal)).exponent),
        ("unbalanced factors: rate of the loss", rate,
         diagnose_tail(torch.tensor(apart), share=0.4).rate),
        ("rebalanced once, start eight times smaller: steps to 1e-24", None, float(len(once))),
    ]  # fmt: skip
    return found, Panel("iteration", "loss", shown, padded, is_logarithmic=True)


def langevin(size: Size) -> Answer:
    d, chains = (10, 50) if size == "tiny" else (40, 1500)
    g = torch.Generator().manual_seed(0)
    spike = nn.functional.normalize(torch.randn(d, generator=g), dim=0)
    shares, averages, lasts = [0.25, 1.0, 4.0], [], []
    trace = 0.0
    for share in shares:
        y = math.sqrt(share) * d * torch.einsum("i,j,k->ijk", spike, spike, spike)
        y = y + torch.randn(d, d, d, generator=g)
        orders = itertools.permutations(range(3))
        y = sum((y.permute(order) for order in orders), torch.zeros_like(y)) / 6
        flat = y.reshape(d, -1)
        moments = langevin_average(
            lambda x, flat=flat: 3 * (x[:, :, None] * x[:, None, :]).reshape(len(x), -1) @ flat.T,
            d, chains=chains, steps=300, beta=0.1, burn_in=100, generator=g, dtype=torch.float32,
        )  # fmt: skip
        averages.append(float(moments.direction() @ spike))
        lasts.append(equator_ratio(moments.last, spike) / math.sqrt(d))
        partial = torch.einsum("iij->j", y)
        trace = float(partial @ spike / partial.norm())
    found: list[Finding] = [
        ("cubic spike, n = 4 d^2: cosine of the average (partial trace)", trace, averages[-1]),
        ("its iterates: root mean square cosine (equator)", d**-0.5, lasts[-1]),
    ]
    return found, Panel("n / d^2", "cosine", shares, {"average": averages, "iterates": lasts})


def intrinsic(size: Size) -> Answer:
    # 1000 parameters, ten sums of a hundred each are prescribed.
    g = torch.Generator().manual_seed(0)
    sums = torch.eye(10, dtype=torch.float64).repeat_interleave(100, 1)
    gap = torch.arange(1.0, 11.0) - sums @ torch.randn(1000, generator=g, dtype=torch.float64)
    ladder = list(range(6, 13))
    curves: dict[str, list[float]] = {}
    for kind in ("dense", "sparse", "fastfood"):
        curves[kind] = []
        for d in ladder:
            project = random_projection(1000, d, kind=kind)  # type: ignore[arg-type]
            columns = torch.stack([project(e) for e in torch.eye(d, dtype=torch.float64)], 1)
            a = sums @ columns
            z = torch.linalg.lstsq(a, gap[:, None]).solution[:, 0]
            curves[kind].append(float((a @ z - gap).square().sum()))
    found: list[Finding] = [
        (f"toy, {kind}: least dimension that solves it", 10.0,
         float(next(d for d, loss in zip(ladder, losses, strict=True) if loss < 1e-16)))
        for kind, losses in curves.items()
    ]  # fmt: skip
    return found, Panel("dimension", "least loss", ladder, curves, is_logarithmic=True)


def clusters(k: int, spread: float, count: int) -> tuple[Tensor, Tensor]:
    """Points of k clusters in twenty dimensions, 15 percent of the labels at random."""
    g = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(k, 20, generator=g, dtype=torch.float64) / 20**0.5
    y = torch.randint(0, k, (count,), generator=g)
    x = centres[y] + spread * torch.randn(count, 20, generator=g, dtype=torch.float64)
    changed = torch.rand(count, generator=g) < 0.15
    return x, torch.where(changed, torch.randint(0, k, (count,), generator=g), y)


def classifier(x: Tensor, y: Tensor, k: int, width: int) -> Objective:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, width), nn.Tanh(), nn.Linear(width, k)).double()
    return Objective.of_module(
        net, outputs=lambda f: f(x), output_loss=lambda z: nn.functional.cross_entropy(z, y)
    )


def connectivity(size: Size) -> Answer:
    steps = 40 if size == "tiny" else 1000
    forks = [0, steps // 25, steps // 7, steps // 3, 5 * steps // 7]
    x, y = clusters(10, 1.0, 1000)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    ).double()
    objective = Objective.of_module(net, loss=lambda f: nn.functional.cross_entropy(f(x), y))

    def train(theta: Tensor, first: int, last: int, seed: int) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        p = theta.clone().requires_grad_()
        optimizer = torch.optim.SGD([p], lr=0.2, momentum=0.9)
        for step in range(first, last):
            optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / steps)
            rows = torch.randint(0, len(x), (32,), generator=g)
            outputs = torch.func.functional_call(net, objective.space.unflatten(p), (x[rows],))
            optimizer.zero_grad()
            nn.functional.cross_entropy(outputs, y[rows]).backward()
            optimizer.step()
        return p.detach()

    study = fork_study(
        objective, train, steps=steps, forks=forks, start=lambda seed: objective.start, points=11
    )
    heights = [fork.barrier.height for fork in study]
    found: list[Finding] = [
        ("barrier of runs that part at the start", None, heights[0]),
        ("barrier of runs that part late", 0.0, heights[-1]),
        ("angle of their ways, start [degree]", None, study[0].angle),
        ("angle of their ways, late [degree]", None, study[-1].angle),
    ]
    curves = {"barrier": heights, "predicted from the ends": [fork.predicted for fork in study]}
    return found, Panel("step at which runs part", "barrier", forks, curves)


def stability(size: Size) -> Answer:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(16, 64, generator=g, dtype=torch.float64)
    rows /= rows.norm(dim=1, keepdim=True)
    h = rows.T @ rows / 16
    trace, top = float(torch.trace(h)), float(torch.linalg.eigvalsh(h)[-1])
    batches = [1, 2, 4, 8, 16, 32]
    exact = [stability_threshold(rows, batch) for batch in batches]
    estimate = [2 / (top + (trace - top) / batch) for batch in batches]
    found: list[Finding] = [
        ("largest stable rate times trace, batch 1", 2.0, exact[0] * trace),
        ("largest stable rate, batch 8 (estimate)", estimate[3], exact[3]),
        ("largest stable rate, all at once", 2 / top, stability_threshold(rows, 10**6)),
    ]
    return found, Panel("batch", "rate", batches, {"exact": exact, "estimate": estimate})


def outliers(size: Size) -> Answer:
    found: list[Finding] = []
    curves = {}
    for k in (2, 3, 4):
        x, y = clusters(k, 0.05, 400)
        objective = classifier(x, y, k, 12)
        theta = objective.start
        for _ in range(20 if size == "tiny" else 600):
            theta = theta - 0.3 * objective.gradient(theta)
        values = torch.linalg.eigvalsh(gauss_newton(objective, theta).dense()).flip(0)
        count = find_outliers(values, at_most=2 * k * (k - 1)).count
        found.append((f"outliers of {k} classes", float(k * (k - 1)), float(count or 0)))
        curves[f"{k} classes"] = values[:24].clamp(min=1e-9).tolist()
    return found, Panel("rank", "eigenvalue", list(range(1, 25)), curves, is_logarithmic=True)


def attention(size: Size) -> Answer:
    """Cosines along normalised gradient descent of a layer, with the solution of each norm."""
    g = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    tokens = nn.functional.normalize(normal(6, 8, 10), dim=-1)
    queries = nn.functional.normalize(normal(6, 10), dim=-1)
    value = nn.functional.normalize(normal(10), dim=0)
    labels = torch.sign(normal(6))
    marks = [30, 100, 300] if size == "tiny" else [30, 100, 300, 1000]
    curves: dict[str, list[float]] = {}
    for name, own in (("weights", "frobenius"), ("factors", "nuclear")):
        is_factored = name == "factors"
        params = [0.05 * normal(10, 10) for _ in range(2)] if is_factored else [torch.zeros(10, 10)]
        params = [p.double().requires_grad_() for p in params]
        decay = 2.2e-16 if is_factored else 0.0
        weights: list[Tensor] = []
        selected = torch.zeros(6, dtype=torch.int64)
        for step in range(1, marks[-1] + 1):
            w = params[0] @ params[1].T if is_factored else params[0]
            scores = torch.softmax(torch.einsum("ntd,de,ne->nt", tokens, w, queries), -1)
            out = torch.einsum("nt,ntd,d->n", scores, tokens, value)
            penalty = decay * sum((p.square().sum() for p in params), torch.zeros(()))
            loss = nn.functional.softplus(-labels * out).mean() + penalty
            slopes = torch.autograd.grad(loss, params)
            with torch.no_grad():
                for p, slope in zip(params, slopes, strict=True):
                    p -= 0.1 * slope / (slope.norm() + decay)
            if step in marks:
                weights.append(w.detach())
                selected = scores.argmax(-1)
        for norm in ("frobenius", "nuclear"):
            goal = attention_svm(tokens, queries, selected, norm=norm).value  # type: ignore[arg-type]
            is_own = norm == own
            curves[f"{name}, {'its' if is_own else 'other'} norm"] = [
                direction_cosine(w, goal) for w in weights
            ]
    found: list[Finding] = [
        (f"{name}: cosine with the solution", 1.0 if "its" in name else None, line[-1])
        for name, line in curves.items()
    ]
    return found, Panel("step", "cosine", marks, curves)


def regimes(size: Size) -> Answer:
    found: list[Finding] = []
    curves = {}
    scales = torch.logspace(-1.5, 1.5, 61, dtype=torch.float64).tolist()
    for n, published in ((3, 0.4304), (4, 0.6006), (5, 0.5541)):
        edges = list(itertools.combinations(range(n), 2))
        spins = itertools.product((-1.0, 1.0), repeat=n)
        states = torch.tensor(list(spins), dtype=torch.float64)
        pairs = torch.stack([states[:, i] * states[:, j] for i, j in edges], 1)
        eta = torch.full((len(edges),), 0.5, dtype=torch.float64)
        seen = regime(
            exponential_family_fisher(lambda e, pairs=pairs: torch.logsumexp(pairs @ e, 0), eta)
        )
        found.append((f"complete graph of {n}: regime parameter", published, seen.alpha))
        least = convergence_time(seen.eigenvalues, seen.beta)
        curves[f"{n} nodes"] = [
            convergence_time(seen.eigenvalues, scale * seen.beta) / least for scale in scales
        ]
    return found, Panel("beta / optimal beta", "time / least time", scales, curves, True)


PAPERS: dict[str, Callable[[Size], Answer]] = {
    "diffGrad": diffgrad,
    "matrix sensing": matrix_sensing,
    "Langevin averaging": langevin,
    "regime parameter": regimes,
    "intrinsic dimension": intrinsic,
    "mode connectivity": connectivity,
    "dynamical stability": stability,
    "Hessian outliers": outliers,
    "attention": attention,
}


def run(size: Size, seed: int = 0) -> Result:
    """Ask every paper; the seeds are those of the pages and do not change."""
    rows: list[dict[str, Any]] = []
    panels: dict[str, Panel] = {}
    for paper, ask in PAPERS.items():
        found, panels[paper] = ask(size)
        rows += [
            {"paper": paper, "what": what, "predicted": predicted, "measured": measured}
            for what, predicted, measured in found
        ]

    def draw(path: Path) -> None:
        figure, axes = open_figure(width=15.0, heights=[3.4] * 3, columns=3)
        for axis, (paper, panel) in zip(axes, panels.items(), strict=True):
            x = torch.tensor(panel.x, dtype=torch.float64).numpy()
            lines = {name: torch.tensor(y).double().numpy() for name, y in panel.curves.items()}
            draw_curves(axis, x, lines, x_label=panel.x_label, y_label=panel.y_label,
                        is_logarithmic=panel.is_logarithmic)  # fmt: skip
            axis.set_title(paper, fontsize="medium")
        save_figure(figure, path)

    with_number = [row for row in rows if row["predicted"] is not None]
    worst = max(with_number, key=lambda row: abs(row["measured"] - row["predicted"]))
    return Result(
        title=TITLE,
        columns=(
            Column("paper", "paper"),
            Column("what", "what"),
            Column("predicted", "predicted", ".4g"),
            Column("measured", "measured", ".4g"),
        ),
        rows=rows,
        verdict=[
            f"Farthest from its prediction: {worst['paper']}, {worst['what']} "
            f"({worst['measured']:.3g} for {worst['predicted']:.3g})."
        ],
        draw=draw,
    )
