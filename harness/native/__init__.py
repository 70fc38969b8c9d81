"""The native PyTorch engine: CPU, one GPU or many."""
