"""What does the gradient of a whole rollout cost?

Forward is a rollout without gradients. With graph every step is solved at the gradient's smoothing
too; ``backward`` is one adjoint sweep over all steps. The chain is the same by one `Simulator.step`
at a time. The policy is a perceptron with two hidden layers of 32, in a native call and its weights
differentiated, beside given controls.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from contact_step import REGIMES, TIMESTEP, Contest, build_contest
from record import Column, Result, Size
from scenes import LOCOMOTION
from timing import Timings, alternate

import physim
from physim.dynamics import MLPPolicy

__all__ = ["run"]

TITLE = "Gradient of a rollout, per environment step [µs]"
HIDDEN = 32


def run(size: Size, seed: int = 0) -> Result:
    """Time rollouts and their gradients for every robot."""
    batches, steps = {"tiny": ((8,), 20), "small": ((256,), 50), "full": ((256, 1024), 50)}[size]
    robots = {"tiny": LOCOMOTION[:1], "small": LOCOMOTION[:2], "full": LOCOMOTION[:4]}[size]
    repetitions = 2 if size == "tiny" else 5
    rows = []
    for name in robots:
        for regime in REGIMES:
            for batch in batches:
                contest = build_contest(
                    name,
                    regime=regime,
                    batch=batch,
                    steps=steps,
                    seed=seed,
                    ahead=0.1 if size == "tiny" else None,
                )
                work, motion = _work(contest, seed)
                timings = alternate(work, repetitions=repetitions)
                rows.append(_row(name, regime, batch, steps, timings, motion))
    shares = [float(row["ratio_backward"]) for row in rows]
    return Result(
        title=TITLE,
        columns=(
            Column("model", "model"),
            Column("regime", "regime"),
            Column("batch", "batch"),
            Column("forward", "rollout"),
            Column("graph", "with graph"),
            Column("backward", "backward"),
            Column("mass", "of masses"),
            Column("ratio_backward", "backward, rollouts", ".2f"),
            Column("ratio_chain", "chain, sweep", ".2f"),
            Column("ratio_policy", "policy, given", ".2f"),
            Column("policy_backward", "of weights"),
        ),
        rows=rows,
        settings={
            "steps": steps,
            "timestep": TIMESTEP,
            "repetitions": repetitions,
            "loss": "sum of the last q; gradients of v, controls, then of masses too",
            "chain": "all of forward and backward, step by step, over the same as a rollout",
            "policy": f"two hidden layers of {HIDDEN}, tanh; time of its rollout over given ones",
        },
        verdict=[
            f"Backward costs {min(shares):.2f} to {max(shares):.2f} rollouts without gradients; "
            f"step by step the whole gradient takes {min(r['ratio_chain'] for r in rows):.1f} to "
            f"{max(r['ratio_chain'] for r in rows):.1f} times as long."
        ],
    )


def _work(
    contest: Contest, seed: int
) -> tuple[dict[str, Callable[[], object]], list[physim.Trajectory]]:
    """What is timed; backward pulls through the graph that was made last."""
    sim, state, controls = contest.simulator, contest.state, contest.controls
    policy, weights = _policy(sim, seed)
    made: dict[str, torch.Tensor] = {}
    motion: list[physim.Trajectory] = []

    def differentiable(*, has_mass: bool) -> tuple[physim.State, torch.Tensor, dict | None]:
        start = physim.State(
            q=state.q,
            v=state.v.detach().requires_grad_(),
            interval=state.interval,
            impulses=state.impulses,
        )
        parameters = {"mass": sim.parameters()["mass"].requires_grad_()} if has_mass else None
        return start, controls.detach().requires_grad_(), parameters

    def graph(*, has_mass: bool = False) -> None:
        start, u, parameters = differentiable(has_mass=has_mass)
        motion[:] = [sim.rollout(start, u, parameters=parameters, on_failure="mask")]
        made["mass" if has_mass else "plain"] = _loss(motion[0].q[-1])

    def chain() -> None:
        now, u, _ = differentiable(has_mass=False)
        for control in u:
            now, _ = sim.step(now, control, on_failure="mask")
        _loss(now.q).backward()

    def all_at_once() -> None:
        start, u, _ = differentiable(has_mass=False)
        _loss(sim.rollout(start, u, on_failure="mask").q[-1]).backward()

    def with_policy(*, has_gradient: bool) -> None:
        for weight in weights:
            weight.requires_grad_(has_gradient)
        found = sim.rollout(state, policy, steps=len(controls), on_failure="mask")
        made["policy"] = _loss(found.q[-1])

    def pull(name: str) -> Callable[[], object]:
        return lambda: made[name].backward(retain_graph=True)

    return {
        "forward": lambda: sim.rollout(state, controls, on_failure="mask"),
        "graph": graph,
        "backward": pull("plain"),
        "graph_mass": lambda: graph(has_mass=True),
        "mass": pull("mass"),
        "chain": chain,
        "all": all_at_once,
        "policy": lambda: with_policy(has_gradient=False),
        "graph_policy": lambda: with_policy(has_gradient=True),
        "policy_backward": pull("policy"),
    }, motion


def _policy(sim: physim.Simulator, seed: int) -> tuple[MLPPolicy, list[torch.Tensor]]:
    """A perceptron of the whole state, its controls within the model's range."""
    random = torch.Generator().manual_seed(seed)
    widths = [sim.model.nq + sim.model.nv, HIDDEN, HIDDEN, sim.model.nu]
    weights = [
        torch.randn(n, m, generator=random, dtype=torch.float64) / m**0.5
        for m, n in itertools.pairwise(widths)
    ]
    biases = [torch.zeros(n, dtype=torch.float64) for n in widths[1:]]
    bounds = tuple(sim.parameters()[f"control_{side}"] for side in ("lower", "upper"))
    return MLPPolicy(weights, biases, ["tanh", "tanh", "identity"], bounds=bounds), weights


def _loss(q: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isfinite(q), q, 0.0).sum()


def _row(
    name: str,
    regime: str,
    batch: int,
    steps: int,
    timings: Timings,
    motion: list[physim.Trajectory],
) -> dict[str, object]:
    unit = 1e6 / (batch * steps)
    summary = motion[0].summary()
    return {
        "model": name,
        "regime": regime,
        "batch": batch,
        **{key: unit * timings.median(key) for key in timings.seconds},
        "ratio_backward": timings.ratio("backward", "forward"),
        "ratio_graph": timings.ratio("graph", "forward"),
        "ratio_mass": timings.ratio("mass", "forward"),
        "ratio_chain": timings.ratio("chain", "all"),
        "ratio_policy": timings.ratio("policy", "forward"),
        "half_steps": summary["half_steps"],
        "failures": summary["failures"],
    }
