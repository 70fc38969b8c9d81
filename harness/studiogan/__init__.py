"""Runs an external StudioGAN checkout in its own process and environment."""
