"""Studies: methods judged over many models, apart from bugs."""
