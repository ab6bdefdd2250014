"""A catalogue of workloads: functions that return frozen scenarios."""
