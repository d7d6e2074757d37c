"""What a training runs on: when it compiles, what it refuses, how it treats memory."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Workspace

from normlab.compute import runtime
from normlab.utils.errors import NormlabError

LONG, SHORT = 1e16, 1e9  #: FLOPs


@pytest.fixture(params=["none", "fails", "no OpenMP", "no folder for its output"])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A compiler that does not work; what is told of it."""
    if request.param == "no folder for its output":
        (tmp_path / "file").touch()
        monkeypatch.setenv(runtime.COMPILER_CACHE, str(tmp_path / "file" / "cache"))
        return f"{tmp_path}/file/cache: cannot be written to"
    compiler = tmp_path / "compiler"
    if request.param == "fails":
        compiler = Path("/bin/false")
    elif request.param == "no OpenMP":
        line = "case \"$*\" in *-fopenmp*) echo 'error: no OpenMP' >&2; exit 1;; esac"
        compiler.write_text(f'#!/bin/sh\n{line}\nexec c++ "$@"\n')
        compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    return "error: no OpenMP" if request.param == "no OpenMP" else f"{compiler}"


@pytest.mark.slow
def test_auto_compiles_what_is_long_enough_to_pay_for_it() -> None:
    if fault := runtime.compiler_fault(torch.device("cpu")):
        pytest.skip(fault)
    assert runtime.make_runtime("float32", "auto", LONG).compiles
    assert not runtime.make_runtime("float32", "auto", SHORT).compiles
    assert not runtime.make_runtime("float32", "auto", LONG, devices=2).compiles
    assert runtime.make_runtime("float32", True, SHORT).compiles
    assert not runtime.make_runtime("float32", False, LONG).compiles


@pytest.mark.slow
def test_with_a_broken_compiler_auto_warns_in_one_line_and_true_is_refused(
    broken: str, workspace: Workspace
) -> None:
    """In a process of its own: PyTorch keeps which compiler it has found."""
    code = """
import os
from normlab.compute import runtime
from normlab.utils.errors import run_app
given = dict(os.environ)
runtime.make_runtime("float32", "auto", 1e9)  # would not compile anyway
assert not runtime.make_runtime("float32", "auto", 1e16).compiles
from torch.optim import SGD  # imports the compiler
os.environ |= given
run_app(lambda: runtime.make_runtime("float32", True, 1e9))
"""
    done = workspace.run("python", "-c", code, check=False)
    assert done.returncode == 1
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: ")
    assert warning.endswith("; continuing without torch.compile, slower")
    assert error.startswith("error: compute.compile = True: ")
    assert error.endswith("; use compute.compile = auto")
    assert broken in warning
    assert broken in error


def test_bfloat16_without_its_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_bfloat16", lambda device: False)
    with pytest.raises(NormlabError, match=r"train\.precision = bfloat16: .*use .* float32"):
        runtime.make_runtime("bfloat16", False, SHORT)
    assert runtime.make_runtime("float32", False, SHORT).device == torch.device("cpu")


#: page faults of taking and freeing 64 MiB ten times, by default and with memory kept; the first
#: few times it is still being asked for
FAULTS = """
import resource, torch
from normlab.compute import runtime
for keep in (lambda: None, runtime.keep_memory):
    keep()
    for _ in range(20):
        torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries than glibc")
def test_freed_memory_is_kept_for_the_next_step(workspace: Workspace) -> None:
    default, kept = map(int, workspace.run("python", "-c", FAULTS).stdout.split())
    assert kept < default / 20


def test_compiled_exact_float32_on_a_gpu_keeps_its_memory_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = []

    def spy(*arguments: Any, compile_: Callable[..., Any] = torch.compile, **options: Any) -> Any:
        given.append(options["options"])
        return compile_(*arguments, **options)  # which refuses unknown options

    monkeypatch.setattr(torch, "compile", spy)
    for precision in ("float32", "tf32"):
        runtime.Runtime(torch.device("cuda"), precision, True).compile(abs)
    assert given == [{"layout_optimization": False}, None]
