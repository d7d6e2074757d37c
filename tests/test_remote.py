"""Results that other clones fetch: by the remote in the repository, a folder, an S3 server."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Workspace, clone, free_port, stages_run
from PIL import Image

Configure = Callable[[Workspace], None]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3-compatible server with an empty bucket `normlab`."""
    pytest.importorskip("moto.server", reason="`make s3` installs a server for this test")
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("dvc_s3")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**keys, "AWS_DEFAULT_REGION": "us-east-1"}.items():
                patch.setenv(name, value)
            boto3.client("s3", endpoint_url=address).create_bucket(Bucket="normlab")
            yield address
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=["folder", "s3"])
def configure(request: pytest.FixtureRequest, tmp_path: Path) -> Configure:
    """Gives a workspace the README's shared remote."""
    commands = [["remote", "add", "--default", "shared", str(tmp_path / "remote")]]
    if request.param == "s3":
        address = request.getfixturevalue("s3")
        commands = [
            ["remote", "add", "--default", "shared", "s3://normlab/study"],
            ["remote", "modify", "shared", "endpointurl", address],
        ]

    def apply(workspace: Workspace) -> None:
        names = {n: v for n, v in os.environ.items() if n.startswith("AWS_")}
        workspace.environment.update(names)
        for command in commands:
            workspace.run("dvc", *command)

    return apply


@pytest.mark.slow
def test_a_second_clone_retrains_nothing(
    finished: Workspace, configure: Configure, tmp_path: Path
) -> None:
    first = clone(finished.path, tmp_path / "first")
    shutil.copytree(finished.path / ".dvc/cache", first.path / ".dvc/cache")
    configure(first)
    first.run("dvc", "push")
    second = clone(finished.path, tmp_path / "second")
    configure(second)

    ran = second.run("dvc", "repro", "--pull", "--allow-missing").stdout
    assert stages_run(ran) == []
    assert "Data and pipelines are up to date" in ran
    second.run("dvc", "pull", "data/weights/gn.safetensors")
    best = Path("data/weights/gn.safetensors")
    assert (second.path / best).read_bytes() == (finished.path / best).read_bytes()

    second.set(plots__dpi=40)
    ran = second.run("dvc", "repro", "--pull", "--allow-missing").stdout
    assert stages_run(ran) == ["plots"]
    with Image.open(second.path / "results/figures/error_curves.png") as figure:
        assert round(figure.info["dpi"][0]) == 40


@pytest.mark.slow
def test_a_fresh_clone_has_what_the_repository_ships(finished: Workspace, tmp_path: Path) -> None:
    """It predicts, trains nothing without an edit, and one run where the norm is changed."""
    author = clone(finished.path, tmp_path / "author")
    shutil.copytree(finished.path / ".dvc/cache", author.path / ".dvc/cache")
    shutil.rmtree(author.path / "data/remote", ignore_errors=True)  # this repository's study
    author.run("dvc", "push")
    author.run("git", "add", "--all", "data/remote")
    author.run("git", "commit", "--quiet", "-m", "the shipped remote")
    shipped = [p for p in (author.path / "data/remote").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in shipped) < 2**20  # no images

    reader = clone(author.path, tmp_path / "reader")
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    for run in ("main", "gn"):
        command = ("predict", "--run", run, str(tmp_path / "image.png"))
        assert "image.png" in reader.run("python", "-m", "normlab", *command).stdout
        weights = f"data/weights/{run}.safetensors"
        assert (reader.path / weights).read_bytes() == (finished.path / weights).read_bytes()

    with (reader.path / "src/normlab/report/figures.py").open("r+") as code:
        code.seek(0, os.SEEK_END)
        code.write("\n# an edit\n")
    ran = reader.run("dvc", "repro", "--pull", "--allow-missing").stdout
    assert stages_run(ran) == ["plots"]

    other = clone(author.path, tmp_path / "other")
    other.run("dvc", "pull", "--allow-missing")  # as `make install` does
    ran = other.run("dvc", "exp", "run", "-S", "norm=ln").stdout
    assert {stage for stage in stages_run(ran) if "@" in stage} == {
        "train@main", "evaluate@main", "features@main"
    }  # fmt: skip
    other.run("git", "restore", "params.yaml", "dvc.lock", "results")  # as README.md says
    other.run("dvc", "checkout")
    ran = other.run("dvc", "exp", "run").stdout
    assert not [stage for stage in stages_run(ran) if "@" in stage]
