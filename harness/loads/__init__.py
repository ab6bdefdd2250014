"""The loads of a run without workloads: random prompts, or the requests of a dataset."""
