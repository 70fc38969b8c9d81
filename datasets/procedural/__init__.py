"""Procedural cars: a small 3-D renderer whose pictures come with their true factors, so everything runs without a download."""
