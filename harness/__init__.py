"""The floor (no torch), the training engines and the features. Knows none of the stages that stand on it."""
