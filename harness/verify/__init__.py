"""Is each output the one that its prompt has without KV transfer? What is asked, and how it is judged."""
