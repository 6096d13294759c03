#!/usr/bin/env bash
# How soon a killed job trains again, how many steps it loses, and what that makes of its time: under 8 minutes on a
# machine that does nothing else. Ends with 1 if a target is missed.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1 PYTHONPATH="$PWD/daemon:$PWD"
status=0
"$python" -m bench.standby --kills 10 || status=1
"$python" -m bench.standby --kills 8 --no-memory || status=1
"$python" -m bench.standby --kills 5 --state-mb 10 --step-ms 800 || status=1
"$python" -m bench.goodput --mtbf 10 --kills 10 --contenders "trainerd + memory + standby" torch.save || status=1
exit "$status"
