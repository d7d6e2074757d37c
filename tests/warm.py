"""A Python that has imported torch and DVC, of which the commands that tests run are forked.

Started anew, each takes one to three seconds of a core, which is more than most then work. The
scripts `python` and `dvc` that `start` makes are to be the first in PATH. They have DVC, normlab
and stages run there; for everything else they are those of this environment.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from importlib import import_module
from pathlib import Path

OURS = ("dvc", "normlab", "stages.")
#: what those import: no code of this repository, of which each copy has its own
IMPORTED = (
    "dvc.cli.parser", "dvc.lock", "dvc.repo.index", "dvc.repo.reproduce", "dvc_data.hashfile.build",
    "dvc_render.vega", "jinja2", "matplotlib.backends.backend_svg", "matplotlib.pyplot",
    "pydantic.main", "rich.progress", "ruamel.yaml", "safetensors.torch", "scipy.stats",
    "scmrepo.git", "sklearn.datasets", "sklearn.metrics", "torch._dynamo", "torchvision.datasets",
    "typer", "vl_convert",
)  # fmt: skip
#: variables that Python or a library reads as it starts
READ_AT_START = ("PYTHONIOENCODING", "PYTHONSAFEPATH", "MPLCONFIGDIR")


def start() -> tuple[subprocess.Popen[bytes], Path]:
    """The server, which ends with this process, and the folder of the scripts."""
    folder = Path(tempfile.mkdtemp(prefix="normlab-"))
    environment = {**os.environ, "MPLBACKEND": "agg"}
    environment.pop("PYTHONPATH", None)
    server = subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, env=environment
    )
    for name, options in (("python", []), ("dvc", ["-m", "dvc"])):
        (folder / name).write_text(
            f"#!{sys.executable} -IS\nimport sys\n"
            f"sys.path.append({str(Path(__file__).parent)!r})\n"
            f"import warm\nwarm.command({str(folder)!r}, {options} + sys.argv[1:])\n"
        )
        (folder / name).chmod(0o755)
    return server, folder


class Command:
    """`python -m MODULE ARGUMENT ...`, forked, with this process's environment if none is given."""

    def __init__(
        self, folder: Path | str, arguments: list[str], streams: tuple[int, int, int] = (0, 1, 2),
        cwd: Path | str = ".", environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(f"{folder}/socket")
        request = (arguments, str(Path(cwd).absolute()), dict(environment or os.environ))
        socket.send_fds(self._connection, [json.dumps(request).encode()], streams)
        self.pid = int(self._connection.recv(100))

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code; that of a signal is negative. Raises TimeoutError."""
        self._connection.settimeout(timeout_s)
        return int(self._connection.recv(100))

    def send(self, number: int) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def command(folder: str, arguments: list[str]) -> None:
    """Be `python` with these arguments."""
    if (
        arguments[:1] != ["-m"]
        or not arguments[1].startswith(OURS)
        or any(argument.startswith("/dev/fd/") for argument in arguments)  # open here alone
        or any(os.environ.get(name) for name in READ_AT_START)
    ):
        os.execv(sys.executable, [sys.executable, *arguments])
    forked = Command(folder, arguments[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: forked.send(number))
    code = forked.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(folder: str) -> list[str]:
    """Fork a process for each request; returns in that, with the module and its arguments."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{folder}/socket")
    listener.listen(64)
    ended = sys.stdin.fileno()  # its other end closes with the tests
    while listener in select.select([listener, ended], [], [])[0]:
        connection, _ = listener.accept()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        for module in IMPORTED:  # with the first request
            import_module(module)
        gc.freeze()
        if os.fork():
            connection.close()
            continue
        listener.close()
        content, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            connection.close()
            return _become(*json.loads(content), streams)
        os.setpgid(pid, pid)
        for stream in streams:
            os.close(stream)
        connection.sendall(str(pid).encode())
        process = os.pidfd_open(pid)
        if process not in select.select([process, connection, ended], [], [])[0]:
            os.killpg(pid, signal.SIGKILL)  # whoever asked for it was killed
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        break
    os._exit(0)


def _become(
    arguments: list[str], cwd: str, environment: dict[str, str], streams: list[int]
) -> list[str]:
    """Make this process as if Python had started there."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    sys.path[:1] = [cwd, *filter(None, environment.get("PYTHONPATH", "").split(":"))]
    return arguments


def _run(module: str, *arguments: str) -> int:
    """The exit code of `python -m` of these."""
    sys.argv[1:] = arguments
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as left:
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = _run(*serve(sys.argv[1]))
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # to take down all that was imported would take a second
