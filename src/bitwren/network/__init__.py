"""Trained float network -> exact integer network: definition, oracle, conversion, file."""
