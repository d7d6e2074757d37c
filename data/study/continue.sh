#!/usr/bin/env bash
# The study at full length, under way: trains on in the clone FOLDER (made if it is not there), two
# runs side by side, from what data/study/ keeps. `save.sh FOLDER` brings back what it has reached.
# This folder goes when the study is whole.
set -euo pipefail
folder=$(realpath -m "$1")
here=$(cd "$(dirname "$0")" && pwd)
export PATH=$here/../../.venv/bin:$PATH OMP_NUM_THREADS=1
if [ ! -d "$folder" ]; then
    git clone --quiet "$here/../.." "$folder"
    cp "$here/dvc.lock" "$here/params.yaml" "$folder"
    if [ -d "$here/scratch" ]; then cp -r "$here/scratch" "$folder/.scratch"; fi
    ln -s "$here/../../.venv" "$folder/.venv"
    if [ -d "$here/../images" ]; then cp -r "$here/../images" "$folder/data/"; fi
fi
cd "$folder"
export PYTHONPATH=$PWD/src
dvc pull --quiet --allow-missing || true
dvc repro split
for run in main bn gn nn ln in bin bn-small gn-small; do echo $run; done |
    xargs -P 2 -I RUN dvc --wait-for-lock repro --single-item train@RUN evaluate@RUN features@RUN
