"""The client that sends requests and reads their answers, the latencies it measured, and its own health."""
