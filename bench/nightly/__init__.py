"""The nightly job: chosen loads, workloads and faults against one deployment, night after night, and a page over all of them."""
