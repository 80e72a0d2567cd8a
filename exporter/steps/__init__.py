"""Steps of the pipeline: one stage each, bound to the cache."""
