#!/usr/bin/env bash
# Do a planned merge with Slurm: an array job with an element for each shard, and after it a job that completes the
# merge, or, if elements were killed or failed, submits these again, twice at most.
#
#   magic plan RECIPE.yml --out DIR
#   SBATCH_PARTITION=gpu SBATCH_GPUS=1 assets/engines/slurm.sh DIR [flags of magic, such as --device gpu]
#
# Needs sbatch, on the nodes too, python3, and DIR, the inputs and `magic` under the same paths on all nodes. sbatch takes
# its options from variables SBATCH_*; MAGIC is the program. The same command again submits what is not done; where jobs
# may not submit jobs, that is how to go on after a failure.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,/^set/{s/^# \?//;/^set/d;p}' "$0" >&2; exit 2; }
again=2
[ "$1" != --end ] || { end=1 again=$2 && shift 2; }
dir=$(realpath "$1") && shift
me=$(realpath "$0") magic=$(realpath "$(command -v "${MAGIC:-magic}")")
[ -e "$dir/plan.json" ] || exec "$magic" finalize "$dir" "$@" # it is finished, or was never planned
# Shards without a receipt, such as 0,3,4, or -, and the number of the last shard.
read -r measured missing last < <(python3 -c '
import json, os, sys
plan = json.load(open(sys.argv[1] + "/plan.json"))["content"]
done = [os.path.exists(sys.argv[1] + "/parts/" + shard["file"] + ".json") for shard in plan["shards"]]
print(plan["measured"], ",".join(str(i) for i, done in enumerate(done) if not done) or "-", len(done) - 1)' "$dir")

submit() { # NAME [OPTION ...] -- COMMAND ...; prints the job's number
    local options=(--parsable --job-name="$1") && shift
    while [ "$1" != -- ]; do options+=("$1") && shift; done
    shift && sbatch "${options[@]}" --wrap "$(printf '%q ' "$@")"
}

if [ "$missing" = - ]; then
    code=0 && "$magic" finalize "$dir" "$@" || code=$?
    [ "$code" = 1 ] || exit "$code"
    missing=0-$last # some may be damaged: an element does nothing if its shard stands
fi
if [ -n "${end:-}" ] && ((again-- == 0)); then
    echo "$dir: shards $missing are still not done, or do not stand; Slurm's logs say why" >&2
    exit 1
fi
options=(--requeue --array="$missing") # Slurm itself starts again what dies with its node or is preempted
if [ "$measured" = True ]; then        # feature space: once, before the work
    job=$(submit magic-measure -- "$magic" measure "$dir" "$@")
    options+=(--dependency=afterok:"$job" --kill-on-invalid-dep=yes)
fi
job=$(submit magic-work "${options[@]}" -- "$magic" work "$dir" "$@")
end=$(submit magic-finalize --dependency=afterany:"$job" -- env MAGIC="$magic" "$me" --end "$again" "$dir" "$@")
echo "$dir: job $job makes shards $missing, job $end completes the merge"
