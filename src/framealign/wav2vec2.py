"""Hugging Face's wav2vec 2.0 and its relatives, made exact under padding. transformers itself is not imported."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from framealign.lengths import attention_mask_lengths, conv_lengths
from framealign.masking import lengths_to_mask, zero_padding

Model = TypeVar("Model", bound=nn.Module)


def exact_under_padding(model: Model) -> Model:
    r"""Make a Hugging Face wav2vec 2.0, HuBERT or WavLM give each utterance what it would give it alone.

    Models with `config.feat_extract_norm == "group"`, such as facebook/wav2vec2-base and facebook/hubert-base-ls960,
    normalise the output of their first convolution over time. In a padded batch, padding takes part in that mean and
    variance, so that the frames of every shorter utterance change, whatever the attention mask; by half of their
    length and more. Here the mean and variance are those of the real steps:

    $$y_t = \gamma \frac{x_t - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta, \qquad
      \mu, \sigma^2 \text{ over real } t$$

    The model is changed in place, once: its group norm is replaced by one that has the same parameters under the same
    names, so that `state_dict`, optimisers and checkpoints are as before. Call it as ever, with an `attention_mask` of
    samples; without one every sample counts as real. What stands in the padding, NaN included, then changes nothing.
    The mask of the frames is handed back as `frame_mask` of the output.

    It works with a CNN that is trained or frozen, after `deepcopy`, under `torch.compile` and in
    `DistributedDataParallel`. Where the CNN is checkpointed (`gradient_checkpointing_enable`) and trained, run each
    backward pass before the next forward pass: what is computed again takes the lengths of the latest batch.

    Let the feature extractor make the mask, and normalise waveforms without padding: call it with
    `return_attention_mask=True`, which for facebook/wav2vec2-base is not its default.

    Args:
        model: With a `feature_extractor.conv_layers` in itself or in a part, such as `Wav2Vec2Model`,
            `Wav2Vec2ForSequenceClassification`, `HubertModel` or `WavLMModel`.

    Returns:
        The same model.

    Raises:
        TypeError: `model` is not a module.
        ValueError: It has no such convolutions, or its positional convolutions carry padding into speech (data2vec).

    References:
        transformers `#21534 <https://github.com/huggingface/transformers/issues/21534>`_ and #10117,
        pytorch/audio #2242, speechbrain #1597.

    Example:
        >>> import torch
        >>> from framealign import exact_under_padding
        >>> from transformers import Wav2Vec2Config, Wav2Vec2Model
        >>> config = Wav2Vec2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> model = exact_under_padding(Wav2Vec2Model(config).eval())
        >>> short, long = torch.randn(1, 8000), torch.randn(1, 16_000)
        >>> batch = torch.cat([torch.nn.functional.pad(short, (0, 8000)), long])
        >>> attention_mask = torch.arange(16_000) < torch.tensor([[8000], [16_000]])
        >>> output = model(batch, attention_mask=attention_mask)
        >>> output.frame_mask.sum(dim=1)
        tensor([24, 49])
        >>> torch.allclose(output.last_hidden_state[0, :24], model(short).last_hidden_state[0], atol=1e-5)
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a module, got {type(model).__name__}.")
    # Any: what transformers' classes have is not known here
    owners: list[Any] = [
        part for part in model.modules() if hasattr(getattr(part, "feature_extractor", None), "conv_layers")
    ]
    if not owners:
        raise ValueError(
            "`model` must be a wav2vec 2.0 or a relative of it, with `feature_extractor.conv_layers`, got "
            f"{type(model).__name__}."
        )
    for owner in owners:
        if hasattr(getattr(getattr(owner, "encoder", None), "pos_conv_embed", None), "layers"):
            raise ValueError(
                f"`model` must not be a data2vec model, got {type(owner).__name__}: in its stack of positional "
                "convolutions padding becomes something else than zeros; run it one utterance at a time."
            )
    for owner in owners:
        if any(isinstance(hook, TellLengths) for hook in owner._forward_pre_hooks.values()):
            continue  # done before
        layers = owner.feature_extractor.conv_layers
        plain = getattr(layers[0], "layer_norm", None)
        norm = None  # of models that normalise step by step, where padding takes no part
        if isinstance(plain, nn.GroupNorm):
            layers[0].layer_norm = norm = GroupNormOfRealSteps(plain)
        convolutions = [layer.conv for layer in layers]
        owner.register_forward_pre_hook(TellLengths(norm, convolutions[0]), with_kwargs=True)
        owner.register_forward_hook(HandBackMask(convolutions), with_kwargs=True)
    return model


class GroupNormOfRealSteps(nn.GroupNorm):
    """`nn.GroupNorm` over the real steps of each utterance, zero at padding; it shares the parameters of another.

    `lengths` (batch,) are numbers of real steps of what comes next, or None, where all are real.
    """

    affine: bool
    weight: nn.Parameter
    bias: nn.Parameter
    lengths: Tensor | None

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, affine=False)
        self.affine, self.weight, self.bias = norm.affine, norm.weight, norm.bias
        self.train(norm.training)
        self.lengths = None

    def forward(self, input: Tensor) -> Tensor:
        if self.lengths is None:
            return super().forward(input)
        if len(self.lengths) != len(input):
            raise RuntimeError(
                f"a batch of {len(input)} utterances is computed again for backward, and the latest one had "
                f"{len(self.lengths)}; with gradient checkpointing, run backward before the next forward pass."
            )
        return self.over_real_steps(input, self.lengths)

    def over_real_steps(self, input: Tensor, lengths: Tensor) -> Tensor:
        padded = ~lengths_to_mask(lengths, max_length=input.shape[2])[:, None, None]
        # (batch, groups, channels of a group, time); with no size left to be found, export knows all of them
        groups = input.reshape(input.shape[0], self.num_groups, self.num_channels // self.num_groups, input.shape[2])
        groups = groups.to(torch.promote_types(input.dtype, torch.float32)).masked_fill(padded, 0)
        count = (lengths.clamp_min(1) * groups.shape[2])[:, None, None, None]
        centred = (groups - groups.sum((2, 3), keepdim=True) / count).masked_fill(padded, 0)
        variance = centred.square().sum((2, 3), keepdim=True) / count
        normalised: Tensor = (centred * (variance + self.eps).rsqrt()).flatten(1, 2)
        if self.affine:
            normalised = normalised * self.weight[:, None] + self.bias[:, None]
        # autocast has group norm give float32, but on the CPU
        widened = input.device.type != "cpu" and torch.is_autocast_enabled(input.device.type)
        return normalised.masked_fill(padded[:, 0], 0).to(normalised.dtype if widened else input.dtype)


class TellLengths:
    """Before a forward pass: tells the norm behind the first convolution how many of its steps are real.

    And writes zeros over the padding of the waveforms: NaN there would go into the gradients of the convolution.
    """

    norm: GroupNormOfRealSteps | None
    convolution: Any

    def __init__(self, norm: GroupNormOfRealSteps | None, convolution: Any) -> None:
        self.norm, self.convolution = norm, convolution

    def __call__(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = attention_mask_of(args, kwargs)
        if self.norm is not None:
            self.norm.lengths = None if mask is None else lengths_behind(mask, [self.convolution])
        if mask is None:
            return args, kwargs
        if args:
            return (zero_padding(args[0], mask.bool()), *args[1:]), kwargs
        return args, {**kwargs, "input_values": zero_padding(kwargs["input_values"], mask.bool())}


class HandBackMask:
    """After a forward pass: gives the output the mask of its frames."""

    def __init__(self, convolutions: list[Any]) -> None:
        self.convolutions = convolutions

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        frames = getattr(output, "last_hidden_state", None)
        if frames is not None:
            mask = attention_mask_of(args, kwargs)
            output.frame_mask = (
                frames.new_ones(frames.shape[:2], dtype=torch.bool)
                if mask is None
                else lengths_to_mask(lengths_behind(mask, self.convolutions), max_length=frames.shape[1])
            )


def attention_mask_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    mask: Tensor | None = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    return mask


def lengths_behind(attention_mask: Tensor, convolutions: list[Any]) -> Tensor:
    """Numbers of steps that convolutions without padding make of the real samples."""
    kernel, stride = zip(*((conv.kernel_size[0], conv.stride[0]) for conv in convolutions), strict=True)
    return conv_lengths(attention_mask_lengths(attention_mask), kernel, stride)
