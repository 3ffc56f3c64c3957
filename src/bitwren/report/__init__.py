"""Numbers -> tables and pictures."""
