#!/usr/bin/env bash
# See continue.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PATH=$here/../../.venv/bin:$PATH
cd "$1"
dvc --wait-for-lock push --quiet || true # what is unfinished is missing
cp -r data/remote "$here/.."
cp dvc.lock params.yaml "$here"
rm -rf "$here/scratch"
for state in .scratch/*/state; do
    install -D "$state" "$here/scratch/${state#.scratch/}"
done
