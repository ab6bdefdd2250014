"""Charts of a run, as Vega-Lite specifications: data and how to draw them. Nothing here draws or writes."""
