#!/bin/bash
# Serve a judge as a job of its own and publish its address once it answers (docs/scaling.md):
#   sbatch --gpus=4 --time=24:00:00 profiles/slurm/serve_judge.sh results/judges/llama-3.3-70b.url \
#       meta-llama/Llama-3.3-70B-Instruct --tensor-parallel-size 4 --max-logprobs 5
# The judge's entry in the catalogue names the file: url_file: results/judges/llama-3.3-70b.url
#SBATCH --nodes=1
#SBATCH --job-name=judge
set -eu
address_file=$1
shift
port=$((20000 + SLURM_JOB_ID % 20000))
mkdir -p "$(dirname "$address_file")"
rm -f "$address_file"
${SERVE:-vllm serve} "$@" --host 0.0.0.0 --port "$port" &
server=$!
trap 'rm -f "$address_file"; kill $server 2>/dev/null' EXIT
until python -c "import urllib.request as u; u.urlopen('http://localhost:$port/v1/models', timeout=5)" 2>/dev/null; do
    kill -0 $server || exit 1
    sleep 5
done
echo "http://$(hostname -f):$port/v1" > "$address_file.partial"
mv "$address_file.partial" "$address_file"
wait $server
