"""One process of a distributed step: writes the gradients of the mean loss over some utterances, and the loss.

python step_gradients.py OUT SYSTEM FRAME_BUDGET INDEX [INDEX ...]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from recipe.data.corpus import Utterance
from recipe.features.backbones import load_backbone
from recipe.features.batches import UtteranceFeatures
from recipe.training.epoch import TERMS, gradients
from recipe.training.model import EmotionModel, Trainee
from recipe.training.predict import predict
from recipe.training.systems import paper_systems

CLASSES = ("angry", "happy", "neutral", "sad")


def main() -> None:
    out, system_name, frame_budget, *indices = sys.argv[1:]
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 40, (12,), generator=generator).tolist()
    utterances = [Utterance(str(i), Path(), CLASSES[i % 4], "") for i in range(len(lengths))]
    features = {str(i): torch.randn(length, 32, generator=generator) for i, length in enumerate(lengths)}
    data = UtteranceFeatures(utterances, features, CLASSES)
    torch.manual_seed(1)
    backbone = load_backbone("tiny").eval()
    settings = backbone.settings
    system = next(s for s in paper_systems(settings) if s.slug == system_name)
    model = EmotionModel(backbone, system.build_pooling(backbone.dim, settings), len(CLASSES))
    trainee = accelerator.prepare(Trainee(model, system.objective()))
    step = [int(index) for index in indices]
    sums = next(gradients(trainee, data, [step], int(frame_budget), accelerator))
    losses = accelerator.reduce(sums, "sum") / len(step)
    found = predict(model, data, settings, accelerator)  # before the gradients change anything
    if accelerator.is_main_process:
        of_parameters = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        outputs = {"probabilities": found.probabilities, "lengths": found.lengths, "weights": found.weights}
        terms = {name: losses[i].clone() for i, name in enumerate(TERMS)}
        save_file({**of_parameters, **outputs, **terms}, out)
    accelerator.end_training()


if __name__ == "__main__":
    main()
