"""examples/integrations/transformers_trainer.py, with transformers and peft."""

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("peft")

from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    Trainer,
    TrainingArguments,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    WhisperModel,
    pipeline,
)

from transformers_trainer import SpeechEmotionModel, build, prepare


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    torch.manual_seed(0)
    layers = {f"{side}_{what}": 1 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = WhisperConfig(d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=8, pad_token_id=0, **layers)
    folder = tmp_path_factory.mktemp("whisper")
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(params=["encoder", "whisper"])
def saved(request, tmp_path):
    """A model around either encoder, in eval mode, its extractor, and the folder where both are."""
    model, extractor = build(request.getfixturevalue(request.param), ["high", "low", "none"])
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    return model.eval(), extractor, tmp_path


@pytest.mark.parametrize("lora", [[], ["--lora"]], ids=["whole", "LoRA"])
def test_it_trains_and_answers_from_the_files(tones, encoder, tmp_path, run, lora):
    last = run("transformers_trainer.py", tones, "--backbone", encoder, "--epochs", 1, "--out", tmp_path, *lora)
    assert last.startswith("UA ")
    assert last.endswith("(test speakers; chance 0.500)")

    torch.manual_seed(0)
    before = build(encoder, ["high", "low"])[0].state_dict()
    after = SpeechEmotionModel.from_pretrained(tmp_path).state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert "head.pooling.cls" in changed
    assert any("q_proj.weight" in name for name in changed)
    assert not any(name.startswith("encoder.feature_extractor.") for name in changed)
    if lora:
        assert all(name.startswith("head.") or "q_proj.weight" in name or "v_proj.weight" in name for name in changed)


def test_it_starts_from_the_weights_of_its_encoder(encoder):
    model, _ = build(encoder, ["high", "low"])
    expected = AutoModel.from_pretrained(encoder).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.encoder.state_dict().items())


def test_it_trains_in_float32(half_encoder):
    model, _ = build(half_encoder, ["high", "low"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_an_utterance_alone_equals_itself_in_a_batch(saved, waveforms):
    model, extractor, _ = saved
    with torch.no_grad():
        batch = model(**prepare(extractor, waveforms)).logits
        alone = torch.cat([model(**prepare(extractor, [waveform])).logits for waveform in waveforms])
    torch.testing.assert_close(batch, alone)
    assert (batch[0] - batch[1]).abs().max() > 1e-3


def test_the_pipeline_answers_as_the_model_alone_and_in_batches(saved, waveforms):
    model, extractor, folder = saved
    with torch.no_grad():
        expected = model(**prepare(extractor, waveforms)).logits.softmax(1)
    classify = pipeline("audio-classification", model=str(folder))
    for size in (1, 3):
        answers = classify([waveform.numpy() for waveform in waveforms], batch_size=size)
        scores = [
            [{one["label"]: one["score"] for one in answer}[name] for name in model.config.label2id]
            for answer in answers
        ]
        torch.testing.assert_close(torch.tensor(scores), expected)


@pytest.mark.parametrize("part", ["head.", "head.pooling.cls"])
def test_what_a_checkpoint_lacks_is_drawn_and_the_rest_is_kept(saved, part):
    _, _, folder = saved
    weights = load_file(folder / "model.safetensors")
    rest = {name: value for name, value in weights.items() if not name.startswith(part)}
    save_file(rest, folder / "model.safetensors")
    loaded = []
    for _ in range(2):
        torch.manual_seed(0)
        loaded.append(SpeechEmotionModel.from_pretrained(folder).state_dict())
    for name, value in loaded[0].items():
        assert torch.equal(value, loaded[1][name]), name  # and not whatever was in memory
        assert name not in rest or torch.equal(value, rest[name]), name
    assert 0.01 < loaded[0]["head.pooling.cls"].std() < 0.04


def test_trainer_divides_the_loss_for_gradient_accumulation(encoder, tmp_path):
    model, _ = build(encoder, ["high", "low"])
    assert not Trainer(model, TrainingArguments(tmp_path, report_to="none")).model_accepts_loss_kwargs


def test_whisper_without_a_mask_is_refused(whisper, waveforms):
    model, extractor = build(whisper, ["high", "low"])
    inputs = prepare(extractor, waveforms)
    with pytest.raises(ValueError, match="return_attention_mask=True"):
        model(input_features=inputs["input_features"])


# ---- What transformers' own heads do


def pooled_by(model, **inputs):
    """What its classifier is given."""
    seen = []
    handle = model.classifier.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return seen[0]


def change(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_their_wav2vec2_pools_padding_and_normalises_over_it(encoder, waveforms):
    model = Wav2Vec2ForSequenceClassification.from_pretrained(encoder).eval()
    extractor = AutoFeatureExtractor.from_pretrained(encoder, return_attention_mask=False)  # as facebook/wav2vec2-base
    alone = pooled_by(model, **prepare(extractor, waveforms[2:]))
    usual = pooled_by(model, **prepare(extractor, waveforms))[2:]
    extractor.return_attention_mask = True
    masked = pooled_by(model, **prepare(extractor, waveforms))[2:]
    print(f"no mask {change(usual, alone):.0%}, mask {change(masked, alone):.0%}")
    assert change(usual, alone) > 0.1
    assert change(masked, alone) > 0.1


def test_their_whisper_pools_thirty_seconds_of_every_utterance(whisper, waveforms):
    model = WhisperForAudioClassification.from_pretrained(whisper).eval()
    classify = pipeline(
        "audio-classification", model=model, feature_extractor=WhisperFeatureExtractor.from_pretrained(whisper)
    )
    inputs = classify.preprocess(waveforms[0].numpy())
    assert set(inputs) == {"input_features"}  # no mask
    with torch.no_grad():
        frames = model.projector(model.encoder(inputs["input_features"]).last_hidden_state)
    pooled = pooled_by(model, **inputs)
    assert change(pooled, frames.mean(dim=1)) < 1e-6
    speech = frames[:, :50].mean(dim=1)  # one of thirty seconds
    print(f"off by {change(pooled, speech):.0%}")
    assert change(pooled, speech) > 0.1
