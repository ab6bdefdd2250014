"""Loads of the main job: random prompts, or a dataset's requests."""
