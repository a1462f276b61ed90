"""Sources of faces compared: the faces of labelled people, painted into photos of others, judged by networks."""
