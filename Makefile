# Everything runs in .venv; the first target that needs it makes it. There src/ is importable.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
SHELL := /bin/bash
# With these set, pip would install elsewhere, and Python would not find the stages.
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONSAFEPATH
export SHELL # DVC runs stages in it: that of the environment may be nologin
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
JOBS_OPTION = $(if $(JOBS),--jobs $(JOBS))
INSTALLED := .venv/requirements.txt
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-user
define CHECK_PYTHON
import sys
if sys.version_info < (3, 11):
    sys.exit("error: $(PYTHON) is Python %d.%d; normlab needs 3.11 or newer: make PYTHON=python3.12" % sys.version_info[:2])
from importlib.util import find_spec
for module in ("_bz2", "_ctypes", "_lzma", "_sqlite3", "_ssl"):
    if not find_spec(module):
        sys.exit("error: $(PYTHON) was built without %s, which normlab needs; use another: make PYTHON=python3.12" % module)
endef
export CHECK_PYTHON
# If it fails, each difference becomes a conflict: by itself Git would silently keep one side.
MERGE_DRIVER := .venv/bin/python -m normlab merge-lock %O %A %B || \
    git -c merge.conflictStyle=merge merge-file -L ours -L base -L theirs %A /dev/null %B

.PHONY: help install s3 demo study test quick locked lint format readme requirements

help: ## List the targets
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Make .venv with the pinned dependencies; fetch the committed runs
	if [ -e .git ]; then dvc pull --quiet --allow-missing; fi
	@if [ -e .git ] && git config --get-regexp '^remote\..*\.partialclonefilter$$' >/dev/null; then \
	    echo "note: this clone is partial, so DVC can neither compare commits nor queue experiments;" \
	        "complete it: git config --unset remote.origin.partialclonefilter && git fetch --refetch"; fi

$(INSTALLED): requirements.txt
	@if [ -e .git ]; then git rev-parse --git-dir >/dev/null; fi # refuses a folder of another user
	@$(PYTHON) -c "$$CHECK_PYTHON"
	$(PYTHON) -m venv --clear .venv
	$(PIP) -r requirements.txt
	echo "$$PWD/src" >"$$(.venv/bin/python -c 'import site; print(site.getsitepackages()[0])')/normlab.pth"
	if [ -e .git ]; then \
	    git config merge.dvc-lock.driver '$(MERGE_DRIVER)'; fi
	cp requirements.txt $@

s3: $(INSTALLED) ## Install the packages for remotes on S3, and for their test
	$(PIP) -r requirements.txt -r requirements-s3.txt

demo: $(INSTALLED) ## Run the whole pipeline on small images, in minutes, without touching your results
	python -m normlab demo $(JOBS_OPTION)

study: $(INSTALLED) ## Run the whole pipeline of params.yaml, several runs side by side (JOBS=2)
	python -m normlab study $(JOBS_OPTION)

test: $(INSTALLED) lint ## Lint, check types, run the tests
	python -m pytest

quick: $(INSTALLED) ## Run the tests that neither train nor run DVC or a browser
	python -m pytest -m 'not slow'

locked: $(INSTALLED) ## Check that dvc.lock matches the code, params.yaml and dvc.yaml
	@state=$$(dvc repro --dry --allow-missing) && echo "$$state" && \
	    grep -q 'Data and pipelines are up to date' <<<"$$state"

lint: $(INSTALLED) ## Lint and check types
	ruff check .
	ruff format --check .
	mypy

format: $(INSTALLED) ## Format the code
	ruff check --fix .
	ruff format .

readme: $(INSTALLED) ## Regenerate the tables of README.md and docs/ from results/ and benchmarks/
	python -m normlab readme

LOCK := uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links

requirements: $(INSTALLED) ## Update the pinned requirements
	$(PIP) uv
	$(LOCK) pyproject.toml --group dev -o requirements.txt
	$(LOCK) --group s3 -c requirements.txt -o requirements-s3.txt
