"""Studies: the experiments of the papers on any network, as numbers with intervals and controls."""
