"""Drives an external StudioGAN checkout in a process and an environment of its own."""
