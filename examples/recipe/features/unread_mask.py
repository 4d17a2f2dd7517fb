"""Attention for transformers' models that never reads a mask on a GPU."""

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_unread_mask"


def leave_mask_unread(model: PreTrainedModel) -> None:
    """Have `model` build its attention mask on a GPU without a look at its values.

    transformers leaves the mask out where no utterance is padded, and reads it to find out: `if mask.all()`, in every
    pass. The host then waits for all that it has asked of the GPU, and the GPU afterwards for the host. Here such a
    batch keeps its mask, which hides nothing. On a CPU nothing changes.
    """
    if model.config._attn_implementation == "sdpa":  # WavLM has an attention of its own, which does not read it
        AttentionInterface.register(NAME, sdpa_attention_forward)
        AttentionMaskInterface.register(NAME, _mask)
        model.set_attn_implementation(NAME)


def _mask(
    *args: object, attention_mask: Tensor | None = None, allow_is_bidirectional_skip: bool = False, **kwargs: object
) -> Tensor | None:
    at_hand = attention_mask is None or attention_mask.device.type == "cpu"
    return sdpa_mask(
        *args,
        attention_mask=attention_mask,
        allow_is_bidirectional_skip=allow_is_bidirectional_skip and at_hand,
        **kwargs,
    )
