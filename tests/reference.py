"""Oracles: the contract's equations in float64, one unpadded utterance at a time, without any mask.

Nothing here imports the library. A pooling's oracle takes the parameters of the module under test, and the
options as the test spelt them, so that a default or an option that the module loses shows as a difference.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Poolings: (module, frames (T, D), **options) -> utterance, weights and frames, and cls where there is one


def mean_pooling(module: nn.Module, frames: Tensor, dim: int | None = None) -> dict[str, Tensor]:
    weights = frames.new_full((len(frames),), 1 / len(frames))
    return {"utterance": frames.mean(dim=0), "weights": weights, "frames": frames}


def max_pooling(module: nn.Module, frames: Tensor, dim: int | None = None) -> dict[str, Tensor]:
    weights = frames.new_zeros(len(frames))
    for column in frames.detach().T:
        holders = column == column.max()
        weights += holders / holders.sum() / frames.shape[1]
    return {"utterance": frames.amax(dim=0), "weights": weights, "frames": frames}


def statistics_pooling(module: nn.Module, frames: Tensor, dim: int | None = None) -> dict[str, Tensor]:
    uniform = mean_pooling(module, frames)
    return uniform | {"utterance": _mean_and_deviation(frames, uniform["weights"])}


def attentive_pooling(
    module: nn.Module, frames: Tensor, dim: int | None = None, hidden_dim: int | None = 128
) -> dict[str, Tensor]:
    weights = _scores(module.scorer, frames, hidden_dim).softmax(dim=0)
    return {"utterance": weights @ frames, "weights": weights, "frames": frames}


def attentive_statistics_pooling(
    module: nn.Module, frames: Tensor, dim: int | None = None, hidden_dim: int | None = 128
) -> dict[str, Tensor]:
    attentive = attentive_pooling(module, frames, dim, hidden_dim)
    return attentive | {"utterance": _mean_and_deviation(frames, attentive["weights"])}


def self_attention_pooling(
    module: nn.Module, frames: Tensor, dim: int, hidden_dim: int | None = 128, **encoder_options: object
) -> dict[str, Tensor]:
    encoded = encoder(module.encoder, frames, **encoder_options)
    return attentive_pooling(module, encoded, dim, hidden_dim)


def cls_self_attention_pooling(
    module: nn.Module,
    frames: Tensor,
    dim: int,
    similarity: str = "dot",
    temperature: float = 0.1,
    aggregate: str = "frames",
    **encoder_options: object,
) -> dict[str, Tensor]:
    encoded = encoder(module.encoder, torch.cat([module.cls[None], frames]), **encoder_options)
    pooled = attend_to_cls(encoded[1:], encoded[0], similarity, temperature)
    u, cls = pooled["utterance"], pooled["cls"]
    return pooled | {"utterance": {"frames": u, "cls": cls, "sum": u + cls}[aggregate]}


def attend_to_cls(frames: Tensor, cls: Tensor, similarity: str, temperature: float) -> dict[str, Tensor]:
    if similarity == "dot":
        logits = frames @ cls / len(cls) ** 0.5
    else:
        logits = torch.stack([cosine(frame, cls) for frame in frames]) / temperature
    weights = logits.softmax(dim=0)
    return {"utterance": weights @ frames, "weights": weights, "frames": frames, "cls": cls}


def encoder(
    module: nn.Module,
    tokens: Tensor,
    num_heads: int = 4,
    depth: int = 1,
    norm_first: bool = False,
    feedforward_dim: int | None = None,
) -> Tensor:
    """torch's own encoder layers with the module's weights; without a feed-forward half, written out."""
    dim = tokens.shape[1]
    assert len(module.layers) == depth
    for layer in module.layers:
        parameters = {
            "self_attn.in_proj_weight": layer.attention.project_in.weight,
            "self_attn.in_proj_bias": layer.attention.project_in.bias,
            "self_attn.out_proj.weight": layer.attention.project_out.weight,
            "self_attn.out_proj.bias": layer.attention.project_out.bias,
            "norm1.weight": layer.attention_norm.weight,
            "norm1.bias": layer.attention_norm.bias,
        }
        if feedforward_dim == 0:
            tokens = _attention_residual_and_norm(parameters, tokens, num_heads, norm_first)
            continue
        wide = 4 * dim if feedforward_dim is None else feedforward_dim
        theirs = nn.TransformerEncoderLayer(
            dim, num_heads, wide, 0.0, "gelu", batch_first=True, norm_first=norm_first, dtype=tokens.dtype
        )
        parameters |= {
            "linear1.weight": layer.feedforward[0].weight,
            "linear1.bias": layer.feedforward[0].bias,
            "linear2.weight": layer.feedforward[-1].weight,
            "linear2.bias": layer.feedforward[-1].bias,
            "norm2.weight": layer.feedforward_norm.weight,
            "norm2.bias": layer.feedforward_norm.bias,
        }
        tokens = torch.func.functional_call(theirs, parameters, (tokens[None],))[0]
    return tokens


def _attention_residual_and_norm(p: dict[str, Tensor], tokens: Tensor, num_heads: int, norm_first: bool) -> Tensor:
    def norm(x: Tensor) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        return (
            centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt() * p["norm1.weight"] + p["norm1.bias"]
        )

    x = norm(tokens) if norm_first else tokens
    queries, keys, values = (x @ p["self_attn.in_proj_weight"].T + p["self_attn.in_proj_bias"]).chunk(3, dim=1)
    heads = []
    for query, key, value in zip(*(part.chunk(num_heads, dim=1) for part in (queries, keys, values)), strict=True):
        heads.append((query @ key.T / query.shape[1] ** 0.5).softmax(dim=1) @ value)
    attended = torch.cat(heads, dim=1) @ p["self_attn.out_proj.weight"].T + p["self_attn.out_proj.bias"]
    return tokens + attended if norm_first else norm(tokens + attended)


def _scores(scorer: nn.Module, frames: Tensor, hidden_dim: int | None) -> Tensor:
    (w,) = scorer.score.weight
    if hidden_dim is None:
        return torch.stack([w @ frame for frame in frames])
    V, b = scorer.project[0].weight, scorer.project[0].bias
    assert V.shape[0] == hidden_dim
    return torch.stack([w @ torch.tanh(V @ frame + b) for frame in frames])


def _mean_and_deviation(frames: Tensor, weights: Tensor) -> Tensor:
    mean = weights @ frames
    if len(frames) == 1:
        return torch.cat([mean, torch.zeros_like(mean)])
    return torch.cat([mean, (weights @ (frames - mean) ** 2).sqrt()])


# Losses: lists with one entry for each utterance


def cosine(frame: Tensor, anchor: Tensor) -> Tensor:
    if not frame.any() or not anchor.any():
        return frame.new_zeros(())
    return frame @ anchor / (frame.norm() * anchor.norm())


def emotional_attention_loss(
    frames: list[Tensor],
    anchors: list[Tensor],
    labels: list[int],
    *,
    margin: float = 0.8,
    beta: float = 1.0,
    negative_margin: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    def pull(i: int) -> Tensor:
        return torch.stack([F.softplus(margin - cosine(frame, anchors[i]), beta=beta) for frame in frames[i]])

    def push(i: int, j: int) -> Tensor:
        losses = [F.softplus(cosine(frame, anchors[i]) - negative_margin, beta=beta) for frame in frames[j]]
        return torch.stack(losses).mean()

    real = [i for i in range(len(frames)) if len(frames[i])]
    if reduction == "frames":
        return torch.cat([pull(i) for i in real]).mean() if real else _zero(anchors)
    losses = {i: pull(i).mean() for i in real}
    if negative_margin is not None:
        for i in real:
            others = [push(i, j) for j in real if labels[j] != labels[i] and -100 not in (labels[i], labels[j])]
            if others:
                losses[i] = losses[i] + torch.stack(others).mean()
    return _reduce(losses, len(frames), reduction, _zero(anchors))


def frame_utterance_alignment_loss(
    frame_logits: list[Tensor],
    utterance_logits: list[Tensor],
    weights: list[Tensor] | None = None,
    *,
    target: str = "utterance",
    detach: str | None = None,
    reduction: str = "mean",
) -> Tensor:
    losses = {}
    for i, logits in enumerate(frame_logits):
        if len(logits) == 0:
            continue
        share = logits.new_ones(len(logits)) if weights is None else weights[i]
        average = (share / share.sum()) @ logits.softmax(dim=1)
        utterance = utterance_logits[i].softmax(dim=0)
        if detach == "utterance":
            utterance = utterance.detach()
        elif detach == "frames":
            average = average.detach()
        p, q = (utterance, average) if target == "utterance" else (average, utterance)
        losses[i] = sum(p[c] * (p[c].log() - q[c].log()) for c in range(len(p)))
    return _reduce(losses, len(frame_logits), reduction, _zero(utterance_logits))


def cross_entropy(
    logits: list[Tensor], labels: list[int], class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean of `-sum_c w_c q_c log p_c` over the labelled utterances, each counted as the weight of its label."""
    total, count = _zero(logits), 0.0
    for row, label in zip(logits, labels, strict=True):
        if label == -100:
            continue
        w = row.new_ones(len(row)) if class_weights is None else class_weights.to(row.dtype)
        q = torch.full_like(row, label_smoothing / len(row))
        q[label] += 1 - label_smoothing
        total = total - (w * q * row.log_softmax(dim=0)).sum()
        count = count + w[label]
    return total / count if count else total


def objective(
    pooled: list[dict[str, Tensor]],
    labels: list[int],
    classifier: nn.Module,
    *,
    margin: float = 0.8,
    beta: float = 1.0,
    negative_margin: float | None = None,
    eal_weight: float = 0.05,
    fual_weight: float = 0.05,
    target: str = "utterance",
    detach: str | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    real = [i for i in range(len(pooled)) if len(pooled[i]["frames"])]
    labels_of_real, pooled = [labels[i] for i in real], [pooled[i] for i in real]
    logits = [classifier(item["utterance"]) for item in pooled]
    frames = [item["frames"] for item in pooled]
    ce = cross_entropy(logits, labels_of_real, class_weights, label_smoothing)
    eal = fual = torch.zeros_like(ce)
    if eal_weight:
        anchors = [item.get("cls", item["utterance"]) for item in pooled]
        options = {"margin": margin, "beta": beta, "negative_margin": negative_margin}
        eal = emotional_attention_loss(frames, anchors, labels_of_real, **options)
    if fual_weight:
        frame_logits, weights = [classifier(rows) for rows in frames], [item["weights"] for item in pooled]
        fual = frame_utterance_alignment_loss(frame_logits, logits, weights, target=target, detach=detach)
    return {"loss": ce + eal_weight * eal + fual_weight * fual, "cross_entropy": ce, "eal": eal, "fual": fual}


# Diagnostics of one utterance


def attention_entropy(weights: Tensor) -> float:
    return -sum(a * a.log() for a in weights if a > 0)


def anchor_cosine(frames: Tensor, anchor: Tensor) -> Tensor:
    return torch.stack([cosine(frame, anchor) for frame in frames]).mean()


def frame_variance(frames: Tensor) -> Tensor:
    return frames.var(dim=0, correction=0).mean()


def frame_agreement(frame_logits: Tensor, utterance_logits: Tensor) -> Tensor:
    return (frame_logits.argmax(dim=1) == utterance_logits.argmax()).double().mean()


def _reduce(losses: dict[int, Tensor], batch: int, reduction: str, zero: Tensor) -> Tensor:
    if reduction == "none":
        return torch.stack([losses.get(i, zero) for i in range(batch)]) if batch else zero.new_zeros(0)
    total = sum(losses.values(), zero)
    return total / len(losses) if reduction == "mean" and losses else total


def _zero(rows: list[Tensor]) -> Tensor:
    return rows[0].new_zeros(()) if rows else torch.zeros((), dtype=torch.float64)
