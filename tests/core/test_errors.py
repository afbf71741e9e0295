"""Errors are the built-in ones too, carry data, and cross process borders."""

import pickle
import warnings

import pytest
import torch

from solvers.core import (
    CheckpointError,
    InfeasibleError,
    MissingExtraError,
    ModelError,
    NonFiniteError,
    NotConvergedError,
    NumericalWarning,
    PhysimError,
    Report,
    SettingsError,
    ShapeError,
    Solution,
    Status,
    UnitError,
    apply_on_failure,
    require_extra,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (CheckpointError, RuntimeError),
        (InfeasibleError, NotConvergedError),
        (MissingExtraError, ImportError),
        (ModelError, ValueError),
        (NonFiniteError, ArithmeticError),
        (NotConvergedError, RuntimeError),
        (SettingsError, ValueError),
        (ShapeError, ValueError),
        (UnitError, ValueError),
    ],
)
def test_errors_are_physim_and_builtin(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, PhysimError)
    assert issubclass(error, builtin)


@pytest.mark.parametrize(
    "error",
    [
        ModelError("mass is negative; give a positive one", element="torso"),
        NonFiniteError("bad", name="q", index=(3, 1), step=7),
        MissingExtraError("absent", module="viser", extra="viz"),
        NotConvergedError("slow", solution={"x": 1.0}),
    ],
)
def test_errors_survive_pickling(error: PhysimError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_model_error_names_its_element_once() -> None:
    assert str(ModelError("mass is negative", element="torso")) == "torso: mass is negative"
    assert str(ModelError("body torso has no mass", element="torso")) == "body torso has no mass"


def test_require_extra_returns_the_module() -> None:
    assert require_extra("json.decoder", "viz").JSONDecoder


def test_require_extra_gives_the_command() -> None:
    with pytest.raises(MissingExtraError, match=r'pip install "physim\[viz\]"') as caught:
        require_extra("no_such_package.part", "viz")
    assert (caught.value.module, caught.value.extra) == ("no_such_package.part", "viz")


def test_require_extra_passes_on_a_broken_installation(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_package.py").write_text("import a_dependency_that_is_absent")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_dependency") as caught:
        require_extra("broken_package", "viz")
    assert not isinstance(caught.value, MissingExtraError)


def report_of(*status: Status) -> Report:
    return Report(
        status=torch.tensor([int(s) for s in status]),
        iterations=torch.ones(len(status), dtype=torch.int64),
        residual=torch.ones(len(status)),
    )


def test_success_is_silent_under_every_policy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for policy in ("raise", "warn", "mask"):
            assert apply_on_failure(report_of(Status.CONVERGED), policy).all()


def test_raise_carries_the_solution() -> None:
    report = report_of(Status.CONVERGED, Status.STALLED)
    solution = Solution(value=torch.zeros(2), report=report)
    with pytest.raises(NotConvergedError, match="Newton did not converge for 1 of 2") as caught:
        apply_on_failure(report, solution=solution, what="Newton")
    assert caught.value.solution is solution
    assert Status.STALLED.advice in str(caught.value)


def test_infeasible_only_if_nothing_else_failed() -> None:
    with pytest.raises(InfeasibleError):
        apply_on_failure(report_of(Status.INFEASIBLE, Status.UNBOUNDED, Status.CONVERGED))
    with pytest.raises(NotConvergedError) as caught:
        apply_on_failure(report_of(Status.INFEASIBLE, Status.STALLED))
    assert not isinstance(caught.value, InfeasibleError)


def test_warn_points_at_the_caller_of_the_solver() -> None:
    def solver() -> torch.Tensor:
        return apply_on_failure(report_of(Status.STALLED, Status.CONVERGED), "warn")

    with pytest.warns(NumericalWarning, match="1 of 2") as caught:
        mask = solver()
    assert mask.tolist() == [False, True]
    assert caught[0].filename == __file__
    assert caught[0].lineno == solver.__code__.co_firstlineno + 4


def test_mask_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert apply_on_failure(report_of(Status.BREAKDOWN), "mask").tolist() == [False]


def test_unknown_policy_is_refused_even_without_failure() -> None:
    with pytest.raises(SettingsError, match="did you mean 'mask'"):
        apply_on_failure(report_of(Status.CONVERGED), "masks")
