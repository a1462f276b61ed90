#!/usr/bin/env bash
# A job on Slurm without Ray: each array task does every N-th shard on all cores of its node.
#
#   infra/slurm/anonlib.sh JOB.yaml [PARTS]     submits the four steps, each after the one before
#
# A step that fails holds nothing up: markers say what is done, and the last step does what is missing. Exit code 3
# (something is quarantined, or shards are missing) is no failure of a step. A redaction is divided in one step. Pass
# sbatch's options (--partition, --mem, --time, --requeue) by SBATCH_* variables or here.
#SBATCH --job-name=anonlib
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
set -euo pipefail

job=${1:?the job file}
parts=${2:-16}
step=${3:-submit}

run() {
    local code=0
    anonlib "$@" || code=$?
    ((code == 3)) || return "$code"
}

case $step in
submit)
    self=$(readlink -f "$0")
    array="0-$((parts - 1))"
    after=$(sbatch --parsable --array="$array" "$self" "$job" "$parts" "${ANONLIB_FIRST:-scan}")
    if [[ ${ANONLIB_FIRST:-scan} == scan ]]; then
        after=$(sbatch --parsable --dependency="afterany:${after%%;*}" "$self" "$job" "$parts" plan)
        after=$(sbatch --parsable --dependency="afterany:${after%%;*}" --array="$array" "$self" "$job" "$parts" render)
    fi
    sbatch --parsable --dependency="afterany:${after%%;*}" "$self" "$job" "$parts" finish
    ;;
scan | render) run "$step" "$job" --actors 0 --part "$SLURM_ARRAY_TASK_ID/$parts" ;;
redact) run run "$job" --actors 0 --part "$SLURM_ARRAY_TASK_ID/$parts" ;;
plan) run plan "$job" --actors 0 ;;
finish) run run "$job" --actors 0 ;;
*) echo "anonlib.sh: '$step' is none of scan, redact, plan, render and finish" >&2 && exit 2 ;;
esac
