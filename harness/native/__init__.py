"""The embedded PyTorch engine: CPU, one GPU or many."""
