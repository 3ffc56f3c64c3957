"""Integer network -> machines that run it."""
