"""Brings a deployment up, or attaches to one: engines, proxy, and the facts about them."""
