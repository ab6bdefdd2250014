"""The nightly job: chosen loads, workloads and faults against a deployment, and a page over all nights."""
