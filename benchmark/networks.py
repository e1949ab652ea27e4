"""Small networks for tasks of one's own; their initial weights do not depend on the processor."""

from attribug.models.networks import bvd_cnn, mlp, plain_cnn, shrinking_cnn

__all__ = ["bvd_cnn", "mlp", "plain_cnn", "shrinking_cnn"]
