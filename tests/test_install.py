"""`make install`: which Python it takes, where the packages come from, in which folder it works."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Workspace, served

from normlab.utils import files


class Install:
    """A folder that holds what `make install` needs, and requires one small package."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        shutil.copy(ROOT / "Makefile", path)
        (path / "requirements.txt").write_text("probe==1.0\n")
        own = ("PIP_", "PYTHON", "MAKE")
        self.environment = {n: v for n, v in os.environ.items() if not n.startswith(own)}

    def make(
        self, *arguments: str, python: str = sys.executable, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", f"PYTHON={python}", "--no-print-directory", *arguments, "install"],
            cwd=self.path, env=self.environment, check=check, capture_output=True, text=True,
        )  # fmt: skip


@pytest.fixture
def install(tmp_path: Path) -> Install:
    return Install(tmp_path / "copy")


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """The address of an index of one small package."""
    page, info, file = tmp_path / "index/probe", "probe-1.0.dist-info", "probe-1.0-py3-none-any.whl"
    contents = {
        "probe.py": "SOURCE = 'the mirror'",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in contents)
    page.mkdir(parents=True)
    with zipfile.ZipFile(page / file, "w") as archive:
        for path, content in contents.items():
            archive.writestr(path, content)
    (page / "index.html").write_text(f'<a href="{file}">{file}</a>')
    with served(page.parent) as address:
        yield address


#: pip's configuration file, and variables; {} is the address of the mirror
SETTINGS: dict[str, tuple[str, dict[str, str]]] = {
    "variables": ("", {"PIP_INDEX_URL": "{}", "PIP_USER": "1", "PIP_TARGET": "elsewhere",
                       "PIP_TRUSTED_HOST": "127.0.0.1"}),
    "file": ("[global]\nindex-url = {}\n[install]\nuser = yes\n", {}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("file", "variables"), SETTINGS.values(), ids=SETTINGS)
def test_packages_come_from_where_pip_looks(
    file: str, variables: dict[str, str], install: Install, mirror: str
) -> None:
    (install.path / "pip.conf").write_text(file.replace("{}", mirror))
    install.environment["PIP_CONFIG_FILE"] = "pip.conf"
    install.environment |= {name: v.replace("{}", mirror) for name, v in variables.items()}
    done = install.make(check=False)
    assert done.returncode == 0, done.stderr
    command = [".venv/bin/python", "-c", "import probe; print(probe.SOURCE)"]
    assert subprocess.check_output(command, cwd=install.path) == b"the mirror\n"


@pytest.mark.parametrize(
    ("startup", "line"),
    [
        ("sys.modules['_lzma'] = None", "was built without _lzma, which normlab needs"),
        ("sys.version_info = (3, 10, 2)", "is Python 3.10; normlab needs 3.11 or newer"),
    ],
)
def test_a_python_that_will_not_do_is_refused_before_anything_is_made(
    startup: str, line: str, install: Install, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; {startup}")
    install.environment["PYTHONPATH"] = str(tmp_path)
    done = install.make(check=False)
    assert done.returncode != 0
    assert done.stderr.startswith(f"error: {sys.executable} {line}")
    assert "Traceback" not in done.stderr
    assert not (install.path / ".venv").exists()


def test_the_folders_name_is_no_part_of_a_command(tmp_path: Path) -> None:
    made = Install(tmp_path / "Zoë's $(false) [1]").make("-n")
    assert ".pth" in made.stdout
    subprocess.run(["bash", "-n"], input=made.stdout, text=True, check=True)
    assert "Zoë" not in made.stdout


@pytest.mark.parametrize("filtered", [True, False])
def test_a_partial_clone_is_told_of(filtered: bool, install: Install) -> None:
    """DVC reads Git's objects itself, and cannot fetch those that are missing."""
    (install.path / ".venv/bin").mkdir(parents=True)
    (install.path / ".venv/bin/dvc").symlink_to(shutil.which("true") or "")
    (install.path / ".venv/requirements.txt").touch()  # all is installed
    git = ["git", "-C", str(install.path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    if filtered:
        setting = ("remote.origin.partialclonefilter", "blob:none")
        subprocess.run([*git, "config", *setting], check=True)
    done = install.make()
    assert ("complete it: git config --unset" in done.stdout) == filtered
    assert done.stderr == ""


def test_the_package_builds_with_all_its_files(workspace: Workspace, tmp_path: Path) -> None:
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    workspace.run("python", *command, "--wheel-dir", str(tmp_path))
    [path] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        [info] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = archive.read(info).decode()
    listed = workspace.run("git", "ls-files", "-co", "--exclude-standard", "src").stdout.split()
    assert names == {name.removeprefix("src/") for name in listed}
    assert "\nLicense-Expression: MIT\n" in metadata
    assert "\nRequires-Dist: torch\n" in metadata
    citation = files.read_yaml(workspace.path / "CITATION.cff")
    assert f"\nVersion: {citation['version']}\n" in metadata
