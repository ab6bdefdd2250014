"""Pages that are made from the code: a module each, whose ``pages`` yields path and Markdown."""
