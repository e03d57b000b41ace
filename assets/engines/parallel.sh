#!/usr/bin/env bash
# Do a planned merge with GNU parallel, on this machine or over ssh: every shard is a job, which is tried again if it
# fails, on another host if there is one.
#
#   magic plan RECIPE.yml --out DIR
#   HOSTS=:,node1,node2 assets/engines/parallel.sh DIR [flags of magic, such as --device gpu]
#
# Needs GNU parallel and python3, on the hosts ssh without a password, and DIR, the inputs and `magic` under the same
# paths on all of them. HOSTS is what --sshlogin takes (`:` is this machine, which is also the default), JOBS the shards
# at a time on each host (1), MAGIC the program. DIR.log says what ran where. The same command again goes on where it
# stopped.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,/^set/{s/^# \?//;/^set/d;p}' "$0" >&2; exit 2; }
dir=$(realpath "$1") && shift
magic=$(realpath "$(command -v "${MAGIC:-magic}")")
[ -e "$dir/plan.json" ] || exec "$magic" finalize "$dir" "$@" # it is finished, or was never planned
read -r shards measured < <(python3 -c '
import json, sys
plan = json.load(open(sys.argv[1]))["content"]
print(len(plan["shards"]), plan["measured"])' "$dir/plan.json")

[ "$measured" = False ] || "$magic" measure "$dir" "$@" # feature space: once, before the work
seq 0 $((shards - 1)) |
    parallel --quote --jobs "${JOBS:-1}" --sshlogin "${HOSTS:-:}" --retries 4 --joblog "$dir.log" \
        "$magic" work "$dir" --shard {} "$@"
"$magic" finalize "$dir" "$@"
