"""DeepXDE on the Burgers equation of its documentation; runs in the environment of peers.

Takes settings as JSON and prints a JSON line for each answer. ``"mode": "train"`` follows the
published schedule, Adam then L-BFGS in float32. ``"mode": "step"`` answers each line on standard
input with the time of one Adam step.
"""

import json
import os
import sys
import time

os.environ["DDE_BACKEND"] = "pytorch"
# What the library says is not for the reader of answers.
ANSWERS, sys.stdout = sys.stdout, sys.stderr

import deepxde as dde  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

NU = 0.01 / np.pi


def equation(x, u):
    u_x = dde.grad.jacobian(u, x, i=0, j=0)
    u_t = dde.grad.jacobian(u, x, i=0, j=1)
    return u_t + u * u_x - NU * dde.grad.hessian(u, x, i=0, j=0)


def answer(**values):
    print(json.dumps(values), file=ANSWERS, flush=True)


def space_time():
    return dde.geometry.GeometryXTime(dde.geometry.Interval(-1, 1), dde.geometry.TimeDomain(0, 1))


def limit_lbfgs(iterations):
    dde.optimizers.set_LBFGS_options(maxiter=iterations)
    # Version 1.15 works out the size of a part when it is imported, for its own default.
    options = dde.optimizers.LBFGS_options
    options["iter_per_step"] = min(1000, iterations)
    options["fun_per_step"] = options["maxfun"] * options["iter_per_step"] // iterations


def train(settings):
    """Report CPU time and error after each part of the schedule."""
    domain = space_time()
    wall = dde.icbc.DirichletBC(domain, lambda x: 0, lambda _, is_on: is_on)
    start = dde.icbc.IC(domain, lambda x: -np.sin(np.pi * x[:, 0:1]), lambda _, is_at: is_at)
    data = dde.data.TimePDE(
        domain, equation, [wall, start], num_domain=2540, num_boundary=80, num_initial=160
    )
    model = dde.Model(data, dde.nn.FNN([2] + [20] * 3 + [1], "tanh", "Glorot normal"))
    reference = np.load(settings["reference"])
    points, exact = reference["points"].astype(np.float32), reference["u"]
    spent = 0.0

    def report(part):
        error = np.linalg.norm(model.predict(points).ravel() - exact) / np.linalg.norm(exact)
        answer(part=part, cpu=spent, error=float(error))

    parts = [("Adam", share) for share in settings["adam"]]
    model.compile("adam", lr=1e-3, verbose=0)
    for part, iterations in [*parts, ("L-BFGS", None)]:
        if iterations is None:
            limit_lbfgs(settings["lbfgs"])
            model.compile("L-BFGS", verbose=0)
        began = time.process_time()
        model.train(iterations=iterations, display_every=10**9, verbose=0)
        spent += time.process_time() - began
        report(part)


def step(settings):
    """Time one step, exact conditions and float64 as on our side."""
    dde.config.set_default_float("float64")
    data = dde.data.TimePDE(
        space_time(), equation, [], num_domain=settings["points"], num_boundary=0, num_initial=0
    )
    width, depth = settings["width"], settings["depth"]
    net = dde.nn.FNN([2] + [width] * depth + [1], "tanh", "Glorot normal")
    net.apply_output_transform(
        lambda x, y: -torch.sin(np.pi * x[:, :1]) + x[:, 1:] * (1 - x[:, :1] ** 2) * y
    )
    model = dde.Model(data, net)
    model.compile("adam", lr=1e-3, verbose=0)

    def spend(iterations):
        began = time.process_time()
        model.train(iterations=iterations, display_every=10**9, verbose=0)
        return time.process_time() - began

    spend(3)
    for _ in sys.stdin:
        # The difference leaves out what a call costs beside its steps.
        few, many = spend(2), spend(2 + settings["steps"])
        answer(seconds=(many - few) / settings["steps"])


if __name__ == "__main__":
    chosen = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    dde.config.set_random_seed(chosen["seed"])
    {"train": train, "step": step}[chosen["mode"]](chosen)
