"""What a workload is, what it needs, and how the workloads are found and chosen."""
