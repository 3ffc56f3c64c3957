"""Image networks whose every weight is one bit, without batch normalization, from training to bare metal."""
