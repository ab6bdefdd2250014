"""What is asked to verify outputs: scenarios, made from the history so far."""
