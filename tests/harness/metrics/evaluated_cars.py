"""The config of a tiny run on drawn cars."""

TINY = (
    "name=tiny", "data.img_size=32", "model.g_conv_dim=8", "model.d_conv_dim=8", "model.z_dim=16", "optim.batch_size=4",
    "optim.total_steps=2", "optim.d_updates_per_step=1", "train.threads=1", "train.device=cpu", "train.sample_count=4",
    "train.precision=fp32",
)  # fmt: skip
