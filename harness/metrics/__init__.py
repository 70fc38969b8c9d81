"""Measures of what a run draws: features (from `harness.features`) → statistics → distances."""
