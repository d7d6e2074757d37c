"""`make study`: what it shows, how it fails, and how it ends when it is told to."""

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
import venv
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, Workspace, copy_repository, summary

from normlab.cli import study
from normlab.utils.errors import NormlabError
from normlab.utils.progress import EpochLine

NAN = float("nan")
BIN = Path(sys.executable).parent


@pytest.mark.parametrize("loss", [0.12345, 1e-9, float("inf"), NAN])
def test_an_epoch_line_is_read_as_it_is_written(loss: float) -> None:
    line = EpochLine("bn-small", 3, 12, 0.91303, loss, loss, 75.04)
    told = EpochLine.parse(str(line))
    assert told
    assert str(told) == str(line)
    assert (told.run, told.epoch, told.epochs) == ("bn-small", 3, 12)
    assert told.val_accuracy == pytest.approx(0.9130)


@pytest.mark.parametrize(
    "line", ["", "bn: best epoch 8 of 8, val accuracy 91.30%", "bn: going on after epoch 3"]
)
def test_another_line_is_no_epoch_line(line: str) -> None:
    assert EpochLine.parse(line) is None


def test_small_batches_start_first() -> None:
    names = study.by_duration(ROOT)
    assert set(names[:2]) == {"bn-small", "gn-small"}
    assert names[2] == "main"
    assert len(names) == 9


@pytest.mark.parametrize(
    ("cards", "devices", "jobs", "given"),
    [
        ([], 1, 2, [None, None]),
        (["0"], 1, 1, ["0", "0"]),
        (["2", "5"], 1, 2, ["2", "5"]),
        (["0", "1"], 2, 1, [None, None]),  # a training that shares its batch has both
    ],
)
def test_runs_are_shared_out_among_the_gpus(
    cards: list[str], devices: int, jobs: int, given: list[str | None],
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace,
) -> None:  # fmt: skip
    started: list[tuple[list[study.Repro], int]] = []

    def finish(repros: list[study.Repro], jobs: int, *_: object) -> None:
        started.append((repros, jobs))

    workspace.set(train__devices=devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(study, "gpus", lambda: cards)
    monkeypatch.setattr(study, "is_up_to_date", lambda root: False)
    monkeypatch.setattr(study, "finish", finish)
    monkeypatch.setattr(study, "show_summary", lambda root: None)
    study.run(None, workspace.path)
    [_, (runs, side_by_side), _] = started
    assert side_by_side == jobs
    assert [run.environment.get("CUDA_VISIBLE_DEVICES") for run in runs] == given


def test_gpus_are_those_that_the_environment_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert study.gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    assert study.gpus() == ["3", "7"]


SHOWS = """
from normlab.utils.progress import EpochLine, Row
from normlab.cli.study import Board

with Board([Row(name, 30, note="waiting") for name in ("main", "bn-small", "gn", "ln")]) as board:
    board.show("main", "Running stage 'train@main':")
    for epoch in range(1, 13):
        board.show("main", str(EpochLine("main", epoch, 30, 0.9, 0.1, 0.2, 3600.0)))
    board.show("bn-small", "Running stage 'train@bn-small':")
    board.show("gn", "gn: failed: " + 100 * "long ")
    board.show("gn", "Stage 'train@gn' didn't change, skipping")
    board.show("gn", "warning: no compiler")
"""


def in_terminal(columns: int, *command: str) -> list[str]:
    """What `command` writes to a terminal of so many columns, line by line, without colours.

    Lines that are repainted in place come once for each time.
    """
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, columns))
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT / "src")}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen(command, stdout=side, env=environment)
    os.close(side)
    written = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # how Linux says that nothing writes to it any more
            part = b""
        if not part:
            break
        written += part
    os.close(main)
    assert process.wait() == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    return [line for line in re.split(r"[\r\n]+", plain) if line]


def test_a_terminal_shows_one_line_a_run() -> None:
    lines = in_terminal(80, sys.executable, "-c", SHOWS)
    assert all(len(line) <= 80 for line in lines)
    assert "gn: warning: no compiler" in [line.strip() for line in lines]
    main, small, failed, waiting = lines[-4:]
    assert re.fullmatch(r"main      ━+╺━+  12/30  val 90\.00%  18:00:00 left *", main)
    assert re.fullmatch(r"bn-small +train *", small)
    assert re.fullmatch(r"gn +failed: long .*…", failed)
    assert re.fullmatch(r"ln +waiting *", waiting)


TRAINS = """
from normlab.utils.progress import EpochLine, epochs

with epochs("bn", 4, 6, steps=3) as bar:
    for epoch in (4, 5):
        for step in range(3):
            bar.step()
        bar.epoch(EpochLine("bn", epoch, 6, 0.9, 0.1, 0.2, 3600.0))
"""


def test_one_training_shows_a_bar_in_a_terminal_and_a_line_an_epoch_elsewhere() -> None:
    command = (sys.executable, "-c", TRAINS)
    shown = in_terminal(80, *command)
    assert all(len(line) <= 80 for line in shown)
    assert re.fullmatch(r"bn  ━+╸━+  5/6  val 90\.00%  1:00:00 left *", shown[-1])
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told = [EpochLine.parse(line) for line in printed.splitlines()]
    assert [line and line.epoch for line in told] == [4, 5]


def test_a_narrow_terminal_cuts_lines() -> None:
    lines = in_terminal(45, sys.executable, "-c", SHOWS)
    assert all(len(line) <= 45 for line in lines)
    assert [line.split()[0] for line in lines[-4:]] == ["main", "bn-small", "gn", "ln"]


#: in place of DVC: its stage prints an epoch, and then does what the name of the run says
DVC = """
import subprocess, sys
target = sys.argv[-1]
name = target.partition("@")[2]
stage = '''
import signal, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(f"{sys.argv[1]}: epoch 1/2  val accuracy 50.00%  loss 1.0 train 1.0 val  1.0 s", flush=True)
if sys.argv[1] == "bad":
    sys.exit("error: a bad run")
if sys.argv[1] != "good":
    time.sleep(100)
'''
print(f"Running stage '{target}':", flush=True)
if subprocess.run([sys.executable, "-c", stage, name]).returncode:
    print(f"ERROR: failed to reproduce '{target}'", flush=True)
    open(f"{name}.ended", "w").close()
    sys.exit(255)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `finish` runs its program in place of DVC."""
    (tmp_path / "dvc.py").write_text(DVC)
    monkeypatch.setattr(study, "DVC", (sys.executable, str(tmp_path / "dvc.py")))
    return tmp_path


def finish(folder: Path, *names: str, signals: tuple[int, ...] = ()) -> None:
    """Have `study.finish` run the runs `names`; `signals` come at the first epoch."""
    caught: list[int] = []

    class Board(study.Board):
        def show(self, name: str, line: str) -> None:
            super().show(name, line)
            if "epoch" in line and not caught:
                caught.extend(signals)

    runs = [study.Repro(name, [f"train@{name}"], folder) for name in names]
    study.finish(runs, 2, Board(), caught)


def test_runs_that_fail_are_named_when_the_others_are_done(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NormlabError, match=r"^2 of 4 failed: bad, bad; bad: a bad run$"):
        finish(folder, "bad", "good", "bad", "good")
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("good: finished") == 2
    assert lines.count("bad: failed: a bad run") == 2
    assert len([line for line in lines if line.startswith("good: epoch 1/2  val")]) == 2
    assert not [line for line in lines if "Running stage" in line]


def test_a_signal_ends_the_stages_and_dvc_ends_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = study.Repro.stop

    def slow_stop(repro: study.Repro, at_once: bool = False) -> None:
        stop(repro, at_once)
        time.sleep(0.5)  # time for the run that waits to take the place of one that has ended

    monkeypatch.setattr(study.Repro, "stop", slow_stop)
    with pytest.raises(NormlabError, match=r"^stopped by SIGTERM; the same command goes on"):
        finish(folder, "one", "two", "never", signals=(signal.SIGTERM,))
    ended = {path.stem for path in folder.glob("*.ended")}
    assert ended <= {"one", "two"}
    assert ended
    assert living(folder) == []


@pytest.mark.parametrize(
    ("grace", "signals"), [(0.3, (signal.SIGTERM,)), (1000, (signal.SIGINT, signal.SIGINT))]
)
def test_what_goes_on_is_killed_after_a_while_or_at_the_second_interrupt(
    grace: float, signals: tuple[int, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "GRACE_S", grace)
    with pytest.raises(NormlabError, match="stopped by"):
        finish(folder, "stubborn", signals=signals)
    assert living(folder) == []


def living(folder: Path) -> list[str]:
    """The commands that run in `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(" ".join(process.cmdline()))
    return found


def start(workspace: Workspace) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "normlab", "study"],
        cwd=workspace.path,
        env={**workspace.environment, "PATH": f"{BIN}:{os.environ['PATH']}"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def read_until(process: subprocess.Popen[str], *wanted: str) -> list[str]:
    """The lines that `process` prints until each of `wanted` has begun one."""
    lines: list[str] = []
    assert process.stdout
    while not all(any(line.startswith(start) for line in lines) for start in wanted):
        line = process.stdout.readline()
        assert line, lines
        lines.append(line.rstrip())
    return lines


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on(workspace: Workspace) -> None:
    """No process outlives a signal, not even SIGKILL, and DVC's locks do not block the next."""
    workspace.set(train__epochs=12)
    first = start(workspace)
    read_until(first, "main: epoch", "bn: epoch")
    first.send_signal(signal.SIGTERM)
    _, error = first.communicate()
    assert first.returncode == 1
    assert error == "error: stopped by SIGTERM; the same command goes on where it stood\n"
    assert living(workspace.path) == []

    second = start(workspace)
    read_until(second, "main: going on after epoch", "bn: going on after epoch")
    second.kill()
    second.communicate()
    begin = time.monotonic()
    while living(workspace.path):  # they end where they print the next epoch
        assert time.monotonic() - begin < 60
        time.sleep(0.1)

    third = start(workspace)
    lines = read_until(third, "main: going on after epoch", "bn: going on after epoch")
    out, error = third.communicate()
    assert third.returncode == 0, (out, error)
    assert not re.search(r"^(main|bn): epoch 1/", "\n".join([*lines, out]), re.MULTILINE)
    assert "main: finished" in out
    assert "bn: finished" in out
    assert list(summary(out)) == ["main", "bn"]
    assert "up to date" in workspace.run("dvc", "status").stdout


def test_a_folder_outside_of_git_is_refused_at_once(tmp_path: Path) -> None:
    made = copy_repository(tmp_path / "download")
    shutil.rmtree(made.path / ".git")
    made.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    before = sorted(made.path.rglob("*"))
    done = made.run("python", "-m", "normlab", "study", check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"error: this folder is in no Git .*`git init`.*\n", done.stderr)
    assert sorted(made.path.rglob("*")) == before


def test_dvc_may_be_set_to_work_without_git(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    with pytest.raises(NormlabError, match="in no Git repository"):
        study.require_git(tmp_path)
    (tmp_path / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    study.require_git(tmp_path)


def test_a_stage_runs_by_the_python_of_the_repository(tmp_path: Path) -> None:
    """DVC that was started by its path takes the `python` of PATH, which may lack packages."""
    made = copy_repository(tmp_path / "repository")
    venv.create(tmp_path / "bare", symlinks=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def check(root: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tmp_path / "bare/bin/python", "-m", "stages.check"],
            cwd=root, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    done = check(made.path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .* lacks packages .*`make install && .*\n", done.stderr)

    (made.path / ".venv").symlink_to(sys.prefix)
    copy = made.path / ".dvc/tmp/exps/standalone/tmp1"  # as DVC makes of an experiment
    for name in ("src", "stages", "params.yaml"):
        place = shutil.copytree if (made.path / name).is_dir() else shutil.copy
        copy.mkdir(parents=True, exist_ok=True)
        place(made.path / name, copy / name)
    for root in (made.path, copy):
        assert check(root).returncode == 0
        assert (root / "data/params.ok").exists()
