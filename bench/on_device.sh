#!/usr/bin/env bash
# Everything that needs a CUDA device, on a bare machine with Python, torch, NumPy, safetensors and pytest, and no network.
# Its parts are ended after 230 seconds in all; on an H200 the tests took 62:
#
#     bench/on_device.sh WHEELS [DEVICE]
#
# WHEELS is a folder of wheels for the other packages, made where there is a network and the same Python:
#
#     pip download -d WHEELS --no-deps -c constraints.txt -r bench/on_device_packages.txt
#
# It may be "-" where the packages are there already. DEVICE is cuda (the default) or cpu, a rehearsal that shows that all
# parts run. Each part has a limit; a part that fails does not keep the next one from running. The last lines say what ran.
set -uo pipefail
wheels=${1:?"usage: bench/on_device.sh WHEELS [cuda|cpu]; WHEELS is a folder of wheels, or - for none"}
device=${2:-cuda}
[ "$wheels" = - ] || wheels=$(realpath "$wheels")
cd "$(dirname "$0")/.."

tests_limit_s=75
kills_limit_s=55
bench_limit_s=100
python=${PYTHON:-python3}
export PYTHONPATH=$PWD/daemon:$PWD${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1 CUBLAS_WORKSPACE_CONFIG=:4096:8

if [ "$wheels" != - ]; then
    packages=$(mktemp -d)
    trap 'rm -rf "$packages"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --target "$packages" "$wheels"/*.whl || exit 1
    PYTHONPATH+=:$packages
fi
"$python" - "$device" << 'EOF' || exit 1
import platform, sys
import numpy, torch
print(f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {numpy.__version__}")
if sys.argv[1] == "cuda" and not torch.cuda.is_available():
    sys.exit("no CUDA device: bench/on_device.sh WHEELS cpu rehearses without one")
for number in range(torch.cuda.device_count()):
    print(f"cuda:{number}: {torch.cuda.get_device_name(number)}")
EOF

closing=""
status=0
# part NAME LIMIT_S COMMAND...
part() {
    local name=$1 limit_s=$2 began_s=$SECONDS result=0
    shift 2
    echo "== $name"
    timeout --kill-after=10 "$limit_s" "$@" || result=$?
    [ "$result" = 0 ] || status=1
    closing+="$name: $([ "$result" = 0 ] && echo passed || echo "failed ($result)"), $((SECONDS - began_s)) s"$'\n'
}

if [ "$device" = cuda ]; then
    part "gpu tests" "$tests_limit_s" "$python" -m pytest -q -p no:cacheprovider -m gpu tests/gpu tests/unit/training \
        tests/integration/ranks/test_ranks_on_gpus.py
    part "kills under a supervisor" "$kills_limit_s" "$python" -m bench.cuda_kills
    part "benchmark" "$bench_limit_s" "$python" -m bench.cuda --pairs 3
else
    part "gpu tests, on the CPU" "$tests_limit_s" "$python" -m pytest -q -p no:cacheprovider tests/gpu
    part "kills under a supervisor, on the CPU" "$kills_limit_s" "$python" -m bench.cuda_kills --device cpu
    part "benchmark, on the CPU" "$bench_limit_s" "$python" -m bench.cuda --device cpu --width 16 --layers 1 --pairs 1
fi
echo
printf '%s' "$closing"
echo "all of it took $SECONDS s"
exit "$status"
