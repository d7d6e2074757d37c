#!/usr/bin/env bash
# The trainings of the issue on seeds, resumed on any machine. Run in the repository's root, .venv active:
#   data/training/train.sh start FOLDER &   trains what list.txt still asks for, two at a time, in a clone in FOLDER
#   data/training/train.sh save FOLDER      brings what has finished into data/repeats/, and the states of what has not here
# The clone is of the commit below: a state is of one code. What changed since keeps the bytes of a training.
set -euo pipefail
COMMIT=e4ad1cf
here=$PWD/data/training folder=$(realpath -m "$2")

case $1 in
start)
    [ -e "$folder/.git" ] || git clone --quiet --no-checkout . "$folder"
    cd "$folder" && git checkout --quiet $COMMIT
    export PYTHONPATH=$folder/src OMP_NUM_THREADS=1 NORMLAB_SCRATCH=$folder/.scratch
    [ -e data/split.json ] || dvc repro split
    for state in "$here"/*.state; do
        [ -e "$state" ] || continue
        place=$folder/.scratch/$(basename "$state" .state)
        [ -e "$place" ] || { mkdir -p "$place" && cp "$state" "$place/state"; }
    done
    mkdir -p logs
    one() { [ -e "$here/../repeats/$1-$2-$3.json" ] || [ -e "data/repeats/$1-$2-$3.json" ] ||
        python -m stages.repeat "$@" >>"logs/$1-$2-$3.log" 2>&1; }
    export -f one && export here
    xargs -P 2 -L 1 bash -c 'one "$@"' _ <"$here/list.txt"
    ;;
save)
    cp -n "$folder"/data/repeats/*.json data/repeats/ 2>/dev/null || true
    rm -f "$here"/*.state
    for state in "$folder"/.scratch/*/state; do
        [ -e "$state" ] || continue
        cp "$state" "$here/$(basename "$(dirname "$state")").state"
    done
    ;;
esac
