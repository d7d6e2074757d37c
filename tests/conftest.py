"""What the tests share: a copy of the repository to run DVC in, and small data."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# Before torch is imported: several threads of a small computation mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("NORMLAB_SCRATCH", None)  # a user's folder
os.environ["LC_ALL"] = "C.UTF-8"  # messages of Git are compared

import numpy as np
import pytest
import warm
import yaml
from filelock import FileLock

from normlab.data.images import Images
from normlab.utils.errors import NormlabError

ROOT = Path(__file__).resolve().parent.parent
WARM = "NORMLAB_TEST_PYTHON"  #: the folder of the scripts that `warm` makes


def pytest_configure(config: pytest.Config) -> None:
    """Start the server that all processes of pytest share; hide GPUs from all but their tests."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if WARM not in os.environ:
        server, folder = warm.start()
        os.environ[WARM] = str(folder)

        def stop() -> None:
            del os.environ[WARM]
            server.communicate()
            shutil.rmtree(folder)

        config.add_cleanup(stop)


class Workspace:
    """A copy of this repository's files in a Git repository of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(path / "src"),  # not that of this repository
            "NORMLAB_SCRATCH": str(path / ".scratch"),
            "GIT_CONFIG_GLOBAL": os.devnull,  # a user's may sign commits
            "GIT_AUTHOR_NAME": "Test",
            "GIT_AUTHOR_EMAIL": "test@example.invalid",
            "GIT_COMMITTER_NAME": "Test",
            "GIT_COMMITTER_EMAIL": "test@example.invalid",
        }
        places = (os.environ[WARM], str(Path(sys.executable).parent), os.environ["PATH"])
        self.environment["PATH"] = ":".join(places)

    def copy(self, target: Path) -> "Workspace":
        """Another one, of all that is in this, outputs and DVC's cache as well."""
        shutil.copytree(self.path, target, symlinks=True)
        return Workspace(target)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `command` there."""
        done = subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True
        )
        if check and done.returncode:
            raise AssertionError(f"{command} failed:\n{done.stdout}\n{done.stderr}")
        return done

    def commit(self, message: str) -> None:
        """Commit all that Git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "-m", message)

    def set(self, **values: object) -> None:
        """Set keys of params.yaml; `train__epochs` is `train.epochs`."""
        path = self.path / "params.yaml"
        content = yaml.safe_load(path.read_text())
        for key, value in values.items():
            place = content
            *sections, last = key.split("__")
            for section in sections:
                place = place[section]
            place[last] = value
        path.write_text(yaml.safe_dump(content))

    def keep_runs(self, *names: str) -> None:
        """Leave only some runs in dvc.yaml, and repetitions of bn, so that tests take less time."""
        path = self.path / "dvc.yaml"
        content = yaml.safe_load(path.read_text())
        runs = set(content["stages"]["train"]["foreach"])

        def keep(node: Any) -> Any:
            if isinstance(node, dict):
                kept = names if runs <= set(node) else node  # the map of runs
                return {k: keep(v) for k, v in node.items() if here(k) and k in kept}
            return (
                [keep(value) for value in node if here(value)] if isinstance(node, list) else node
            )

        def here(value: Any) -> bool:
            parts = str(value).split("/")
            return parts[:2] != ["data", "runs"] or parts[2] in (*names, "${key}")

        content = keep(content)
        for stage in content["stages"].values():
            if "matrix" in stage:
                stage["matrix"]["norm"] = ["bn"]
        path.write_text(yaml.safe_dump(content, sort_keys=False))


def copy_repository(target: Path) -> Workspace:
    """Copy what Git tracks in this repository, or would, into a new one."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(target)], check=True)
    return Workspace(target)


def clone(source: Path, target: Path, remote: Path | None = None) -> Workspace:
    """A clone, as another machine has it: with a scratch folder and a cache of its own.

    `remote` becomes its default remote.
    """
    subprocess.run(["git", "clone", "--quiet", str(source), str(target)], check=True)
    made = Workspace(target)
    made.run("git", "config", "merge.dvc-lock.driver", merge_driver(sys.executable))
    if remote:
        made.run("dvc", "remote", "add", "--local", "--default", "shared", str(remote))
    return made


def merge_driver(python: str) -> str:
    """The command by which `make install` has Git merge dvc.lock, with another `python`."""
    found = re.search(
        r"^MERGE_DRIVER := (.*?[^\\])\n", (ROOT / "Makefile").read_text(), re.M | re.S
    )
    assert found
    return found[1].replace("\\\n", "").replace(".venv/bin/python", shlex.quote(python))


def outputs(workspace: Workspace) -> dict[str, str]:
    """Digest of every output in dvc.lock; the records of the machine need not repeat."""
    stages = yaml.safe_load((workspace.path / "dvc.lock").read_text())["stages"]
    return {
        out["path"]: out["md5"]
        for stage in stages.values()
        for out in stage.get("outs", [])
        if not out["path"].endswith("environment.json")
    }


class Stage:
    """A stage that is started and may be killed; `wait` for its end."""

    def __init__(self, workspace: Workspace, name: str, *arguments: str) -> None:
        self._outputs = [workspace.path / f"{kind}.txt" for kind in ("stdout", "stderr")]
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("w")) for path in self._outputs]
            self.process = warm.Command(
                workspace.environment[WARM], [f"stages.{name}", *arguments],
                (0, *(file.fileno() for file in files)), workspace.path, workspace.environment,
            )  # fmt: skip

    @property
    def printed(self) -> tuple[str, str]:
        """What it has written to its output, and to its error output."""
        out, error = (path.read_text() for path in self._outputs)
        return out, error

    def wait(self, *, fails: bool = False) -> str:
        """Its output when it has ended, or its error output if it `fails`."""
        assert self.process.wait() == (1 if fails else 0), self.printed
        return self.printed[fails]


def summary(output: str) -> dict[str, list[float]]:
    """The table that ends `make study`: the scores of each run, in percent."""
    found = {}
    for line in output.splitlines():
        run, *cells = line.split() or [""]
        if line.endswith("%") and not run.endswith(":"):
            found[run] = [float(cell[:-1]) for cell in cells if cell.endswith("%")]
    return found


def refused(call: Callable[[], object]) -> str:
    """The one line with which `call` refuses."""
    with pytest.raises(NormlabError) as raised:
        call()
    line = str(raised.value)
    assert line.splitlines() == [line]
    assert "object at 0x" not in line
    return line


def free_port() -> int:
    """One of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stages_run(output: str) -> list[str]:
    """The stages whose commands DVC ran, from what it printed."""
    return re.findall(r"Running stage '(.*?)'", output)


def prepare(path: Path, other: str = "bn") -> Workspace:
    """A fresh copy of the repository, with digits as its data set and two short runs."""
    made = copy_repository(path)
    (made.path / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(made.path / "results", ignore_errors=True)
    made.set(dataset="digits", model__n=1, split__val_size=0.8)
    made.set(train__epochs=2, train__warmup_epochs=1, repeat__seeds=[], repeat__batch_sizes=[])
    made.keep_runs("main", other)
    return made


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return prepare(tmp_path_factory.mktemp("prepared") / "repository")


@pytest.fixture
def workspace(_prepared: Workspace, tmp_path: Path) -> Workspace:
    """A repository that has run nothing yet."""
    return _prepared.copy(tmp_path / "repository")


@pytest.fixture(scope="session")
def _split(_prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = _prepared.copy(tmp_path_factory.mktemp("split") / "repository")
    made.run("dvc", "repro", "split")
    return made


@pytest.fixture
def with_data(_split: Workspace, tmp_path: Path) -> Workspace:
    """A repository with its data there, downloaded and split: a stage can train by itself."""
    return _split.copy(tmp_path / "repository")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Workspace:
    """A repository with a pipeline of two small runs that is done and committed.

    Tests share it: each leaves it as it was. Every process of pytest has a copy of what the first
    that needs it has made.
    """
    own = tmp_path_factory.getbasetemp()
    shared = Workspace((own if worker_id == "master" else own.parent) / "finished")
    with FileLock(f"{shared.path}.lock"):
        if not (shared.path / ".git/refs/heads/main").exists():  # the commit comes last
            shutil.rmtree(shared.path, ignore_errors=True)
            prepare(shared.path, "gn")
            shared.run("dvc", "repro")
            shared.commit("done")
    return shared.copy(own / "repository")


@pytest.fixture
def restored(finished: Workspace) -> Iterator[Workspace]:
    """`finished`, which is as it was when the test has ended."""
    yield finished
    finished.run("git", "checkout", "--quiet", ".")
    finished.run("dvc", "checkout", "--quiet", check=False)


@contextmanager
def served(
    folder: Path, handler: type[SimpleHTTPRequestHandler] = SimpleHTTPRequestHandler
) -> Iterator[str]:
    """The address of a server of the files in `folder`."""
    made = partial(handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), made) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def images() -> Callable[[int], Images]:
    """Makes so many random images of three classes."""

    def make(count: int) -> Images:
        generator = np.random.default_rng(count)
        pixels = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
        return Images(pixels, np.arange(count) % 3, ("cat", "dog", "emu"))

    return make
