"""What a checkpoint's own files say of its towers, and what is known of Apple's, which say
nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from omnivec.conversion import sources
from omnivec.core.checkpoint import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.conversion.sources import Source

FASTVIT = tuple(f"fastvit_mci{number}" for number in range(5))
VIT = "vit_base_mci_224"
_HEAD = 64  # numbers of each head of Apple's text towers
_RESAMPLE = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers
_CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
_APPLE = {"mean": (0, 0, 0), "std": (1, 1, 1), "interpolation": "bilinear"}
# of text towers in model_cfg: the value with which ours is right, also when it is left out
_RIGHT: Mapping[str, object] = {
    "ls_init_value": None,
    "embed_cls": False,
    "use_pad_mask": False,
    "final_ln_after_pool": False,
    "pool_type": "argmax",
    "proj_type": "linear",
    "proj_bias": False,
    "block_type": None,
    "act_kwargs": None,
    "norm_kwargs": None,
    "hf_model_name": None,
}


class Told(NamedTuple):
    """`tower` is the image tower's name in timm, `epsilon` and `border` as vit.convert has
    them, `causal` whether a token of a text sees only what is before it."""

    tower: str
    side: int
    epsilon: float
    border: int
    heads: int
    causal: bool
    pictures: Mapping[str, Any]


def by_open_clip(source: Source) -> Told:
    """From open_clip_config.json. Raises CheckpointError for towers that are not known here."""
    if not source.settings:
        raise CheckpointError(
            f"{source.name}: Apple's MobileCLIP has other names for its tensors, and there is no "
            f"{sources.SETTINGS} beside it; put the one there that belongs to it"
        )
    try:
        model = source.settings["model_cfg"]
        image, text = dict(model["vision_cfg"]), dict(model["text_cfg"])
        tower, side = str(image.get("timm_model_name")), int(image.get("image_size", 224))
        heads, causal = int(text.get("heads", 8)), not text.get("no_causal_mask", False)
        seen = {**_CLIP, **(source.settings.get("preprocess_cfg") or {})}
        pictures = _pictures(side, seen)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source.name}: {sources.SETTINGS} lacks or garbles {error}; download it again"
        ) from error
    if tower not in (*FASTVIT, VIT):
        named = f"timm's {tower}" if "timm_model_name" in image else "one of open_clip's own"
        raise CheckpointError(
            f"{source.name}: its image tower is {named}, which is not converted here (known: "
            f"{', '.join(FASTVIT)}, {VIT})"
        )
    odd = [key for key, right in _RIGHT.items() if text.get(key, right) != right]
    if odd or model.get("quick_gelu"):
        raise CheckpointError(
            f"{source.name}: {(odd or ['quick_gelu'])[0]!r} of {sources.SETTINGS} has a value "
            "under which its text tower is none that is known here"
        )
    return Told(tower, side, 1e-6, 0, heads, causal, pictures)


def by_apple(width: int, *, convolutional: bool) -> Told:
    """Of the text tower's `width`, and whether the image tower is a FastViT. The ViT's norms
    and the border around its pictures are as Apple's own code has them, not as timm has."""
    heads = max(1, width // _HEAD)
    if convolutional:
        return Told(FASTVIT[0], 256, 1e-5, 0, heads, causal=False, pictures=_pictures(256, _APPLE))
    return Told(VIT, 224, 1e-5, 1, heads, causal=True, pictures=_pictures(224, _APPLE))


def _pictures(side: int, told: Mapping[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json, in transformers' words. Raises ValueError for what has none."""
    if told["interpolation"] not in _RESAMPLE:
        raise ValueError("interpolation")
    mode = told.get("resize_mode", "shortest")
    square = {"height": side, "width": side}
    if mode not in ("shortest", "squash"):
        raise ValueError("resize_mode")
    crops = mode == "shortest"
    return {
        "do_resize": True,
        "size": {"shortest_edge": side} if crops else square,
        "resample": _RESAMPLE[told["interpolation"]],
        "do_center_crop": crops,
        **({"crop_size": square} if crops else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [float(one) for one in told["mean"]],
        "image_std": [float(one) for one in told["std"]],
    }
