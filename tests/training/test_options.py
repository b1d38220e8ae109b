"""Options, YAML and defaults: which wins, and how each mistake is named."""

from dataclasses import replace
from pathlib import Path

import pytest

from stlora_kernels.errors import InputError, MissingFileError
from stlora_kernels.training.config import AdapterConfig, TrainConfig, arguments_of
from stlora_kernels.training.options import config_from_dict, load_yaml, parse_evaluate, parse_train


def parsed(*argv: str) -> TrainConfig:
    return parse_train(argv)[0]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        pytest.param(
            ["--dataset", "PEMS08", "--backbone", "stgcn", "--stlora"],
            TrainConfig(dataset="PEMS08", backbone="stgcn", stlora=True),
            id="name-backbone-adapter",
        ),
        pytest.param(
            ["--data-dir", "DIR", "--dataset", "PEMS08", "--backbone", "lstm", "--stlora", "--epochs", "3"],
            TrainConfig(data_dir=Path("DIR"), dataset="PEMS08", stlora=True, epochs=3),
            id="data-dir",
        ),
        pytest.param(
            ["--dataset", "my.csv", "--adjacency", "my_adj.csv"],
            TrainConfig(dataset="my.csv", adjacency=Path("my_adj.csv")),
            id="own-csv-without-adapter",
        ),
        pytest.param(
            ["--stlora", "--frozen", "--backbone-checkpoint", "best.safetensors"],
            TrainConfig(stlora=True, frozen=True, backbone_checkpoint=Path("best.safetensors")),
            id="frozen",
        ),
        pytest.param(
            ["--adapter.rank", "8", "--adapter.phi", "relu", "--null-value", "-1", "--split", "7", "1", "2"],
            TrainConfig(adapter=AdapterConfig(rank=8, phi="relu"), null_value=-1.0, split=(7.0, 1.0, 2.0)),
            id="nested-negative-tuple",
        ),
        pytest.param(["--null-value", "none"], TrainConfig(null_value="none"), id="null-value-none"),
        pytest.param(["--batch_size=8"], TrainConfig(batch_size=8), id="underscores-and-equals"),
    ],
)
def test_options(argv, expected):
    assert parsed(*argv) == expected


def test_no_argument_at_all_is_the_demonstration_and_can_be_repeated():
    config, call = parse_train([])
    assert config == TrainConfig(dataset="synthetic", backbone="lstm", stlora=True, epochs=5, output=Path("runs/demo"))
    assert call == {"overwrite": True, "resume": False, "quiet": False}


def test_overwrite_and_quiet_are_of_the_call_and_not_of_the_run():
    config, call = parse_train(["--overwrite", "--quiet"])
    assert call == {"overwrite": True, "resume": False, "quiet": True}
    assert config == TrainConfig()


def test_command_line_wins_over_yaml_and_yaml_over_defaults(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 7\nbatch_size: 8\nstlora: true\nadapter:\n  rank: 4\n  layers: 2\n")
    config = parsed("--config", str(file), "--epochs", "9", "--adapter.rank", "3")
    assert config == TrainConfig(epochs=9, batch_size=8, stlora=True, adapter=AdapterConfig(rank=3, layers=2))
    assert not parsed("--config", str(file), "--no-stlora").stlora


@pytest.mark.parametrize(
    ("written", "said", "expected"),
    [
        ("milestones: [3, 4]", ["--step-size", "5"], (5, ())),
        ("step_size: 5", ["--milestones", "3", "4"], (0, (3, 4))),
        ("step_size: 5", [], (5, ())),
        ("backbone: stgcn", ["--milestones", "3"], (0, (3,))),
    ],
)
def test_a_decay_of_the_command_line_takes_the_place_of_one_in_the_file(tmp_path, written, said, expected):
    file = tmp_path / "run.yaml"
    file.write_text(written + "\n")
    recipe = parsed("--config", str(file), *said).recipe()
    assert (recipe.step_size, recipe.milestones) == expected


def test_the_backbones_arguments_may_be_a_mapping_in_yaml(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("backbone_args: {embedding: 4, adaptive: false, channels: [8, 4]}\n")
    assert arguments_of(load_yaml(file).backbone_args) == {"embedding": 4, "adaptive": False, "channels": [8, 4]}


UNUSUAL = TrainConfig(
    dataset="my data/äö.csv",
    data_dir=Path("some where"),
    split=(0.5, 0.25, 0.25),
    null_value=-1.5,
    stlora=True,
    adapter=AdapterConfig(phi="relu", temporal="step", dropout=0.0),
    learning_rate=1e-5,
    max_batches=3,
)


@pytest.mark.parametrize("config", [TrainConfig(), UNUSUAL], ids=["defaults", "unusual"])
def test_yaml_and_dict_round_trip(config, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    assert load_yaml(file) == config
    assert parsed("--config", str(file)) == config
    assert config_from_dict(config.as_dict()) == config


def test_scientific_notation_in_yaml_is_a_number(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("learning_rate: 1e-4\n")  # a string to YAML 1.1
    assert load_yaml(file).learning_rate == 1e-4


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--epoch 3", ["--epoch", "--epochs INT"]),
        ("--epochs three", ["--epochs", "'three'", "INT"]),
        ("--epochs 2.5", ["--epochs", "'2.5'", "INT"]),
        ("--epochs", ["--epochs"]),
        ("--epochs 0", ["--epochs", "got 0", "at least 1"]),
        ("--batch-size -4", ["--batch-size", "got -4", "at least 1"]),
        ("--window 0", ["--window", "got 0", "at least 1"]),
        ("--horizon -1", ["--horizon", "got -1", "at least 1"]),
        ("--max-batches 0", ["--max-batches", "got 0", "at least 1"]),
        ("--patience 0", ["--patience", "got 0", "at least 1"]),
        ("--seed 4294967296", ["--seed", "got 4294967296", "at most 4294967295"]),
        ("--synthetic.steps 1000000000000", ["--synthetic.steps", "too large", "at most 1000000000"]),
        ("--adapter.hidden 1000000000000", ["--adapter.hidden", "too large", "at most 1000000000"]),
        ("--adapter.rank 100000000000000000000", ["--adapter.rank", "too large", "at most 1000000000"]),
        ("--seed -1", ["--seed", "got -1", "at least 0"]),
        ("--adapter.rank 0", ["--adapter.rank", "got 0", "at least 1"]),
        ("--adapter.hidden -8", ["--adapter.hidden", "got -8", "at least 1"]),
        ("--adapter.dropout 1", ["--adapter.dropout", "got 1", "[0, 1)"]),
        ("--adapter.alpha nan", ["--adapter.alpha", "got nan", "(-inf, inf)"]),
        ("--adapter.temporal unfold", ["--adapter.temporal", "'unfold'", "fold", "step"]),
        ("--synthetic.nodes 0", ["--synthetic.nodes", "got 0", "at least 1"]),
        ("--learning-rate 0", ["--learning-rate", "got 0", "(0, inf)"]),
        ("--learning-rate nan", ["--learning-rate", "got nan", "(0, inf)"]),
        ("--weight-decay -1", ["--weight-decay", "got -1", "[0, inf)"]),
        ("--gamma 1.5", ["--gamma", "got 1.5", "(0, 1]"]),
        ("--null-value inf", ["--null-value", "got inf", "finite"]),
        ("--null-value zero", ["--null-value", "'zero'", "FLOAT"]),
        ("--split 1 2", ["--split", "'1', '2'", "FLOAT FLOAT FLOAT"]),
        ("--stlora yes", ["yes"]),
        ("PEMS08", ["PEMS08"]),
        ("--stlora --frozen", ["--frozen", "--backbone-checkpoint"]),
        ("--frozen --backbone-checkpoint x", ["--frozen", "--stlora"]),
    ],
)
def test_wrong_options_are_named_with_what_was_given_and_expected(argv, words, capsys):
    with pytest.raises(InputError) as caught:
        parse_train(argv.split())
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("epoch: 3\n", ["--epoch", "--epochs INT"], id="unknown-key"),
        pytest.param("adapter:\n  ranks: 3\n", ["--adapter.ranks", "--adapter.rank INT"], id="unknown-nested-key"),
        pytest.param("epochs: [3]\nbatch_size: [1, 2]\n", ["2"], id="list-for-a-number"),
        pytest.param("epochs: true\n", ["--epochs", "'True'", "INT"], id="bool-for-a-number"),
        pytest.param("stlora: 1\n", ["--stlora", "'1'", "True", "False"], id="number-for-a-bool"),
        pytest.param("window:\n", ["--window", "'None'", "INT"], id="nothing-for-a-number"),
        pytest.param("help: true\n", ["--help is no key"], id="help"),
        pytest.param("tyro_print_completion: bash\n", ["--tyro-print-completion is no key"], id="completion"),
        pytest.param("adapter: 4\n", ["--adapter"], id="number-for-a-group"),
        pytest.param("- epochs\n", ["list", "expected a mapping"], id="list"),
        pytest.param("", ["NoneType", "expected a mapping"], id="empty"),
        pytest.param("epochs: [3\n", ["cannot be read as YAML"], id="broken"),
        pytest.param("!!python/object/apply:os.system ['true']\n", ["cannot be read as YAML"], id="code"),
    ],
)
def test_wrong_yaml_is_named_with_its_file(text, words, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        parse_train(["--config", str(file)])
    assert all(word in str(caught.value) for word in (str(file), *words)), str(caught.value)


def test_missing_yaml_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"there is no file .*none\.yaml"):
        parse_train(["--config", str(tmp_path / "none.yaml")])


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_errors_read_the_same_whatever_the_terminal_can_show(encoding, monkeypatch):
    monkeypatch.setattr("sys.stdout", open("/dev/null", "w", encoding=encoding))  # noqa: SIM115
    with pytest.raises(InputError, match=r"^--epochs: no type matching INT .*'x'.*; expected --epochs INT"):
        parse_train(["--epochs", "x"])


def test_evaluate_needs_a_run():
    with pytest.raises(InputError, match="--run"):
        parse_evaluate([])
    assert parse_evaluate(["--run", "runs/a"]).run == Path("runs/a")


def test_default_run_folder_names_what_is_trained():
    config = TrainConfig(dataset="data/my.csv", backbone="stgcn", seed=3)
    assert config.run_folder == Path("runs/my-stgcn-seed3")
    assert replace(config, stlora=True).run_folder == Path("runs/my-stgcn-stlora-seed3")
    assert replace(config, stlora=True, frozen=True).run_folder == Path("runs/my-stgcn-stlora-frozen-seed3")
    assert replace(config, output=Path("here")).run_folder == Path("here")
