"""Every section and key of an experiment with its type and range. All values come from YAML."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
# Fine-tuning adds a suffix to the name of its source run.
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(-freezed)*$")]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Rate = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Width = Annotated[int, Field(ge=1, le=4096)]
InitName = Literal["ortho", "N02", "glorot", "xavier"]
ActivationName = Literal["ReLU", "Leaky_ReLU", "Mish"]
SPEED_SWITCHES = ("commute_1x1", "fuse_resampling", "channels_last", "fused_adam")  # of section train
ViewName = Literal["left", "right", "front_left", "front_right", "front", "rear", "rear_left", "rear_right", "other"]


def _size_to_pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list) else value


Size = Annotated[tuple[int, int], BeforeValidator(_size_to_pair)]


def _lists_to_tuples(value: Any) -> Any:
    return tuple(map(_lists_to_tuples, value)) if isinstance(value, list) else value


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Section):
    set: Name
    source: Literal["procedural", "folder", "cifar10"]
    src: str | None
    kind: Literal["ordinary", "concept", "brands", "brand_concepts", "messy"]
    count: Count
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    looseness: Annotated[float, Field(ge=0, le=5)]
    layout: Literal["auto", "classes", "flat", "split"]
    ignore: Annotated[tuple[str, ...], BeforeValidator(_lists_to_tuples)] | None
    img_size: Size
    valid_fraction: Annotated[float, Field(ge=0, le=0.5)]
    fit: Literal["crop", "pad"]
    fast_decode: bool

    @property
    def size_name(self) -> str:
        """`64` for square pictures, else height x width: `128x224`."""
        height, width = self.img_size
        return str(height) if height == width else f"{height}x{width}"

    def hdf5_path(self, split: Literal["train", "valid"]) -> Path:
        """The path of the packed set, named as StudioGAN expects."""
        return Path("data/hdf5") / self.set / f"custom_{self.size_name}_{split}.hdf5"


class Clean(Section):
    apply: bool
    features: Name
    min_side_px: Width
    min_aspect: Annotated[float, Field(gt=0, le=100)]
    max_aspect: Annotated[float, Field(gt=0, le=100)]
    min_ok_score: Annotated[float, Field(ge=0, le=1)] | None
    views: Annotated[tuple[ViewName, ...], BeforeValidator(_lists_to_tuples), Field(min_length=1)] | None
    min_view_confidence: Annotated[float, Field(ge=0, le=1)]
    mirror_to: Literal["left", "right"] | None
    near_duplicates: bool
    decisions: str | None


class Model(Section):
    backbone: Literal["resnet", "conv", "subpixel"]
    z_dim: Width
    g_conv_dim: Width
    d_conv_dim: Width
    g_cond_mtd: Literal["cBN", "concat"] | None
    d_cond_mtd: Literal["PD", "concat", "acgan"] | None
    class_embed_dim: Width
    apply_g_sn: bool
    apply_d_sn: bool
    g_act_fn: ActivationName
    d_act_fn: ActivationName
    apply_attn: bool
    attn_g_loc: Count
    attn_d_loc: Count
    g_init: InitName
    d_init: InitName
    apply_g_ema: bool
    g_ema_decay: Fraction
    g_ema_start: Annotated[int, Field(ge=0)]
    g_ema_warmup: bool

    @property
    def conditional(self) -> bool:
        return self.g_cond_mtd is not None or self.d_cond_mtd is not None


class Loss(Section):
    adv_loss: Literal["hinge", "vanilla", "least_square", "wasserstein"]
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    cond_lambda: Positive
    apply_mismatch: bool
    mismatch_lambda: Positive
    apply_gp: bool
    gp_lambda: Positive
    apply_r1_reg: bool
    r1_lambda: Positive
    apply_similarity: bool
    similarity_lambda: Positive
    apply_lecam: bool
    lecam_type: Literal["standard", "gsrgan"]
    lecam_lambda: Positive
    lecam_ema_decay: Fraction
    lecam_ema_start_iter: Annotated[int, Field(ge=1)]


class Optim(Section):
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    acml_steps: Annotated[int, Field(ge=1, le=4096)]
    g_lr: Rate
    d_lr: Rate
    beta1: Fraction
    beta2: Fraction
    eps: Rate
    d_updates_per_step: Annotated[int, Field(ge=1, le=100)]
    total_steps: Count
    total_epochs: Count | None
    cosine_from: Fraction | None
    z_schedule: Annotated[tuple[tuple[int, int], ...], BeforeValidator(_lists_to_tuples), Field(min_length=1)] | None
    z_schedule_unit: Literal["steps", "epochs"]


class ReconstructionSettings(Section):
    apply: bool
    features: Literal["efficientnet_lite0", "reader"]
    encoder_width: Annotated[int, Field(ge=8, le=4096)]
    e_lr: Rate
    muon_lr: Rate | None
    pixel_lambda: Positive
    gradient_lambda: Annotated[float, Field(ge=0, le=1e6)]
    colour_weight: Annotated[float, Field(ge=0, le=1e3)]
    features_lambda: Annotated[float, Field(ge=0, le=1e6)]
    class_lambda: Positive
    decorrelation_lambda: Annotated[float, Field(ge=0, le=1e6)]
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)]
    adversarial_every_steps: Count
    adversarial_share: Positive
    sample_passes: Annotated[int, Field(ge=0, le=100)]


class Augment(Section):
    apply_rflip: bool
    d_input_noise: Annotated[float, Field(ge=0, le=1)]
    apply_diffaug: bool
    diffaug_policy: Annotated[
        tuple[Literal["color", "translation", "cutout"], ...],
        BeforeValidator(_lists_to_tuples),
    ]


class Train(Section):
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "tf32", "bf16"]
    numerics: Literal["fast", "studiogan"]
    commute_1x1: bool
    fuse_resampling: bool
    channels_last: bool
    fused_adam: bool
    compile: bool
    deterministic: bool
    pictures: Literal["auto", "resident", "lazy"]
    threads: Annotated[int, Field(ge=0, le=1024)]
    log_every_steps: Count
    sample_every_steps: Count
    save_every_steps: Count
    keep_last: Count
    sample_count: Width

    @property
    def as_studiogan(self) -> bool:
        """Whether a step computes in StudioGAN's order of operations."""
        return self.numerics == "studiogan"

    @property
    def applied(self) -> "Train":
        """The section without speed switches if `as_studiogan`: each of them rounds differently from StudioGAN."""
        return self.model_copy(update=dict.fromkeys(SPEED_SWITCHES, False)) if self.as_studiogan else self


class Finetune(Section):
    from_run: RunName | None
    freeze_layers: Count
    override: dict[str, Any]  # checked merged into the rest


class EncoderSettings(Section):
    with_finetuned: bool
    stem: Literal["imagenet", "small"]
    width: Annotated[int, Field(ge=8, le=4096)]  # oneDNN's AVX2 kernels corrupt memory at 4
    head_dims: Annotated[tuple[Width, ...], BeforeValidator(_lists_to_tuples), Field(max_length=4)]
    weights: str | None
    skip_pictures: Annotated[int, Field(ge=0, le=1_000_000)]
    skip_ridge: Positive
    z_loss: Literal["log_cosh", "mse"]
    picture_lambda: Annotated[float, Field(ge=0, le=1e6)]
    picture_every_steps: Count
    real_pictures: bool
    augment_strength: Annotated[float, Field(ge=0, le=1)]
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    lr: Rate
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    total_steps: Count
    log_every_steps: Count
    save_every_steps: Count
    valid_count: Annotated[int, Field(ge=16, le=1_000_000)]
    polish_steps: Annotated[int, Field(ge=0, le=1_000_000)]


class Inversion(Section):
    count: Annotated[int, Field(ge=1, le=100_000)]
    steps: Annotated[int, Field(ge=0, le=100_000)]
    lr: Rate
    batch_size: Annotated[int, Field(ge=1, le=65536)]
    features: Literal["discriminator", "resnet18", "lpips"]
    features_lambda: Annotated[float, Field(ge=0, le=1e6)]
    pixel_lambda: Annotated[float, Field(ge=0, le=1e6)]
    prior_lambda: Annotated[float, Field(ge=0, le=1e6)]


class Blend(Section):
    interpolation: Literal["linear", "slerp"]
    intensity: Annotated[float, Field(ge=0, le=1)]
    style: Annotated[float, Field(ge=0, le=1)] | None
    latent_share: Annotated[float, Field(ge=0, le=1)]
    tuned_share: Annotated[float, Field(ge=0, le=1)]
    pairs: Annotated[int, Field(ge=1, le=100_000)]
    warn_percentile: Annotated[float, Field(ge=0, le=100)]


class Evaluate(Section):
    every_steps: Annotated[int, Field(ge=0, le=1_000_000_000)]
    features: Literal["reader", "inception"]
    split: Literal["train", "valid"]
    count: Annotated[int, Field(ge=0, le=1_000_000)]
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    neighbours: Annotated[int, Field(ge=1, le=100)]
    brand_classifier: Literal["auto", "pixels", "reader", "mobilenet_v2", "resnet18"]
    brand_count: Annotated[int, Field(ge=2, le=100_000)]


class Studiogan(Section):
    version: Literal["0.2.0", "0.4.0"]
    evaluate: bool
    num_workers: Annotated[int, Field(ge=0, le=256)]
    sync_bn: bool
    silent_after_sec: Annotated[int, Field(ge=1, le=1_000_000)]


class Config(Section):
    """A whole experiment. No defaults here: configs/base.yaml has them."""

    name: RunName
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    engine: Literal["native", "studiogan"]
    data: Data
    clean: Clean
    model: Model
    loss: Loss
    optim: Optim
    reconstruction: ReconstructionSettings
    augment: Augment
    train: Train
    finetune: Finetune
    encoder: EncoderSettings
    inversion: Inversion
    blend: Blend
    evaluate: Evaluate
    studiogan: Studiogan
