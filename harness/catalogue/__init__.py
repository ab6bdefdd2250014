"""Workloads: how they are written, registered and chosen, and what they need of a deployment."""
