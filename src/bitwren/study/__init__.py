"""Studies: a grid of training runs, carried out on this machine or a Ray cluster, a record a run."""
