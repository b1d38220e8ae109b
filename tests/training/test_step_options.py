"""Options that change how a step is computed: pieces of a batch, mixed precision, compilation, averaged weights."""

from dataclasses import replace

import pytest
import torch

from stlora_kernels.training.config import AdapterConfig
from stlora_kernels.training.evaluation import evaluate
from stlora_kernels.training.experiment import load_data, train
from stlora_kernels.training.model import build_model
from stlora_kernels.training.progress import Progress
from stlora_kernels.training.trainer import Trainer, seed_everything

CPU = torch.device("cpu")


def trainer_for(config):
    data = load_data(config)
    seed_everything(config.seed)
    return Trainer(build_model(config, data, CPU), data, config, CPU, lambda epoch: None, Progress(quiet=True))


def gradients_of_a_step(config):
    trainer = trainer_for(config)
    for parameter in trainer.trained:  # away from the zeros at which half of the gradients vanish
        torch.nn.init.normal_(parameter, std=0.1)
    batch = next(trainer.data.train.batches(config.recipe().batch_size))
    batch.y[:5] = torch.nan  # pieces differ in what they measure
    loss = trainer.step(batch, 1, 1)
    return loss, [parameter.grad.clone() for parameter in trainer.trained if parameter.grad is not None]


@pytest.mark.parametrize("pieces", [2, 3, 64, 1000])
def test_pieces_of_a_batch_have_the_gradient_of_the_batch(pieces, tiny):
    config = replace(
        tiny,
        gate_penalty=10.0,
        clip=0,
        backbone_args=("dropout=0",),
        adapter=AdapterConfig(layers=1, rank=2, hidden=8, dropout=0.0),
    )
    loss, whole = gradients_of_a_step(config)
    loss_of_pieces, added = gradients_of_a_step(replace(config, accumulate=pieces))
    assert loss_of_pieces == pytest.approx(loss, rel=1e-6)
    for one, other in zip(whole, added, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_mixed_precision_is_used_in_training_and_not_in_validation(tiny, monkeypatch):
    seen = []
    trainer = trainer_for(replace(tiny, amp="bf16", epochs=1, max_batches=2))
    linear = next(module for module in trainer.model.modules() if isinstance(module, torch.nn.Linear))
    linear.register_forward_hook(lambda module, _, y: seen.append((module.training, y.dtype)))
    trainer.fit()
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}


def test_mixed_precision_trains_to_about_the_same(tiny):
    config = replace(tiny, epochs=3, learning_rate=3e-3, batch_size=16)
    exact, mixed = (trainer_for(replace(config, amp=amp)).fit().validation.pooled.mae for amp in ("none", "bf16"))
    assert mixed == pytest.approx(exact, rel=0.05)
    assert mixed != exact


def test_the_average_of_the_weights_is_what_is_validated_kept_and_tested(tiny):
    trainer = trainer_for(replace(tiny, ema=0.5, epochs=1, learning_rate=0.01))
    average = None
    step = trainer.step

    def averaged(*arguments):
        nonlocal average
        loss = step(*arguments)
        now = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        average = now if average is None else [0.5 * a + 0.5 * b for a, b in zip(average, now, strict=True)]
        return loss

    trainer.step = averaged
    best = trainer.fit()
    for parameter, expected in zip(trainer.evaluated.parameters(), average, strict=True):
        torch.testing.assert_close(parameter, expected)
    size = trainer.recipe.batch_size
    scores = [
        evaluate(model, trainer.data, trainer.data.val, size, CPU) for model in (trainer.evaluated, trainer.model)
    ]
    assert scores[0] == best.validation
    assert scores[1] != best.validation


@pytest.mark.slow
def test_a_compiled_model_trains_to_the_same(tiny):
    config = replace(tiny, epochs=2, max_batches=3, adapter=AdapterConfig(layers=1, rank=2, hidden=8, dropout=0.0))
    eager = train(config)
    compiled = train(replace(config, compile=True, output=tiny.output.with_name("compiled")))
    name = "lstm + ST-LoRA"
    assert compiled.scores[name].pooled.mae == pytest.approx(eager.scores[name].pooled.mae, rel=1e-4)


def test_tensorboard_reads_the_scalars_of_every_epoch_once(tiny):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(replace(tiny, tensorboard=True))
    report = train(replace(tiny, tensorboard=True, epochs=3), resume=True)
    events = reader.EventAccumulator(str(tiny.output / "tensorboard"))
    events.Reload()
    epochs = [event.step for event in events.Scalars("validation/mae")]
    assert epochs == [1, 2, 3]
    assert set(events.Tags()["scalars"]) >= {"train/loss", "train/learning_rate", "validation/rmse"}
    assert report is not None


def test_without_the_option_nothing_is_written_for_tensorboard(tiny):
    train(tiny)
    assert not (tiny.output / "tensorboard").exists()
