"""The client that sends requests and reads answers, the measured latencies, and the client's health."""
