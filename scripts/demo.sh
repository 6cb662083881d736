#!/usr/bin/env bash
# Sets up whatever is missing, then trains, quantizes and runs a small real model on Vulkan.
# Arguments are passed on to `python -m q8ta_ops demo`.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" demo
exec "$root/.venv/bin/python" -m q8ta_ops demo "$@"
