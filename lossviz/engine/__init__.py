"""From a traced loss to numbers and words: the linear tail, its cuts and shares, its axes and steps."""
