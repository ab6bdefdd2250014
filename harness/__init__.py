"""Proves a prefill/decode deployment of an LLM server right under load, or says what is wrong with it."""
