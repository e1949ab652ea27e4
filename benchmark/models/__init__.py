"""Models: networks, training, and the lab that resolves any description of a model."""
