"""What a training runs on: when it compiles, what it refuses, how it treats memory."""

import platform
from pathlib import Path

import pytest
import torch
from conftest import Workspace

from normlab.base.errors import NormlabError
from normlab.compute import runtime

LONG, SHORT = 1e16, 1e9  #: FLOPs


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


def test_auto_compiles_what_is_long_enough_to_pay_for_it() -> None:
    if missing := runtime.missing_compiler():
        pytest.skip(missing)
    assert runtime.make("float32", "auto", LONG).compiles
    assert not runtime.make("float32", "auto", SHORT).compiles
    assert not runtime.make("float32", "auto", LONG, devices=2).compiles
    assert runtime.make("float32", True, SHORT).compiles
    assert not runtime.make("float32", False, LONG).compiles


def test_without_a_compiler_auto_warns_in_one_line_and_goes_on(
    no_compiler: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not runtime.make("float32", "auto", LONG).compiles
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: no C++ compiler is found")
    runtime.make("float32", "auto", SHORT)  # would not compile anyway
    assert not capsys.readouterr().err


def test_without_a_compiler_true_is_refused(no_compiler: None) -> None:
    with pytest.raises(NormlabError, match=r"train\.compile = true: no C\+\+ compiler") as error:
        runtime.make("float32", True, LONG)
    assert "use train.compile = auto" in str(error.value)


def test_bfloat16_without_its_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_bfloat16", lambda device: False)
    with pytest.raises(NormlabError, match=r"train\.precision = bfloat16: .*use .* float32"):
        runtime.make("bfloat16", False, SHORT)
    assert runtime.make("float32", False, SHORT).device == torch.device("cpu")


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries than glibc")
def test_freed_memory_is_kept_for_the_next_step(workspace: Workspace) -> None:
    default, kept = map(int, workspace.run("python", "-c", FAULTS).stdout.split())
    assert kept < default / 20
