"""Measures of what a run draws: features of pictures → statistics → distances. Features come from `harness.features`."""
