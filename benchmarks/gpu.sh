#!/usr/bin/env bash
# Everything that needs a GPU, in one call: correctness first, then speed.
#
#   benchmarks/gpu.sh RESULTS [COMFYUI_DIR [COMFYUI_PYTHON]]
#
# PYTHON names the interpreter (python3 by default): torch for this card, safetensors, numpy, Pillow,
# and diffusers for the comparison. Every part writes its own file into RESULTS and goes on when
# another fails; the last line says how many did. Some 20 minutes on a fast card.
set -uo pipefail
out=${1:?where to write the results}
comfyui=${2:-}
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here"
mkdir -p "$out"
failed=0

part() { # NAME COMMAND...: its answer in NAME.json, what it said in NAME.txt
    local name=$1
    shift
    echo "== $name: $*"
    "$@" >"$out/$name.json" 2>"$out/$name.txt" || { failed=$((failed + 1)); tail -n 3 "$out/$name.txt"; }
}

git -C "$here" rev-parse HEAD >"$out/commit.txt" 2>/dev/null
nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || true

# The same numbers? In the precision ComfyUI would choose, and in float32.
part verify "$python" -m runner verify --depth 3 --json
part verify-float32 "$python" -m runner verify --depth 3 --dtype float32 --json

# How fast, and which lever gives what.
for model in "sd15 512" "sdxl 1024"; do
    read -r name size <<<"$model"
    bench=("$python" -m runner bench --model "$name" --size "$size" --steps 30 --runs 5 --json)
    part "bench-$name" "${bench[@]}"
    part "allocators-$name" "${bench[@]}" --allocators
    for lever in graph kernels qkv trunk words times all; do
        part "bench-$name-without-$lever" "${bench[@]}" --without "$lever"
    done
done

# Beside others, in one run.
checkpoint="$out/sd15.safetensors"
part synthetic "$python" -m runner synthetic sd15 --out "$checkpoint" --json
peers=("$python" "$here/benchmarks/peers.py" --checkpoint "$checkpoint" --sizes 512 --steps 29 --of 30)
[ -n "$comfyui" ] && peers+=(--comfyui "$comfyui" --comfyui-python "${3:-$python}")
part peers "${peers[@]}" --compiled --folder "$out" --out "$out/peers-results.json"
rm -f "$checkpoint" "$out"/*.pt

echo "$failed part(s) failed; results in $out"
[ "$failed" -eq 0 ]
