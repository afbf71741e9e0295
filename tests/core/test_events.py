"""Progress: silent, plain or live, and in order when interrupted."""

import io
import os
import signal
import threading
import time

import pytest

from solvers.core import Progress, catch_interrupt, open_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(stream: io.StringIO, *, steps: int = 3, show: bool | None = None) -> str:
    with open_progress(steps, description="solve", stream=stream, show=show) as progress:
        assert isinstance(progress, Progress)
        for step in range(1, steps + 1):
            progress.update(step, residual=10.0**-step, phase="cg")
    return stream.getvalue()


def test_plain_lines_where_there_is_no_terminal() -> None:
    lines = run(io.StringIO(), show=True).splitlines()
    assert lines[0].startswith("solve 1/3")
    assert "left" in lines[0]
    assert lines[-1].startswith("solve 3/3")
    assert "residual 0.001  phase cg" in lines[-1]
    # A pause lies between lines: a fast loop must not flood the log.
    assert len(lines) == 2


def test_silent_by_default_without_a_terminal_and_on_request() -> None:
    assert run(io.StringIO()) == ""
    assert run(Terminal(), show=False) == ""


def test_live_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = run(Terminal())
    assert "solve 3/3" in text
    assert text.rindex("\x1b[?25h") > text.index("\x1b[?25l"), "the cursor comes back"


def test_unknown_total_shows_no_time_left() -> None:
    stream = io.StringIO()
    with open_progress(None, description="fit", stream=stream, show=True) as progress:
        progress.update(5)
    assert stream.getvalue().startswith("fit 5 ")
    assert "left" not in stream.getvalue()


def test_a_limit_in_time_gives_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = []
    for steps, seconds in ((None, 60.0), (40, 60.0), (1000, 60.0)):
        stream = io.StringIO()
        now[0] = 100.0
        with open_progress(
            steps, description="fit", seconds=seconds, stream=stream, show=True
        ) as progress:
            progress.update(1)
            now[0] += 15.0
            progress.update(30)
        lines.append(stream.getvalue().splitlines()[-1])
    # Thirty steps in 15 s: time runs out in 45 s, forty steps are done in 5 s.
    assert "0:45 left" in lines[0]
    assert "0:05 left" in lines[1]
    assert "0:45 left" in lines[2]


def test_rate_of_a_resumed_call_leaves_earlier_steps_out() -> None:
    stream = io.StringIO()
    with open_progress(10**6, description="fit", stream=stream, show=True) as progress:
        threading.Event().wait(0.05)
        progress.update(500_001)
    # One step in 0.05 s or more.
    rate = float(stream.getvalue().split("/s")[0].split()[-1])
    assert rate <= 20


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_interrupt_passes_and_is_told(stream: io.StringIO) -> None:
    def fit() -> None:
        with open_progress(9, description="fit", stream=stream, show=True) as progress:
            progress.update(4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit()
    assert "fit 4/9" in stream.getvalue()
    assert "(interrupted)" in stream.getvalue()


def test_an_error_passes_and_is_told() -> None:
    stream = io.StringIO()
    with (
        pytest.raises(ZeroDivisionError),
        open_progress(9, description="fit", stream=stream, show=True),
    ):
        raise ZeroDivisionError
    assert "(stopped by ZeroDivisionError)" in stream.getvalue()


def test_first_ctrl_c_asks_and_second_stops() -> None:
    before = signal.getsignal(signal.SIGINT)
    with catch_interrupt() as interrupt:
        assert not interrupt.is_requested
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.is_requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_outside_the_main_thread_is_a_plain_flag() -> None:
    seen: list[bool] = []

    def work() -> None:
        with catch_interrupt() as interrupt:
            interrupt.request()
            seen.append(interrupt.is_requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
