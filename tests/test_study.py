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
from normlab.config import params
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
    "line", ["", "bn: best epoch 8 of 8, val accuracy 91.30%", "bn: resumes after epoch 3"]
)
def test_another_line_is_no_epoch_line(line: str) -> None:
    assert EpochLine.parse(line) is None


def test_the_study_comes_first_then_seed_by_seed_then_batch_sizes() -> None:
    config = params.load(ROOT / "params.yaml").model_copy(
        update={"seed": 7, "repeat": params.Repeat(seeds=[3, 2], batch_sizes=[32, 2])}
    )
    found = study.trainings(config, ROOT)
    names = list(found)
    assert set(names[:2]) == {"bn-small", "gn-small"}
    assert names[2] == "main"
    assert found["main"] == ["train@main", "evaluate@main", "features@main"]
    assert names[9:12] == ["bn-8-3", "gn-8-3", "torch_bn-128-3"]
    assert {name.rpartition("-")[2] for name in names[9:18]} == {"3"}
    assert {name.rpartition("-")[2] for name in names[18:27]} == {"2"}
    assert names[27:] == ["bn-2-7", "gn-2-7", "bn-32-7", "gn-32-7"]
    assert found["bn-2-7"] == ["batch-size@bn-2-7"]
    none = params.Repeat(seeds=[], batch_sizes=[])
    assert list(study.trainings(config.model_copy(update={"repeat": none}), ROOT)) == names[:9]


@pytest.mark.parametrize(
    ("cards", "devices", "jobs", "given"),
    [
        ([], 1, None, [None, None]),
        (["3"], 1, None, ["3"]),
        (["2", "5"], 1, None, ["2", "5"]),
        (["2", "5"], 1, 3, ["2", "5", "2"]),
        (["0", "1"], 2, None, [None]),  # a training that shares its batch has both
    ],
)
def test_what_runs_at_a_time_follows_from_the_gpus(
    cards: list[str], devices: int, jobs: int | None, given: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(study, "gpus", lambda: cards)
    shares = study.shares(jobs, 9, devices)
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in shares] == given


@pytest.mark.parametrize(
    ("jobs", "trainings", "devices", "threads"),
    [(None, 9, 1, "4"), (3, 9, 1, "2"), (3, 1, 1, "8"), (20, 30, 1, "1"), (None, 9, 2, "4")],
)
def test_what_runs_at_a_time_shares_the_cores(
    jobs: int | None, trainings: int, devices: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "gpus", lambda: [])
    monkeypatch.setattr(study.joblib, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    shares = study.shares(jobs, trainings, devices)
    assert {share["OMP_NUM_THREADS"] for share in shares} == {threads}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert study.shares(jobs, trainings, devices)[0] == {"OMP_NUM_THREADS": "7"}


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As SIGHUP under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with study.caught_signals() as caught:
            for number in (signal.SIGHUP, signal.SIGTERM):
                os.kill(os.getpid(), number)
        assert caught == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


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
    board.end("gn", "failed: " + 100 * "long ")
    board.show("gn", "Stage 'train@gn' didn't change, skipping")
    board.show("gn", "warning: no compiler")
"""


def in_terminal(columns: int, code: str) -> list[str]:
    """What Python's `code` writes to a terminal of so many columns, line by line, without colours.

    Lines that are repainted in place come once for each time.
    """
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, columns))
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT / "src")}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=side, env=environment)
    os.close(side)
    written = b""
    with os.fdopen(main, "rb", 0) as terminal, contextlib.suppress(OSError):  # at its end, on Linux
        while part := terminal.read(65536):
            written += part
    assert process.wait() == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    lines = [line for line in re.split(r"[\r\n]+", plain) if line]
    assert all(len(line) <= columns for line in lines)
    return lines


def test_a_terminal_shows_one_line_a_run() -> None:
    lines = in_terminal(80, SHOWS)
    assert "gn: warning: no compiler" in [line.strip() for line in lines]
    main, small, failed, waiting = lines[-4:]
    assert re.fullmatch(r"main      ━+╺━+  12/30  val 90\.00%  (18:00:00|17:59:5\d) left *", main)
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
    shown = in_terminal(80, TRAINS)
    assert re.fullmatch(r"bn  ━+╸━+  5/6  val 90\.00%  (1:00:00|0:59:5\d) left *", shown[-1])
    command = [sys.executable, "-c", TRAINS]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    told = [EpochLine.parse(line) for line in printed.splitlines()]
    assert [line and line.epoch for line in told] == [4, 5]


def test_a_narrow_terminal_cuts_lines() -> None:
    lines = in_terminal(45, SHOWS)
    assert [line.split()[0] for line in lines[-4:]] == ["main", "bn-small", "gn", "ln"]


SHOWS_MANY = """
from normlab.utils.progress import EpochLine, Row
from normlab.cli.study import Board

names = [f"run-{number}" for number in range(40)]
with Board([Row(name, 30, note="waiting") for name in names]) as board:
    board.show("run-0", str(EpochLine("run-0", 1, 30, 0.9, 0.1, 0.2, 3600.0)))
    for name in names[1:30]:
        board.end(name, "finished")
    board.show("run-30", "Running stage 'train@run-30':")
"""


def test_a_low_terminal_shows_what_trains_and_not_all_that_has_ended() -> None:
    shown = in_terminal(80, SHOWS_MANY)[-24:]
    names = [line.split()[0] for line in shown]
    assert names == ["run-0", *(f"run-{number}" for number in range(17, 40))]
    assert shown[0].split()[-1] == "left"
    assert shown[14].split() == ["run-30", "train"]


#: in place of DVC: its stage prints an epoch, and then does what the name of the run says
DVC = """
import subprocess, sys
target = sys.argv[-1]
name = target.partition("@")[2]
stage = '''
import os, signal, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(f"{sys.argv[1]}: epoch 1/2  val accuracy 50.00%  loss 1.0 train 1.0 val  1.0 s", flush=True)
with open(f"{sys.argv[1]}.gpu", "w") as file:
    file.write(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
if sys.argv[1] == "bad":
    sys.exit("error: a bad run")
while sys.argv[1] == "long" and not os.path.exists("good-3.gpu"):
    time.sleep(0.02)
if sys.argv[1] in ("one", "two", "never", "stubborn"):
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


def finish(
    folder: Path, *names: str, gpus: tuple[str, ...] = ("", ""), signals: tuple[int, ...] = ()
) -> None:
    """Have `study.finish` run the runs `names`; `signals` come at the first epoch."""
    caught: list[int] = []

    class Board(study.Board):
        def show(self, name: str, line: str) -> None:
            super().show(name, line)
            if "epoch" in line and not caught:
                caught.extend(signals)

    runs = [study.Repro(name, [f"train@{name}"], folder) for name in names]
    study.finish(runs, [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus], Board(), caught)


def test_a_gpu_that_falls_free_is_taken_by_the_next(folder: Path) -> None:
    finish(folder, "long", "good-1", "good-2", "good-3", gpus=("2", "5"))
    used = {path.stem: path.read_text() for path in folder.glob("*.gpu")}
    first = used.pop("long")
    assert first in ("2", "5")
    assert list(used.values()) == 3 * [{"2": "5", "5": "2"}[first]]


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
    with pytest.raises(NormlabError, match=r"^stopped by SIGTERM; the same command resumes"):
        finish(folder, "one", "two", "never", signals=(signal.SIGTERM,))
    assert {path.stem for path in folder.glob("*.ended")} in ({"one"}, {"two"}, {"one", "two"})
    assert living(folder) == []


@pytest.mark.parametrize(
    ("grace", "signals"), [(0.3, (signal.SIGTERM,)), (1000, (signal.SIGINT, signal.SIGINT))]
)
def test_what_goes_on_is_killed_after_a_while_or_at_the_second_interrupt(
    grace: float, signals: tuple[int, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "GRACE_S", grace)
    begin = time.monotonic()
    with pytest.raises(NormlabError, match="stopped by"):
        finish(folder, "stubborn", signals=signals)
    assert time.monotonic() - begin < 80  # by itself it takes 100 s
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
        [sys.executable, "-m", "normlab", "study"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=workspace.path,
        env={**workspace.environment, "PATH": f"{BIN}:{os.environ['PATH']}"},
    )  # fmt: skip


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
def test_a_study_that_was_stopped_goes_on(finished: Workspace, tmp_path: Path) -> None:
    """No process outlives a signal, not even SIGKILL, and DVC's locks do not block the next.

    A run and a repetition train side by side.
    """
    workspace = finished.copy(tmp_path / "repository")
    workspace.keep_runs("main")
    workspace.set(train__epochs=8, repeat__batch_sizes=[64])
    resumed = ("main: resumes after epoch", "bn-64-1: resumes after epoch")
    first = start(workspace)
    read_until(first, "main: epoch", "bn-64-1: epoch")
    first.send_signal(signal.SIGTERM)
    _, error = first.communicate()
    assert first.returncode == 1
    assert error == "error: stopped by SIGTERM; the same command resumes it\n"
    assert living(workspace.path) == []

    second = start(workspace)
    read_until(second, *resumed)
    second.kill()
    second.communicate()
    begin = time.monotonic()
    while living(workspace.path):  # they end where they print the next epoch
        assert time.monotonic() - begin < 60
        time.sleep(0.1)

    third = start(workspace)
    lines = read_until(third, *resumed)
    out, error = third.communicate()
    assert third.returncode == 0, (out, error)
    assert not re.search(r"^(main|bn-64-1): epoch 1/", "\n".join([*lines, out]), re.MULTILINE)
    assert "main: finished" in out
    assert "bn-64-1: finished" in out
    assert list(summary(out)) == ["main"]
    assert "up to date" in workspace.run("dvc", "status").stdout


def test_a_folder_outside_of_git_is_refused_at_once(tmp_path: Path) -> None:
    made = copy_repository(tmp_path / "download")
    shutil.rmtree(made.path / ".git")
    made.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    before = sorted(made.path.rglob("*"))
    done = made.run("python", "-m", "normlab", "study", check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"error: this folder is not in a Git .*`git init`.*\n", done.stderr)
    assert sorted(made.path.rglob("*")) == before


def test_dvc_may_be_set_to_work_without_git(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    with pytest.raises(NormlabError, match="not in a Git repository"):
        study.require_git(tmp_path)
    (tmp_path / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    study.require_git(tmp_path)


@pytest.mark.slow
def test_a_stage_runs_by_the_python_of_the_repository(workspace: Workspace, tmp_path: Path) -> None:
    """DVC that was started by its path takes the `python` of PATH, which may lack packages."""
    venv.create(tmp_path / "bare", symlinks=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def download(root: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tmp_path / "bare/bin/python", "-m", "stages.download"],
            cwd=root, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    done = download(workspace.path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .* lacks packages .*`make install && .*\n", done.stderr)

    (workspace.path / ".venv").symlink_to(sys.prefix)
    copy = workspace.path / ".dvc/tmp/exps/standalone/tmp1"  # as DVC makes of an experiment
    for name in ("src", "stages"):
        shutil.copytree(workspace.path / name, copy / name)
    shutil.copy(workspace.path / "params.yaml", copy)
    for root in (workspace.path, copy):
        assert download(root).returncode == 0
        assert (root / "data/images/test.safetensors").exists()
