"""The harness as a Python library, from top to bottom.

This script uses a simulated deployment, which needs no GPU and no vLLM, and takes some seconds:

    python examples/python_api.py

For a real deployment, replace ``harness.simulate()`` below. vLLM servers that are started on this machine:

    harness.launch(model="Qwen/Qwen2.5-0.5B", connector="multi")

Servers that are already running:

    harness.attach(
        base_url="http://proxy:8000",
        prefill_urls=["http://p:8100"],
        decode_urls=["http://d:8200"],
        model="/path/to/the/model",
    )
"""

import harness

# 1. A deployment.
with harness.simulate() as deployment:
    for server in deployment.facts.servers:
        print(f"{server.name} at {server.url}, blocks of {server.block_size} tokens")

    # 2. A load: 64 random prompts, 16 in flight; every answer is verified by teacher forcing.
    report = deployment.run(harness.RandomLoad(num_prompts=64, concurrency=16, output_len=12), verify="all")

    # 3. Workloads of the catalogue, by name, family or glob; `python -m harness list` shows all of them.
    workloads = deployment.run_workloads("cold_decode", "lengths")

# 4. The verdict, with the checks and findings behind it.
print(f"\nThe load is {report.verdict}: {report.outputs.exact} outputs exact, {report.outputs.tie} near ties.")
for check in report.checks:
    print(f"  {check.verdict} {check.name}: {check.summary}")
for finding in report.findings:
    print(f"  {finding.subject}: {finding.text}")

# 5. Latencies are numpy arrays in seconds, one entry per request (itl: one per pair of tokens).
ttft, itl = report.latencies.ttft, report.latencies.itl
print(f"\nTTFT of {ttft.size} requests: mean {1000 * ttft.mean():.1f} ms, largest {1000 * ttft.max():.1f} ms")
print(f"ITL between {itl.size} pairs of tokens: mean {1000 * itl.mean():.1f} ms")
print(f"{report.result['request_throughput']:.0f} requests/s")

# 6. One row for each workload.
print(f"\nThe workloads are {workloads.verdict}:")
for row in workloads.rows:
    print(f"  {row.word} {row.workload} {row.skipped}")
